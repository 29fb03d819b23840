"""fold: any ONNX file in, the folded one out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rir_deploy import __version__
from rir_deploy.artifacts import Provenance, check_output, sha256_file
from rir_deploy.fold import FoldOptions, FoldResult, check_fold, fold
from rir_deploy.graph.evaluate import Graph
from rir_deploy.onnx_file import load_onnx, read_provenance, save_onnx, write_provenance


def fold_file(source: Path, output: Path, options: FoldOptions, *, force: bool) -> FoldResult:
    """Fold ``source`` into ``output``. Where nothing folds, ``output`` is the model as it came.

    The check compares the result with the file itself, so that reading it is checked as well.

    Raises:
        UsageError, InputError, GateError: as `load_onnx`, `fold` and `save_onnx` do; then nothing is written.
    """
    check_output(output, force=force)
    model = load_onnx(source)
    result = fold(model, replace(options, check=False))
    if options.check:
        result = replace(result, check=check_fold(Graph(model, source), Graph(result.model)))
    if result.modified:
        before = read_provenance(model) or Provenance(tool=f"rir-deploy {__version__}")
        parents = {**before.parents, "onnx": sha256_file(source)}
        write_provenance(result.model, replace(before, stages=(*before.stages, "fold"), parents=parents))
    save_onnx(result.model, output, force=force)
    return result
