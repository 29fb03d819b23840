"""A bundle opened: its members in a temporary folder, every byte checked before any of them is used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rir_deploy.bundle.archive import unpack
from rir_deploy.bundle.golden import IMAGES, OUTPUTS, read_array
from rir_deploy.bundle.index import IMAGES_NAME, Index, Item
from rir_deploy.errors import InputError, RirDeployError, UsageError, unknown_name
from rir_deploy.file_system import scratch_folder


@dataclass(frozen=True)
class Bundle:
    """``folder`` holds the members; it is there until the bundle is closed."""

    path: Path
    folder: Path
    index: Index

    def choose(self, names: Sequence[str] = ()) -> tuple[Item, ...]:
        """The graphs and engines of these names, all of them for none; UsageError for an unknown name."""
        items = {item.name: item for item in self.index.items}
        unknown = next((name for name in names if name not in items), None)
        if unknown is not None:
            raise unknown_name("graph or engine", unknown, items)
        return tuple(items[name] for name in dict.fromkeys(names or items))

    def file(self, item: Item) -> Path:
        """The ONNX file of a graph, the folder of an engine."""
        return self.folder / item.path

    def own_words(self, error: RirDeployError) -> str:
        """A message that speaks of the bundle, not of the folder that it is unpacked in."""
        return str(error).replace(f"{self.folder}/", f"{self.path}/")

    def graph(self, precision: str, flavour: str | None) -> Path:
        """The graph of a precision, and for INT8 of a flavour.

        Raises:
            UsageError: the bundle does not hold it.
        """
        graphs = [item for item in self.index.items if item.kind == "graph"]
        for item in graphs:
            if item.precision == precision and item.flavour == flavour:
                return self.file(item)
        wanted = precision if flavour is None else f"{precision} graph with the Q/DQ of {flavour}"
        there = ", ".join(item.name for item in graphs)
        raise UsageError(
            f"the bundle '{self.path}' holds no {wanted} (it holds: {there}); make one from a run with that precision "
            "and backend"
        )

    def images(self) -> NDArray[np.uint8]:
        """The golden images, (n, H, W, C)."""
        images = read_array(self.folder / IMAGES_NAME, IMAGES, rank=4)
        if len(images) != len(self.index.golden.indices) or not images.size:
            raise InputError(f"the bundle '{self.path}' does not hold the golden images that its index describes")
        return images.astype(np.uint8, copy=False)

    def outputs(self, item: Item) -> NDArray[np.float32]:
        """What an item that ran when the bundle was made gave for the golden images, (n, classes)."""
        outputs = read_array(self.folder / item.outputs, OUTPUTS, rank=2)
        if len(outputs) != len(self.index.golden.indices):
            raise InputError(f"the bundle '{self.path}' does not hold an answer of '{item.name}' to each golden image")
        return outputs.astype(np.float32, copy=False)


@contextmanager
def open_bundle(path: Path) -> Iterator[Bundle]:
    """Check a bundle and unpack it for as long as it is in use.

    Raises:
        UsageError: there is no such file.
        InputError: any byte of it is not as it was written.
    """
    with scratch_folder() as folder:
        bundle = Bundle(path, folder, unpack(path, folder))
        try:
            yield bundle
        except RirDeployError as error:
            raise type(error)(bundle.own_words(error)) from error
