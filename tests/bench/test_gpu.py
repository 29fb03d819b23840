"""nvidia-smi's answers, as its versions give them."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from rir_deploy.bench.gpu import GpuState, read_gpus

ROW = "NVIDIA H100 80GB HBM3, 9.0, 550.54.15, {clock}, 1980, 2619, 2619, {heat}, {power}, 700.00, {bits}"
ACTIVE = ROW.format(clock=1755, heat=64, power=512.33, bits="0x0000000000000024")


def install(
    folder: Path, monkeypatch: pytest.MonkeyPatch, refuses: str = "", rows: tuple[str, ...] = (ACTIVE,)
) -> Path:
    """An nvidia-smi that answers with ``rows``, and knows no field that ``refuses`` is a part of."""
    cells = "\n".join(rows)
    script = f"""#!/bin/sh
echo "$1" >> {folder}/asked
case "$1" in
  *{refuses or "nothing-refused"}*) echo 'Field "x" is not a valid field to query.'; exit 2;;
  *clocks.gr*) printf '%s\\n' '{cells}';;
  *) printf '%s\\n' 'NVIDIA H100 80GB HBM3, 9.0, 550.54.15';;
esac
"""
    path = folder / "nvidia-smi"
    path.write_text(script)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:/bin:/usr/bin")
    return folder / "asked"


def test_what_a_gpu_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = install(tmp_path, monkeypatch)
    (gpu,) = read_gpus()
    assert gpu == GpuState(
        "NVIDIA H100 80GB HBM3",
        "sm90",
        "550.54.15",
        1755,
        1980,
        2619,
        2619,
        64,
        512.33,
        700,
        ("power limit", "heat (software)"),
    )
    assert gpu.label == "NVIDIA H100 80GB HBM3 (sm90)"
    assert "clocks_event_reasons.active" in asked.read_text()


def test_an_older_driver_calls_the_reasons_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = install(tmp_path, monkeypatch, refuses="event_reasons")
    assert read_gpus()[0].throttled == ("power limit", "heat (software)")
    assert "clocks_throttle_reasons.active" in asked.read_text()


def test_a_driver_that_knows_only_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, refuses="clocks.gr")
    assert read_gpus() == (GpuState("NVIDIA H100 80GB HBM3", "sm90", "550.54.15"),)


@pytest.mark.parametrize("bits", ["0x0000000000000000", "0x0000000000000001", "[N/A]"])
def test_idleness_is_no_slowing_down_and_what_is_not_there_is_none(
    bits: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = ROW.format(clock="[N/A]", heat="[Not Supported]", power="[Unknown Error]", bits=bits)
    install(tmp_path, monkeypatch, rows=(row, ACTIVE))
    first, second = read_gpus()
    assert (first.clock_mhz, first.temperature_c, first.power_w, first.throttled) == (None, None, None, ())
    assert first.max_clock_mhz == second.max_clock_mhz == 1980


@pytest.mark.parametrize("answer", ["No devices were found", "", "NVIDIA-SMI has failed because it could not"])
def test_no_gpu(answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, refuses="name", rows=(answer,))
    assert read_gpus() == ()
    monkeypatch.setenv("PATH", "/nowhere")
    assert read_gpus() == ()
