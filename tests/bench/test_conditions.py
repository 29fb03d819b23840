"""What happened while something was timed, and which of it makes a figure doubtful."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rir_deploy.bench.board import Board, DeviceClock
from rir_deploy.bench.conditions import Conditions, Counters, GpuConditions, Look, Watch, conditions_of, read_counters
from rir_deploy.bench.cpu import CpuClocks
from rir_deploy.bench.doubts import conditions_doubts, host_bound, machine_doubts, preempted
from rir_deploy.bench.gpu import GpuState
from rir_deploy.bench.machine import Machine
from rir_deploy.bench.memory import held_mb, peak_mb
from rir_deploy.bench.process import run_job
from tests.bench.test_cpu import core, put

STAT = """cpu  900 0 0 0 0 0 0 0 0 0
cpu0 {} 10 20 300 40 5 6 {} 0 0
cpu1 0 0 0 1000 0 0 0 0 0 0
cpu10 77 7 7 7 7 7 7 7 7 7
intr 5
"""
QUIET = Counters(100.0, 10.0, 1.0, 50.0, 3.0, 4, 2, 1000.0)
NOTHING = Look(None, {}, {}, ())
STEADY = Conditions(10, 0.0, 0.0, 0, 0, None, None, {}, {}, ())
PLAIN = Machine("Linux", "3.11", "CPU", 4, 8.0, (), (), None)


def test_counters_are_of_the_cores_of_this_process(tmp_path: Path) -> None:
    put(tmp_path, {"proc/stat": STAT.format(100, 8), "sys/class/powercap/intel-rapl:0/energy_uj": "5000000"})
    read, tick = read_counters([0], tmp_path), os.sysconf("SC_CLK_TCK")
    assert read.busy_s == pytest.approx((100 + 10 + 20 + 5 + 6) / tick)
    assert read.steal_s == pytest.approx(8 / tick)
    assert read.total_s == pytest.approx((100 + 10 + 20 + 300 + 40 + 5 + 6 + 8) / tick)
    assert read_counters([0, 1], tmp_path).total_s == pytest.approx(1489 / tick)
    assert read.energy_j == 5
    assert (read.throttles, read.quota_stops) == (None, None)


def test_a_system_without_counters() -> None:
    read = read_counters([0], Path("/nowhere"))
    assert (read.busy_s, read.steal_s, read.total_s, read.energy_j) == (None, None, None, None)
    found = conditions_of(read, read, [NOTHING])
    assert (found.steal, found.others, found.throttles, found.cpu_mhz, found.cpu_power_w) == (None,) * 5
    assert conditions_doubts(found, 4, None) == []


def test_shares_are_of_the_time_that_passed() -> None:
    """20 s of CPU time passed: 12 s busy, 9 of them ours, 1 s stolen."""
    after = Counters(110.0, 22.0, 2.0, 70.0, 12.0, 9, 2, 1500.0)
    found = conditions_of(QUIET, after, [NOTHING])
    assert found.steal == pytest.approx(1 / 20)
    assert found.others == pytest.approx(3 / 20)
    assert (found.throttles, found.quota_stops, found.cpu_power_w) == (5, 0, 50)
    assert conditions_of(QUIET, replace(after, own_s=99), [NOTHING]).others == 0  # two clocks, which do not agree
    assert conditions_of(QUIET, replace(after, energy_j=3), [NOTHING]).cpu_power_w is None  # begun again


def test_ranges_are_over_all_looks() -> None:
    gpu = GpuState("L4", "sm89", "550", clock_mhz=1500, temperature_c=70, power_w=60)
    looks = [
        Look(3000, {"x86_pkg_temp": 60, "acpi": 20}, {"VDD_IN": 7.0}, (gpu,)),
        Look(
            2000, {"x86_pkg_temp": 95}, {"VDD_IN": 6.0}, (replace(gpu, clock_mhz=900, throttled=("heat (hardware)",)),)
        ),
        Look(2500, {}, {}, (replace(gpu, clock_mhz=None, temperature_c=88),)),
    ]
    found = conditions_of(QUIET, QUIET, looks)
    assert found.cpu_mhz == (2000, 3000)
    assert found.max_temperatures_c == {"x86_pkg_temp": 95, "acpi": 20}
    assert found.max_power_w == {"VDD_IN": 7}
    assert found.gpus == (GpuConditions("L4 (sm89)", (900, 1500), 88, 60, ("heat (hardware)",)),)
    assert [doubt.split(";")[0] for doubt in conditions_doubts(found, 4, None)] == [
        "the CPU's clock moved between 2000 and 3000 MHz",
        "L4 (sm89) was slowed down (heat (hardware))",
        "the clock of L4 (sm89) moved between 900 and 1500 MHz",
    ]


def test_the_watch_sees_what_changes_while_it_lasts(tmp_path: Path) -> None:
    put(tmp_path, {"proc/stat": STAT.format(100, 0), **core(0, "performance", 3_000_000)})
    with Watch([0], tmp_path, interval_s=0.01) as watch:
        put(tmp_path, {"proc/stat": STAT.format(300, 100), **core(0, "performance", 1_500_000)})
        seen = time.monotonic() + 10
        while len(watch._looks) < 3 and time.monotonic() < seen:
            time.sleep(0.01)
    found = watch.conditions
    assert found.steal == pytest.approx(100 / 300)
    assert found.cpu_mhz == (1500, 1500)  # the look before the start is not among them
    assert found.seconds > 0


def test_nothing_is_looked_at_again_where_there_is_nothing_to_see() -> None:
    with Watch([0], Path("/nowhere"), interval_s=0.001) as watch:
        assert watch._thread is None


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"steal": 0.05}, "the hypervisor gave 5% of the CPU time to other machines; time on a host"),
        ({"others": 0.3}, "other processes took 30% of the CPU time; stop them"),
        ({"quota_stops": 3}, "stopped 3 times because its CPU time was used up; take fewer --threads"),
        ({"throttles": 2}, "slowed the CPU down 2 times; let it cool"),
        ({"cpu_mhz": (3000.0, 3400.0)}, "moved between 3000 and 3400 MHz; fix it"),
    ],
)
def test_each_doubt_says_what_to_do(changed: dict[str, Any], words: str) -> None:
    assert conditions_doubts(STEADY, 4, 99.0) == []
    (doubt,) = conditions_doubts(replace(STEADY, **changed), 4, None)
    assert words in doubt


@pytest.mark.parametrize(
    "changed", [{"steal": 0.005}, {"others": 0.05}, {"cpu_mhz": (3300.0, 3400.0)}, {"steal": None, "throttles": None}]
)
def test_a_little_is_no_doubt(changed: dict[str, Any]) -> None:
    assert conditions_doubts(replace(STEADY, **changed), 4, None) == []


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        (
            replace(PLAIN, clocks=CpuClocks(governor="schedutil")),
            "(governor schedutil); for the timing run: sudo cpupower",
        ),
        (
            replace(PLAIN, clocks=CpuClocks(quota_cores=1.5)),
            "1.5 cores and 4 threads run: it is stopped at times; give --threads 1",
        ),
        (
            replace(PLAIN, board=Board(gpu_clocks=(DeviceClock("gpu", 300, 306, 918),))),
            "free to move from 306 to 918 MHz; for the timing run: sudo jetson_clocks",
        ),
    ],
)
def test_each_doubt_about_the_machine_says_what_to_do(machine: Machine, words: str) -> None:
    (doubt,) = machine_doubts(machine, 4)
    assert words in doubt


@pytest.mark.parametrize(
    "machine",
    [
        PLAIN,
        replace(PLAIN, clocks=CpuClocks(governor="performance", min_mhz=800, max_mhz=3000, turbo=True)),
        replace(PLAIN, clocks=CpuClocks(governor="schedutil", min_mhz=2201, max_mhz=2201)),  # after jetson_clocks
        replace(PLAIN, clocks=CpuClocks(quota_cores=4.0)),
        replace(PLAIN, board=Board(gpu_clocks=(DeviceClock("gpu", 918, 918, 918),))),
    ],
)
def test_a_machine_that_is_in_order(machine: Machine) -> None:
    assert machine_doubts(machine, 4) == []


def test_load_before_the_start_counts_where_the_rest_is_not_known() -> None:
    """What ran before may have been this tool itself, as in a run."""
    unknown = replace(STEADY, others=None)
    assert conditions_doubts(unknown, 4, 2.0) == []
    (doubt,) = conditions_doubts(unknown, 4, 2.1)
    assert doubt.startswith("the machine was busy before the start (load 2.1 on 4 cores)")
    assert conditions_doubts(replace(STEADY, others=0.0), 4, 2.1) == []


def test_bounds_of_what_a_process_sees_itself() -> None:
    assert host_bound(0.79, 1.0) is None
    assert "replay a CUDA graph" in str(host_bound(0.81, 1.0))
    assert preempted(50) is None
    assert "60 times a second" in str(preempted(60))


def test_memory_is_of_the_process_itself(tmp_path: Path) -> None:
    """A child of a large process has a peak of its own: 300 MB here are not in it, 100 MB that it takes are."""
    ballast = bytearray(300_000_000)
    small, large = (run_job("tests.bench.odd_worker", {"do": "hold", "bytes": size}, "x") for size in (0, 100_000_000))
    assert len(ballast) == 300_000_000
    assert small["peak_mb"] < 250
    assert large["peak_mb"] - small["peak_mb"] == pytest.approx(100, abs=10)
    assert large["peak_mb"] >= large["held_mb"] > 0
    assert (held_mb(tmp_path / "none"), peak_mb(tmp_path / "none")) == (None, None)
    (tmp_path / "status").write_text("Name:\tx\nVmHWM:\t    2000 kB\nVmRSS:\t    1000 kB\n")
    assert (held_mb(tmp_path / "status"), peak_mb(tmp_path / "status")) == (1.024, 2.048)
