"""The range table: what calibration found, bound to the model, recipe and data it was found with."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, get_args

from rir_deploy.errors import InputError
from rir_deploy.quantize.chosen_on import ChosenOn
from rir_deploy.strict_data import parse_json

Method = Literal["minmax", "percentile", "entropy", "mse"]
METHODS: tuple[Method, ...] = get_args(Method)

# 2: models are hashed weight by weight; exponents and rounded weights belong to the table.
# 3: what stays in float, and the images that it was chosen on.
_VERSION = 3
# Of equalisation: factors of a million are no longer a rounding matter.
MAX_EXPONENT = 20

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SOURCES = ("model_sha256", "recipe_sha256", "data_sha256")
_KEYS = (
    "version",
    "method",
    "percentile",
    "samples",
    *_SOURCES,
    "ranges",
    "exponents",
    "split_identity",
    "weights_sha256",
    "kept",
    "chosen_on",
)


@dataclass(frozen=True)
class Range:
    """The smallest and largest value of one tensor, both finite."""

    min: float
    max: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.min) and math.isfinite(self.max) and self.min <= self.max):
            raise InputError(f"a range runs from a finite min up to a finite max, not from {self.min} to {self.max}")

    @property
    def max_abs(self) -> float:
        return max(abs(self.min), abs(self.max))


@dataclass(frozen=True)
class Sources:
    """Hex sha256 of the model, the recipe and the data that a table was made with."""

    model_sha256: str
    recipe_sha256: str
    data_sha256: str

    def __post_init__(self) -> None:
        for key, value in vars(self).items():
            if not isinstance(value, str) or not _SHA256.fullmatch(value):
                raise InputError(f"{key} must be 64 hexadecimal digits in lower case, not {value!r}")


@dataclass(frozen=True)
class RangeTable:
    """Ranges by tensor name.

    Attributes:
        ranges: of every tensor observed, in the equalised model where there are ``exponents``.
        method: how thresholds were found, see `ranges.RangeOptions`.
        samples: images calibrated on, at least 1.
        sources: what the table is bound to.
        percentile: over 50, up to 100, with the method "percentile"; None with others.
        exponents: of equalisation: powers of two a channel, by the first tensor of each group (`equalize`).
        split_identity: whether identities stand outside of the kernels (`identity`).
        weights_sha256: of the file with the rounded weights that belong to the table; None where weights are rounded
            to the nearest integer.
        kept: nodes that stay in float because somebody asked for it, and why: a pattern, a budget.
        chosen_on: the images on which some of that was chosen; None where none was.
    """

    ranges: Mapping[str, Range]
    method: Method
    samples: int
    sources: Sources
    percentile: float | None = field(default=None)
    exponents: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    split_identity: bool = False
    weights_sha256: str | None = None
    kept: Mapping[str, str] = field(default_factory=dict)
    chosen_on: ChosenOn | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"method must be one of {', '.join(METHODS)}, not {self.method!r}")
        if not isinstance(self.samples, int) or isinstance(self.samples, bool) or self.samples < 1:
            raise InputError(f"samples must be at least 1, not {self.samples!r}")
        if (self.percentile is not None) != (self.method == "percentile"):
            raise InputError(f"the method '{self.method}' does not go with the percentile {self.percentile}")
        if self.percentile is not None and not 50 < self.percentile <= 100:
            raise InputError(f"percentile must be over 50 and up to 100, not {self.percentile}")
        if self.weights_sha256 is not None and not _SHA256.fullmatch(self.weights_sha256):
            raise InputError(f"weights_sha256 must be 64 hexadecimal digits in lower case, not {self.weights_sha256!r}")
        for name, exponents in self.exponents.items():
            if any(abs(exponent) > MAX_EXPONENT for exponent in exponents):
                raise InputError(f"the exponents of '{name}' must be -{MAX_EXPONENT} to {MAX_EXPONENT}")
        object.__setattr__(self, "ranges", MappingProxyType(dict(self.ranges)))
        for node, reason in self.kept.items():
            if not (isinstance(reason, str) and node and reason):
                raise InputError(f"'{node}' is kept for {reason!r}: a node has a name and a reason")
        object.__setattr__(self, "exponents", MappingProxyType(dict(self.exponents)))
        object.__setattr__(self, "kept", MappingProxyType(dict(self.kept)))

    def __getitem__(self, name: str) -> Range:
        """The range of one tensor; InputError where it was not observed."""
        try:
            return self.ranges[name]
        except KeyError:
            raise InputError(
                f"the range table knows no tensor '{name}': it was made from another model; calibrate this one"
            ) from None

    def max_abs(self) -> dict[str, float]:
        """The largest absolute value of every tensor."""
        return {name: found.max_abs for name, found in self.ranges.items()}

    def check(self, model_sha256: str, recipe_sha256: str, data_sha256: str | None = None) -> None:
        """Refuse a table made with another model, recipe or (where given) data.

        Raises:
            InputError: naming what differs, and the way out.
        """
        given = {"model": model_sha256, "recipe": recipe_sha256, "data": data_sha256}
        for what, sha in given.items():
            bound = getattr(self.sources, f"{what}_sha256")
            if sha is not None and sha != bound:
                raise InputError(
                    f"the range table was made with another {what} (sha256 {bound[:12]}, here {sha[:12]}); "
                    f"calibrate again, or use the {what} it was made with"
                )

    def to_json(self) -> str:
        """Canonical JSON: equal tables give equal bytes, and every number reads back exactly."""
        data = {
            "version": _VERSION,
            "method": self.method,
            "percentile": self.percentile,
            "samples": self.samples,
            **vars(self.sources),
            "weights_sha256": self.weights_sha256,
            "split_identity": self.split_identity,
            "kept": dict(self.kept),
            "chosen_on": None if self.chosen_on is None else self.chosen_on.to_dict(),
            "exponents": {name: list(exponents) for name, exponents in self.exponents.items()},
            "ranges": {name: [float(found.min), float(found.max)] for name, found in self.ranges.items()},
        }
        text = json.dumps(data, sort_keys=True, allow_nan=False, indent=1)
        return re.sub(r"\[\n[^\[\]{}\"]*\]", _one_line, text) + "\n"  # a text in JSON holds no line break

    @staticmethod
    def from_json(text: str) -> RangeTable:
        """Read what `to_json` wrote; InputError on anything else."""
        try:
            return _from_data(parse_json(text))
        except (ValueError, InputError) as error:
            raise InputError(f"the range table is malformed ({error}); calibrate again") from error
        except (TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            raise InputError("the range table is malformed (a value is of another type); calibrate again") from error


def _one_line(found: re.Match[str]) -> str:
    """A list of numbers on one line, so that a change is a line of a diff."""
    return f"[{' '.join(found.group()[1:-1].split())}]"


def _from_data(data: Any) -> RangeTable:
    if not isinstance(data, dict) or set(data) != set(_KEYS):
        raise ValueError(f"it needs exactly the keys {', '.join(_KEYS)}")
    if data["version"] != _VERSION:
        raise ValueError(f"version {data['version']!r}, where this tool reads {_VERSION}")
    return RangeTable(
        ranges={name: Range(*map(_number, _pair(pair))) for name, pair in data["ranges"].items()},
        method=data["method"],
        samples=data["samples"],
        sources=Sources(data["model_sha256"], data["recipe_sha256"], data["data_sha256"]),
        percentile=None if data["percentile"] is None else _number(data["percentile"]),
        exponents={name: tuple(map(_integer, _list(values))) for name, values in data["exponents"].items()},
        split_identity=_boolean(data["split_identity"]),
        weights_sha256=data["weights_sha256"],
        kept=dict(data["kept"].items()),
        chosen_on=None if data["chosen_on"] is None else ChosenOn.from_dict(data["chosen_on"]),
    )


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"exponents are a list, not {value!r}")
    return value


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is neither true nor false")
    return value


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{value!r} is not an integer")
    return value


def _pair(value: Any) -> list[Any]:
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError(f"a range is [min, max], not {value!r}")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r} is not a number")
    return float(value)
