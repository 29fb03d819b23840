"""What an engine really computes in, read from the engine inspector's JSON.

Two readers: TensorRT 10 gives each tensor one text, "Format/Datatype"; 11 splits it ("Migrating IEngineInspector Usage
from TensorRT 10.x to 11.x" in NVIDIA's documentation). Not yet run on a GPU: tested on samples after NVIDIA's manuals,
where the keys inside an 11.x layer are assumed to be those of its I/O tensors.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

# The order matters: "bfloat16" holds "float16", and "float" is in all of them.
_TYPES = (
    ("i8", ("int8",)),
    ("f8", ("fp8", "float8")),
    ("bf16", ("bf16", "bfloat16")),
    ("f16", ("fp16", "half", "float16")),
    ("f32", ("fp32", "float")),
)


def summarize(text: str) -> dict[str, object]:
    """Counts of what the inspector says.

    ``conv``: how many convolutions read each type, {"i8": 17, "f16": 1}. ``leaves_int8``: the convolutions that read
    int8 and write something else, right only for the last of a quantised part. ``reformats`` and ``casts``: layers that
    compute nothing. ``inspected`` is False, with a reason, where the text is not the inspector's JSON.
    """
    try:
        layers = json.loads(text)["Layers"]
        layers = [layer for layer in layers if isinstance(layer, dict)]
    except (ValueError, KeyError, TypeError):
        return {"inspected": False, "reason": "the engine inspector gave no layer information"}
    convs = [layer for layer in layers if _is_conv(layer)]
    reads = [_precision(layer, "Inputs") for layer in convs]
    kinds = Counter(str(layer.get("LayerType", "")).lower() for layer in layers)
    return {
        "inspected": True,
        "layers": len(layers),
        "conv": dict(sorted(Counter(reads).items())),
        "leaves_int8": [
            str(layer.get("Name"))
            for layer, read in zip(convs, reads, strict=True)
            if read == "i8" and _precision(layer, "Outputs") != "i8"
        ],
        "reformats": kinds["reformat"],
        "casts": kinds["cast"],
    }


def _is_conv(layer: Mapping[str, Any]) -> bool:
    """TensorRT 10 writes "CaskConvolution" and the like; 11 also "correlation"."""
    kinds = (str(layer.get(key, "")).lower() for key in ("LayerType", "ParameterType"))
    return any("conv" in kind or kind == "correlation" for kind in kinds)


def _precision(layer: Mapping[str, Any], side: str) -> str:
    tensors = layer.get(side)
    if not isinstance(tensors, list) or not tensors or not isinstance(tensors[0], dict):
        return "unknown"
    text = _datatype(tensors[0]).lower()
    return next((name for name, words in _TYPES if any(word in text for word in words)), "unknown")


def _datatype(tensor: Mapping[str, Any]) -> str:
    for key in ("DataType", "Datatype", "Format/Datatype"):  # 11.x in either spelling, 10.x
        if key in tensor:
            return str(tensor[key])
    return ""
