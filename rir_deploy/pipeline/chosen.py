"""A proof needs images that nothing was chosen on."""

from __future__ import annotations

from pathlib import Path

from rir_deploy.data.dataset import Dataset
from rir_deploy.data.digests import image_digests
from rir_deploy.engines.base import GRAPH_NAME
from rir_deploy.errors import InputError, UsageError
from rir_deploy.onnx_file import load_onnx, read_provenance
from rir_deploy.pipeline.lower import CHOSEN_ON
from rir_deploy.pipeline.sides import kind_of
from rir_deploy.quantize.chosen_on import read_chosen_on


def check_not_chosen_on(path: Path, dataset: Dataset) -> None:
    """Refuse to judge a graph or an engine on images by which it was chosen what of it stays in float.

    Raises:
        UsageError: some of them are; it says how many.
        InputError: the graph does not say which images those were.
    """
    kind = kind_of(path)
    if kind not in ("onnx", "engine"):
        return
    model = load_onnx(path if kind == "onnx" else (path if path.is_dir() else path.parent) / GRAPH_NAME)
    found, provenance = read_chosen_on(model), read_provenance(model)
    if found is None:
        if provenance is not None and CHOSEN_ON in provenance.parents:
            raise InputError(
                f"'{path}' does not say on which images it was chosen what stays in float; quantise it again"
            )
        return
    common = found.among(image_digests(dataset))
    if len(common):
        count = f"{'at least ' if found.is_sample else ''}{len(common)} of the {len(dataset)} images"
        first = dataset.source.describe(int(common[0]))
        raise UsageError(
            f"which layers of '{path}' stay in float was chosen on {count} of '{dataset.source.name}' (the first is "
            f"'{first}'), and a proof needs others; name them with --data"
        )
