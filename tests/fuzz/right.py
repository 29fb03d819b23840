"""Where a mutant was taken: is what came out right? By other means than those of the tool.

Every check gives "right", "incomparable: why" (nothing but the tool itself takes the mutant) or "wrong: why".
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

from tests.fold.graphs import evaluate

Job = dict[str, Any]
Array = NDArray[Any]
RIGHT = "right"


def folded(job: Job) -> str:
    """The folded graph computes what the mutant does, by onnx's reference evaluator in float64."""
    before = _by_reference(Path(job["input"]))
    if isinstance(before, str):
        return f"incomparable: {before}"
    after = _by_reference(Path(job["output"]))
    if isinstance(after, str):
        return f"wrong: the folded graph does not run: {after}"
    return _compare(before, after, 1e-6)


def built(job: Job) -> str:
    """The engine's graph computes what the mutant does, both in ONNX Runtime."""
    before = _by_runtime(Path(job["input"]))
    if isinstance(before, str):
        return f"incomparable: {before}"
    after = _by_runtime(Path(job["output"]) / "graph.onnx")
    return f"wrong: {after}" if isinstance(after, str) else _compare(before, after, 1e-3)


def described(job: Job) -> str:
    """An ONNX file's description names its inputs, outputs and convolutions as the file itself does."""
    found, graph = json.loads(job["out"]), onnx.load(job["input"], load_external_data=False).graph
    outputs = [value.name for value in graph.output]
    if [spec["name"] for spec in found["outputs"]] != outputs:
        return f"wrong: outputs {found['outputs']!r:.100}, not {outputs!r:.100}"
    if not graph.node or any(node.domain for node in graph.node):
        return "incomparable: it calls functions"
    convs = sum(node.op_type == "Conv" for node in graph.node)
    return RIGHT if found["work"]["convs"] == convs else f"wrong: {found['work']['convs']} convolutions, not {convs}"


def verified(job: Job) -> str:
    """The agreement is that of both sides in ONNX Runtime, on images read by other means."""
    found = json.loads(job["out"])
    images = _images(Path(job["data"]))
    if isinstance(images, str):
        return f"incomparable: {images}"
    if found["images"] != len(images):
        return f"wrong: {found['images']} images, not {len(images)}"
    batch = ((images / 255 - job["mean"]) / job["std"]).transpose(0, 3, 1, 2).astype(np.float32)
    classes = []
    for side in (job["reference"], job["candidate"]):
        outputs = _by_runtime(Path(side), batch)
        if isinstance(outputs, str):
            return f"incomparable: {outputs}"
        classes.append(outputs[0].argmax(axis=1))
    agreement = float((classes[0] == classes[1]).mean())
    # Logits that are equal but for rounding may go either way.
    same = abs(found["agreement"] - agreement) <= 1.5 / len(images)
    return RIGHT if same else f"wrong: an agreement of {found['agreement']}, not {agreement}"


def loaded(job: Job) -> str:
    """A checkpoint's network has the tensors of the file, and they are finite."""
    import torch
    from safetensors.numpy import load_file

    from rir_deploy.models.checkpoint import load_checkpoint

    path = Path(job["input"])
    file = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    file = next((inner for inner in file.values() if isinstance(inner, dict)), file)  # {"state_dict": {...}}
    state = [np.asarray(v) for k, v in load_checkpoint(path).model.state_dict().items() if "num_batches" not in k]
    given = [np.asarray(tensor) for name, tensor in file.items() if "num_batches" not in name]
    if json.loads(job["out"])["parameters"] > sum(array.size for array in given):
        return "wrong: more parameters than the file holds"

    def digest(arrays: list[Array]) -> list[bytes]:
        return sorted(array.astype(np.float32).tobytes() for array in arrays)

    finite = all(np.isfinite(array).all() for array in state)
    return RIGHT if digest(state) == digest(given) and finite else "wrong: the network has other weights than the file"


def quantized(job: Job) -> str:
    """A table of the same content gives the same bytes; one of other ranges a graph that runs."""
    same = json.loads(Path(job["table"]).read_text()) == json.loads(Path(job["whole"]).read_text())
    if same and Path(job["output"]).read_bytes() != Path(job["expected"]).read_bytes():
        return "wrong: other bytes by the same table"
    outputs = _by_runtime(Path(job["output"]))
    if isinstance(outputs, str):
        return f"wrong: {outputs}"
    return RIGHT if np.isfinite(outputs[0]).all() else "wrong: not finite"


def unchanged(job: Job) -> str:
    """Only the file as it was may be taken."""
    same = Path(job["input"]).read_bytes() == Path(job["whole"]).read_bytes()
    return RIGHT if same else "wrong: taken, and it is not as it was written"


def forged(job: Job) -> str:
    """Every hash is right, so it may be taken: what it says must be plain data."""
    json.loads(job["out"])
    return RIGHT


CHECKS: dict[str, Callable[[Job], str]] = {
    check.__name__: check for check in (folded, built, described, verified, loaded, quantized, unchanged, forged)
}


def _by_reference(path: Path) -> list[Array] | str:
    try:
        with np.errstate(all="ignore"):
            return evaluate(ir.load(path))
    except Exception as error:  # the evaluator raises whatever numpy does
        return f"{type(error).__name__}: {error}"[:200]


def _by_runtime(path: Path, batch: Array | None = None) -> list[Array] | str:
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        (value,) = session.get_inputs()
        if batch is None:
            shape = [side if isinstance(side, int) else 2 for side in value.shape]
            batch = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        return [np.asarray(output) for output in session.run(None, {value.name: batch})]
    except Exception as error:  # onnxruntime raises its own family of exceptions
        return f"{type(error).__name__}: {error}"[:200]


def _compare(before: list[Array], after: list[Array], bound: float) -> str:
    if [array.shape for array in before] != [array.shape for array in after]:
        return f"wrong: shapes {[a.shape for a in after]}, not {[a.shape for a in before]}"
    if not all(np.isfinite(array).all() for array in before):
        return "incomparable: it gives what is not finite"
    largest = max((float(np.abs(array).max(initial=0)) for array in before), default=0.0)
    if largest > 1e30:
        return "incomparable: it overflows"
    for old, new in zip(before, after, strict=True):
        scale = max(float(np.abs(old).max(initial=0)), 1e-6 * largest, 1e-30)
        error = float(np.abs(old - new).max(initial=0) / scale)
        if not error <= bound:
            return f"wrong: a relative error of {error:.1e}"
    return RIGHT


def _images(path: Path) -> Array | str:
    try:
        if path.suffix == ".npz":
            with np.load(path) as arrays:
                images: Array = arrays["images"]
            return images if images.ndim == 4 else images[..., None]
        with zipfile.ZipFile(path) as archive:
            names = sorted(name for name in archive.namelist() if name.endswith(".png"))
            files = [Image.open(io.BytesIO(archive.read(name))).convert("L") for name in names]
            return np.stack([np.asarray(file) for file in files])[..., None]
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:200]
