"""The files that an input consists of: what lies beside a model, behind the links of a folder, in a recipe's words."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rir_deploy.errors import RirDeployError

if TYPE_CHECKING:
    from rir_deploy.recipe import Recipe

# Files that are no ONNX models and need not be tried.
_OTHERS = (".toml", ".json", ".npz", ".zip", ".pt", ".pth", ".safetensors", ".xml", ".md", ".html")


def parts_of(path: Path) -> Iterator[Path]:
    """All that an input reads besides ``path`` itself, by whatever names lead there; none where it cannot be read."""
    if path.is_dir():
        yield from _below(path, set())
        yield from _sources(_recipe_of_engine(path))
    elif path.suffix == ".toml":
        yield from _sources(_recipe(path))
    elif path.suffix not in _OTHERS and path.is_file():
        yield from _of_model(path)


def source_path(spec: str) -> Path | None:
    """The path in the name of a data source; None for the digits, which have none."""
    if not spec or spec.partition(":")[0] == "digits":
        return None
    head, _, part = spec.rpartition(":")
    return Path(head if head and part in ("train", "test") and not os.path.exists(spec) else spec)


def _below(folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    """Every file of a folder, through links too, each folder once."""
    try:
        found = os.stat(folder)
        entries = list(os.scandir(folder))
    except OSError:
        return
    if (found.st_dev, found.st_ino) in seen:
        return
    seen.add((found.st_dev, found.st_ino))
    for entry in entries:
        if entry.is_dir():
            yield from _below(Path(entry.path), seen)
        else:
            yield Path(entry.path)


def _of_model(path: Path) -> Iterator[Path]:
    """The data files of an ONNX model, as the loader looks for them and where a link to the model leads; and the images
    of the recipe that it records."""
    import onnx

    from rir_deploy.artifacts import METADATA_KEY, Provenance
    from rir_deploy.onnx_file import external_locations
    from rir_deploy.recipe import Recipe

    try:
        proto = onnx.load(path, load_external_data=False)
    except Exception:  # protobuf raises nearly every built-in error; what is no model is refused by who reads it
        return
    for location in external_locations(proto):
        for folder in dict.fromkeys((path.absolute().parent, Path(os.path.realpath(path)).parent)):
            yield folder / location
    for entry in proto.metadata_props:
        if entry.key == METADATA_KEY:
            try:
                recipe = Provenance.from_json(entry.value).recipe
                yield from _sources(None if recipe is None else Recipe.from_dict(recipe))
            except RirDeployError:
                return


def _recipe(path: Path) -> Recipe | None:
    from rir_deploy.recipe import load_recipe

    try:
        return load_recipe(path)
    except RirDeployError:
        return None


def _recipe_of_engine(folder: Path) -> Recipe | None:
    from rir_deploy.engines.manifest import read_manifest
    from rir_deploy.recipe import Recipe

    try:
        recipe = read_manifest(folder).recipe
        return None if recipe is None else Recipe.from_dict(recipe)
    except RirDeployError:
        return None


def _sources(recipe: Recipe | None) -> Iterator[Path]:
    for spec in () if recipe is None else recipe.data.values():
        path = source_path(spec)
        if path is not None and path.exists():
            yield path
            yield from _below(path, set()) if path.is_dir() else ()
