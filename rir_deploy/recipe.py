"""A recipe: how a data set is preprocessed, labelled and calibrated; read from TOML, kept in artifacts."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from rir_deploy.data.preprocess import Preprocessing
from rir_deploy.data.tables import as_integer, as_list, as_number, as_table, as_text, check_table
from rir_deploy.errors import InputError, UsageError, unknown_name
from rir_deploy.strict_data import parse_toml

Method = Literal["auto", "minmax", "percentile", "entropy", "mse"]

METHODS: tuple[Method, ...] = get_args(Method)
_DATA_KEYS = ("train", "test")


@dataclass(frozen=True)
class CalibrationOptions:
    """How many samples set the ranges of activations, and how.

    Attributes:
        samples: images, at least 1.
        seed: 0 to 2**32 - 1, of the choice of images.
        percentile: over 50, up to 100; of the absolute activations, read by the method "percentile".
        method: of the ranges: "minmax", "percentile", "entropy", "mse", or "auto" for what fits best.

    Raises:
        InputError: a value out of range.
    """

    samples: int = 512
    seed: int = 0
    percentile: float = 99.99
    method: Method = "auto"

    def __post_init__(self) -> None:
        if as_integer(self.samples, "samples") < 1:
            raise InputError(f"samples must be at least 1, not {self.samples}")
        if not 0 <= as_integer(self.seed, "seed") < 2**32:
            raise InputError(f"seed must be 0 to {2**32 - 1}, not {self.seed}")
        if not 50 < as_number(self.percentile, "percentile") <= 100:
            raise InputError(f"percentile must be over 50 and up to 100, not {self.percentile}")
        if self.method not in METHODS:
            raise InputError(f"method must be one of {', '.join(METHODS)}, not {self.method!r}")


@dataclass(frozen=True)
class Recipe:
    """What a data set asks of every stage.

    Attributes:
        name: how it is asked for.
        preprocessing: from image to network input.
        classes: distinct names, at least two, in the order of the labels.
        calibration: see `CalibrationOptions`.
        data: default sources by part ("train", "test"), as `open_source` takes them.
        model: plain data, checked by what builds models.
        train: plain data, checked by what trains.

    Raises:
        InputError: class names empty or repeated, a part of ``data`` unknown, a value that JSON cannot hold.
    """

    name: str
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    calibration: CalibrationOptions = field(default_factory=CalibrationOptions)
    data: dict[str, str] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        as_text(self.name, "name")
        names = [as_text(name, "each of classes") for name in self.classes]
        if len(names) < 2:
            raise InputError(f"classes must hold at least 2 names, not {len(names)}")
        repeated = next((name for index, name in enumerate(names) if name in names[:index]), None)
        if repeated is not None:
            raise InputError(f"classes holds '{repeated}' twice")
        for key, spec in check_table(self.data, "[data]", (), _DATA_KEYS).items():
            as_text(spec, f"[data] {key}")
        as_table(self.model, "[model]")
        as_table(self.train, "[train]")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, in the layout of the TOML file with ``name`` in it."""
        return {
            "name": self.name,
            "classes": list(self.classes),
            "data": dict(self.data),
            "preprocess": self.preprocessing.to_dict(),
            "calibration": asdict(self.calibration),
            "model": as_table(self.model, "[model]"),
            "train": as_table(self.train, "[train]"),
        }

    @staticmethod
    def from_dict(data: object) -> Recipe:
        """Read what `to_dict` wrote, or a TOML file's tables; name, classes and preprocess must be there.

        Raises:
            InputError: naming the key that is unknown, missing, of a wrong type or out of range.
        """
        optional = ("data", "calibration", "model", "train")
        table = check_table(data, "the recipe", ("name", "classes", "preprocess"), optional)
        return Recipe(
            name=as_text(table["name"], "name"),
            preprocessing=Preprocessing.from_dict(table["preprocess"], "[preprocess]"),
            classes=tuple(as_list(table["classes"], "classes")),
            calibration=_read_calibration(table.get("calibration", {})),
            data=as_table(table.get("data", {}), "[data]"),
            model=as_table(table.get("model", {}), "[model]"),
            train=as_table(table.get("train", {}), "[train]"),
        )


def load_recipe(name_or_path: str | os.PathLike[str]) -> Recipe:
    """The packaged recipe of that name; what ends in ``.toml`` or has a separator is the path of a file.

    Raises:
        UsageError: no recipe of that name, no such file.
        InputError: a file that is not TOML or not a recipe; the message names file and key.
    """
    text = os.fspath(name_or_path)
    separators = [separator for separator in (os.sep, os.altsep) if separator]
    if text.endswith(".toml") or any(separator in text for separator in separators):
        return _load_file(Path(text))
    packaged = packaged_recipes()
    if text not in packaged:
        raise unknown_name("recipe", text, packaged)
    return _load_file(packaged[text])


def packaged_recipes() -> dict[str, Path]:
    """The recipes that travel with the package: name to file."""
    package = Path(__file__).resolve().parent
    # A wheel holds the recipes inside the package; a checkout has them beside it.
    inside, beside = package / "calibration", package.parent / "calibration"
    folder = inside if inside.is_dir() else beside
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def _load_file(path: Path) -> Recipe:
    try:
        data = parse_toml(path.read_bytes())
    except FileNotFoundError as error:
        known = ", ".join(packaged_recipes())
        raise UsageError(f"the recipe '{path}' does not exist (known by name: {known})") from error
    except OSError as error:
        raise InputError(f"cannot read the recipe '{path}': {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"the recipe '{path}' is not TOML: {error}") from error
    try:
        return Recipe.from_dict({"name": path.stem, **data})
    except InputError as error:
        raise InputError(f"the recipe '{path}' is not valid: {error}") from error


def _read_calibration(data: object) -> CalibrationOptions:
    table = check_table(data, "[calibration]", (), ("samples", "seed", "percentile", "method"))
    try:
        return CalibrationOptions(**table)
    except InputError as error:
        raise InputError(f"[calibration]: {error}") from error
