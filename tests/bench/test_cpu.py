"""Clocks and limits, from trees of files like those of real systems."""

from __future__ import annotations

from pathlib import Path

import pytest

from rir_deploy.bench.board import Board, DeviceClock, rails, read_board, temperatures
from rir_deploy.bench.cpu import CpuClocks, quota_cores, quota_stops, read_clocks, throttle_events


def put(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def core(number: int, governor: str, now: int, low: int = 800_000, high: int = 3_600_000) -> dict[str, str]:
    folder = f"sys/devices/system/cpu/cpu{number}/cpufreq"
    values = {"scaling_governor": governor, "scaling_cur_freq": now, "scaling_min_freq": low, "scaling_max_freq": high}
    return {f"{folder}/{name}": str(value) for name, value in values.items()}


def test_a_system_that_says_nothing() -> None:
    assert read_clocks([0, 1], Path("/nowhere")) == CpuClocks()
    assert read_board(Path("/nowhere")) == Board()
    assert throttle_events([0], Path("/nowhere")) is None
    assert quota_stops(Path("/nowhere")) is None


def test_the_cores_of_this_process_alone_are_read(tmp_path: Path) -> None:
    cores = {**core(0, "powersave", 1_200_000), **core(1, "performance", 3_400_000, 900_000), **core(2, "userspace", 1)}
    put(tmp_path, {**cores, "sys/devices/system/cpu/intel_pstate/no_turbo": "0"})
    assert read_clocks([0, 1], tmp_path) == CpuClocks("performance, powersave", 800, 3600, 1200, 3400, turbo=True)
    assert read_clocks([1], tmp_path).governor == "performance"


@pytest.mark.parametrize(
    ("files", "turbo"),
    [
        ({"intel_pstate/no_turbo": "1"}, False),
        ({"cpufreq/boost": "1"}, True),
        ({"cpufreq/boost": "0"}, False),
        ({"cpufreq/boost": "what"}, None),
    ],
)
def test_turbo(files: dict[str, str], turbo: bool | None, tmp_path: Path) -> None:
    put(tmp_path, {f"sys/devices/system/cpu/{name}": text for name, text in files.items()})
    assert read_clocks([0], tmp_path).turbo is turbo


def test_a_virtual_machine_has_its_clocks_in_cpuinfo_alone(tmp_path: Path) -> None:
    text = "\n".join(f"processor\t: {n}\ncpu MHz\t\t: {mhz}\nflags\t\t: fpu" for n, mhz in enumerate((2600.5, 2400)))
    put(tmp_path, {"proc/cpuinfo": text})
    assert read_clocks([0, 1], tmp_path) == CpuClocks(slowest_mhz=2400, fastest_mhz=2600.5)
    assert read_clocks([1], tmp_path).fastest_mhz == 2400


GROUP_2, GROUP_1 = {"proc/self/cgroup": "0::/a/b"}, {"proc/self/cgroup": "4:cpu,cpuacct:/a\n0::/"}


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({**GROUP_2, "sys/fs/cgroup/a/b/cpu.max": "150000 100000"}, 1.5),
        ({**GROUP_2, "sys/fs/cgroup/a/b/cpu.max": "max 100000"}, None),
        # The tightest on the way up counts.
        ({**GROUP_2, "sys/fs/cgroup/a/b/cpu.max": "max 100000", "sys/fs/cgroup/a/cpu.max": "50000 100000"}, 0.5),
        # Inside of a container its own group is the root.
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "200000 100000"}, 2),
        (
            {
                **GROUP_1,
                "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "250000",
                "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000",
            },
            2.5,
        ),
        (
            {
                **GROUP_1,
                "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000",
            },
            None,
        ),
        ({"proc/self/cgroup": "nonsense"}, None),
    ],
)
def test_the_quota_of_a_container(files: dict[str, str], cores: float | None, tmp_path: Path) -> None:
    assert quota_cores(put(tmp_path, files)) == cores


def test_stops_and_throttles_are_counted(tmp_path: Path) -> None:
    thermal = "sys/devices/system/cpu/cpu{}/thermal_throttle/{}_throttle_count"
    files = {
        **GROUP_2,
        "sys/fs/cgroup/a/b/cpu.stat": "usage_usec 5\nnr_periods 40\nnr_throttled 7\nthrottled_usec 9",
        thermal.format(0, "core"): "3",
        thermal.format(0, "package"): "2",
        thermal.format(5, "core"): "100",
        "sys/class/hwmon/hwmon3/oc1_event_cnt": "4",
    }
    put(tmp_path, files)
    assert quota_stops(tmp_path) == 7
    assert throttle_events([0], tmp_path) == 3 + 2 + 4


def test_a_jetson(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files and nvpmodel's words are those of an Orin's JetPack 6."""
    put(tmp_path / "bin", {"nvpmodel": "#!/bin/sh\necho 'NV Power Mode: MODE_30W'\necho 2"})
    (tmp_path / "bin" / "nvpmodel").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    gpu, monitor = "sys/class/devfreq/17000000.gpu", "sys/class/hwmon/hwmon1"
    put(
        tmp_path,
        {
            f"{gpu}/cur_freq": "612000000",
            f"{gpu}/min_freq": "306000000",
            f"{gpu}/max_freq": "612000000",
            "sys/class/devfreq/15340000.vic/cur_freq": "1",
            f"{monitor}/name": "ina3221",
            f"{monitor}/in1_label": "VDD_GPU_SOC",
            f"{monitor}/in1_input": "19000",
            f"{monitor}/curr1_input": "400",
            f"{monitor}/in2_label": "VDD_CPU_CV",
            "sys/class/hwmon/hwmon0/name": "acpi",
            "sys/class/hwmon/hwmon0/in1_label": "other",
            "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
            "sys/class/thermal/thermal_zone0/temp": "51250",
            "sys/class/thermal/thermal_zone1/type": "cv0-thermal",
        },
    )
    board = read_board(tmp_path)
    assert board.power_mode == "MODE_30W"
    assert board.gpu_clocks == (DeviceClock("17000000.gpu", 612, 306, 612),)
    assert board.temperatures_c == temperatures(tmp_path) == {"cpu-thermal": 51.2}
    assert board.power_w == rails(tmp_path) == {"VDD_GPU_SOC": 7.6}


def test_two_zones_of_one_name_are_both_kept(tmp_path: Path) -> None:
    zones = {
        f"sys/class/thermal/thermal_zone{n}/{name}": value
        for n in (0, 1)
        for name, value in (("type", "x"), ("temp", f"{n}000"))
    }
    assert temperatures(put(tmp_path, zones)) == {"x": 0, "x thermal_zone1": 1}
