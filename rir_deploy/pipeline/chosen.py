"""A proof needs images that nothing was chosen on."""

from __future__ import annotations

from pathlib import Path

from rir_deploy.data.dataset import Dataset
from rir_deploy.engines.base import GRAPH_NAME
from rir_deploy.errors import UsageError
from rir_deploy.onnx_file import load_onnx, read_provenance
from rir_deploy.pipeline.lower import CHOSEN_ON
from rir_deploy.pipeline.sides import kind_of


def check_not_chosen_on(path: Path, dataset: Dataset) -> None:
    """Refuse to judge a graph or an engine on the images by which it was chosen what of it stays in float.

    Raises:
        UsageError: they are the same.
    """
    kind = kind_of(path)
    if kind not in ("onnx", "engine"):
        return
    graph = path if kind == "onnx" else (path if path.is_dir() else path.parent) / GRAPH_NAME
    provenance = read_provenance(load_onnx(graph))
    if provenance is not None and provenance.parents.get(CHOSEN_ON) == dataset.source.fingerprint():
        raise UsageError(
            f"which layers of '{path}' stay in float was chosen on the images of '{dataset.source.name}', and a proof "
            "needs others; name them with --data"
        )
