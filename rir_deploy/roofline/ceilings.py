"""What was measured of a machine: convolutions a runtime at a time, and copies of memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from rir_deploy.data.tables import as_integer, as_list, as_number, as_table, as_text, check_table
from rir_deploy.errors import InputError
from rir_deploy.roofline.shapes import Shape

# What bounds a graph of each precision: FP16 graphs could be computed in BF16, which is as narrow.
HARDWARE = {"fp32": ("fp32",), "fp16": ("fp16", "bf16", "fp32"), "int8": ("int8",)}
PRECISIONS = ("int8", "bf16", "fp16", "fp32")


@dataclass(frozen=True)
class Probe:
    """A shape in one precision on one backend: what is measured."""

    backend: str
    precision: str
    shape: Shape

    def to_dict(self) -> dict[str, object]:
        return asdict(self)

    @staticmethod
    def from_dict(data: object) -> Probe:
        """Raises InputError or UsageError on anything but what `to_dict` wrote, also where it went through JSON."""
        table = check_table(data, "a probe", ("backend", "precision", "shape"), ())
        return Probe(as_text(table["backend"], "backend"), _precision(table["precision"]), _shape(table["shape"]))


@dataclass(frozen=True)
class Ceiling:
    """``gmac_per_s``: 10^9 multiply-adds a second, by the fastest call of all rounds."""

    probe: Probe
    gmac_per_s: float

    def to_dict(self) -> dict[str, object]:
        return {**self.probe.to_dict(), "gmac_per_s": self.gmac_per_s}

    @staticmethod
    def from_dict(data: object) -> Ceiling:
        """Raises InputError or UsageError on anything but what `to_dict` wrote, also where it went through JSON."""
        table = check_table(data, "a ceiling", ("backend", "precision", "shape", "gmac_per_s"), ())
        speed = _positive(table.pop("gmac_per_s"), "gmac_per_s")
        return Ceiling(Probe.from_dict(table), speed)


@dataclass(frozen=True)
class Copy:
    """Bytes read and written a second, 10^9, by all threads copying ``working_set_bytes`` (source and copy) over and
    over: from caches where these hold them, from memory where they do not.
    """

    working_set_bytes: int
    gb_per_s: float


@dataclass(frozen=True)
class Ceilings:
    """All that is known of a machine; ``machine`` says which, on how many threads and with which runtimes."""

    machine: dict[str, object]
    measured: tuple[Ceiling, ...] = ()
    copies: tuple[Copy, ...] = ()

    def best(self, precision: str, backend: str | None = None) -> Ceiling | None:
        """The fastest shape for graphs of ``precision``; of one backend, or of all: the hardware's own ceiling."""
        kinds = HARDWARE.get(precision, (precision,))
        found = [one for one in self.measured if one.probe.precision in kinds and backend in (None, one.probe.backend)]
        return max(found, key=lambda one: one.gmac_per_s, default=None)

    def bests(self) -> list[Ceiling]:
        """The best of each precision and backend, as they were measured, the fastest first."""
        kinds = {(one.probe.precision, one.probe.backend) for one in self.measured}
        found = [
            max((one for one in self.measured if (one.probe.precision, one.probe.backend) == kind), key=_speed)
            for kind in kinds
        ]
        return sorted(found, key=lambda one: (-one.gmac_per_s, one.probe.backend, one.probe.precision))

    def lacks(self, probes: Iterable[Probe]) -> list[Probe]:
        """Those that have not been measured, none twice."""
        known = {one.probe for one in self.measured}
        return [probe for probe in dict.fromkeys(probes) if probe not in known]

    def bandwidth(self, working_set_bytes: float) -> float:
        """GB/s for data of which that much is in use: the best of the copies that moved as much or more.

        What a large copy reaches, a small one does too. Beyond the largest copy it is the largest copy's.

        Raises:
            InputError: no copy was measured.
        """
        if not self.copies:
            raise InputError("no copy of memory was measured on this machine; measure again with --no-cache")
        largest = max(self.copies, key=lambda one: one.working_set_bytes)
        wide = [one.gb_per_s for one in self.copies if one.working_set_bytes >= working_set_bytes]
        return max(wide, default=largest.gb_per_s)

    @property
    def memory_gb_per_s(self) -> float:
        """Of the largest copy, which no cache holds."""
        return self.bandwidth(max((one.working_set_bytes for one in self.copies), default=0))

    def merged(self, measured: Iterable[Ceiling], copies: Iterable[Copy] = ()) -> Ceilings:
        """With more figures; of two of the same thing the faster, since a ceiling is what was reached once."""
        best: dict[Probe, Ceiling] = {}
        for one in (*self.measured, *measured):
            if one.probe not in best or one.gmac_per_s > best[one.probe].gmac_per_s:
                best[one.probe] = one
        widths: dict[int, Copy] = {}
        for copy in (*self.copies, *copies):
            if copy.working_set_bytes not in widths or copy.gb_per_s > widths[copy.working_set_bytes].gb_per_s:
                widths[copy.working_set_bytes] = copy
        return Ceilings(self.machine, tuple(best.values()), tuple(widths[size] for size in sorted(widths)))

    def to_dict(self) -> dict[str, object]:
        return {
            "machine": self.machine,
            "measured": [one.to_dict() for one in self.measured],
            "copies": [asdict(one) for one in self.copies],
        }

    @staticmethod
    def from_dict(data: object) -> Ceilings:
        """Read what `to_dict` wrote, also where it went through JSON.

        Raises:
            InputError: anything else.
        """
        table = check_table(data, "the record of ceilings", ("machine", "measured", "copies"), ())
        machine = as_table(table["machine"], "machine")
        measured = [Ceiling.from_dict(one) for one in as_list(table["measured"], "measured")]
        copies = [_copy(one) for one in as_list(table["copies"], "copies")]
        return Ceilings(machine, tuple(measured), tuple(copies))


def _speed(one: Ceiling) -> float:
    return one.gmac_per_s


def _precision(value: object) -> str:
    name = as_text(value, "precision")
    if name not in PRECISIONS:
        raise InputError(f"precision must be one of {', '.join(PRECISIONS)}, not {name!r}")
    return name


def _positive(value: object, what: str) -> float:
    number = as_number(value, what)
    if number <= 0:
        raise InputError(f"{what} must be over 0, not {number:g}")
    return number


def _copy(data: object) -> Copy:
    table = check_table(data, "a copy", ("working_set_bytes", "gb_per_s"), ())
    size = as_integer(table["working_set_bytes"], "working_set_bytes")
    return Copy(int(_positive(size, "working_set_bytes")), _positive(table["gb_per_s"], "gb_per_s"))


def _shape(data: object) -> Shape:
    names = tuple(Shape.__dataclass_fields__)
    table = check_table(data, "a shape", names, ())
    values: dict[str, Any] = {
        name: _pair(value, name) if isinstance(value, (list, tuple)) else as_integer(value, name)
        for name, value in table.items()
    }
    if any(isinstance(values[name], tuple) != (name in ("size", "kernel", "stride")) for name in names):
        raise InputError(f"a shape has a number for a pair, or a pair for a number: {data!r}")
    return Shape(**values)


def _pair(value: object, what: str) -> tuple[int, int]:
    numbers = [as_integer(one, what) for one in as_list(value, what)]
    if len(numbers) != 2:
        raise InputError(f"{what} must be two integers, not {value!r}")
    return numbers[0], numbers[1]
