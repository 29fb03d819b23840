"""One graph or engine out of a bundle, where something else is compared with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rir_deploy.bundle import Bundle, Item, open_bundle
from rir_deploy.errors import UsageError
from rir_deploy.pipeline.sides import Side, kind_of, open_side


@contextmanager
def open_any(
    path: Path,
    names: Sequence[str] = (),
    *,
    reference: bool = False,
    model: str | None = None,
    threads: int | None = None,
    simulate: bool = False,
    trust: bool = False,
    weights: str | None = None,
) -> Iterator[tuple[Side, Path]]:
    """A side, as `open_side` does, and where its files are: of a bundle the graph or engine that ``names`` says.

    With ``reference``, a bundle stands for its FP32 graph. A side out of a bundle bears the bundle's name and its own.

    Raises:
        UsageError: there is no such file or name; several are named, or none and the bundle holds several.
        InputError: the bundle is not as it was written.
        UsageError, InputError, BackendError: as `open_side` does.
    """
    if kind_of(path) != "bundle":
        reading = {"model": model, "weights": weights}
        with open_side(path, threads=threads, simulate=simulate, trust=trust, **reading) as side:
            yield side, path
        return
    with open_bundle(path) as bundle:
        item = bundle.index.reference if reference else _chosen(bundle, names)
        with open_side(bundle.file(item), threads=threads, simulate=simulate, trust=trust) as side:
            side.path = f"{path}/{item.name}"
            yield side, bundle.file(item)


def _chosen(bundle: Bundle, names: Sequence[str]) -> Item:
    items = bundle.choose(names)
    if len(items) > 1:
        held = ", ".join(item.name for item in items)
        raise UsageError(f"'{bundle.path}' stands for one graph or engine here; choose with --engine: {held}")
    return items[0]
