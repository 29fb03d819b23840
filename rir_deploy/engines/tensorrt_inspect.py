"""What an engine really computes in, read from the engine inspector's JSON or from what the builder says it made.

Two readers of the inspector's JSON: TensorRT 10 gives each tensor one text, "Format/Datatype"; 11 splits it ("Migrating
IEngineInspector Usage from TensorRT 10.x to 11.x" in NVIDIA's documentation). Not yet run on a GPU: tested on samples
after NVIDIA's manuals, where the keys inside an 11.x layer are assumed to be those of its I/O tensors.

The inspector needs a GPU, the builder of TensorRT-RTX does not: it lists the same layers in its log, as text. What the
GPU's own compiler then makes of them is not in it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

# A line of the builder's list, seen from RTX 1.7.
_LINE = re.compile(
    r"Name: (.*?), LayerType: (.*?), Inputs: \[(.*?)\], Constants: .*?, Outputs: \[(.*?)\], TacticName: "
)
_DATATYPE = re.compile(r"Datatype: (\w+)")
# How many layers are named of those that do not what they should.
_NAMED = 5

# The order matters: "bfloat16" holds "float16", and "float" is in all of them.
_TYPES = (
    ("i8", ("int8",)),
    ("f8", ("fp8", "float8")),
    ("bf16", ("bf16", "bfloat16")),
    ("f16", ("fp16", "half", "float16")),
    ("f32", ("fp32", "float")),
)


def read_inspector(text: str) -> list[dict[str, Any]] | None:
    """The layers in the inspector's JSON; None where it is none."""
    try:
        layers = json.loads(text)["Layers"]
        return [layer for layer in layers if isinstance(layer, dict)]
    except (ValueError, KeyError, TypeError):
        return None


def read_build_log(text: str) -> list[dict[str, Any]] | None:
    """The layers in the builder's "Layers:" message, in the inspector's form; None where it is of another."""
    head, _, rest = text.partition("\n")
    if head.strip() != "Layers:":
        return None
    layers = []
    for line in rest.split("\n\n", 1)[0].splitlines():
        found = _LINE.match(line)
        if found is None:
            return None
        name, kind, *sides = found.groups()
        reads, writes = ([{"DataType": datatype} for datatype in _DATATYPE.findall(side)] for side in sides)
        layers.append({"Name": name, "LayerType": kind, "Inputs": reads, "Outputs": writes})
    return layers or None


def summarize(layers: Sequence[Mapping[str, Any]] | None, source: str) -> dict[str, object]:
    """Counts of what the layers say; ``source`` is who said it.

    ``conv``: how many convolutions read each type, {"i8": 17, "f16": 1}. ``leaves_int8``: how many read int8 and write
    something else, right only for the last of a quantised part; the first of them by name. ``reformats`` and ``casts``:
    layers that compute nothing. ``inspected`` is False, with a reason, where there are no layers.
    """
    if layers is None:
        return {"inspected": False, "reason": f"the {source} gave no layer information"}
    convs = [layer for layer in layers if _is_conv(layer)]
    reads = [_precision(layer, "Inputs") for layer in convs]
    kinds = Counter(str(layer.get("LayerType", "")).lower() for layer in layers)
    leaving = [
        str(layer.get("Name"))
        for layer, read in zip(convs, reads, strict=True)
        if read == "i8" and _precision(layer, "Outputs") != "i8"
    ]
    return {
        "inspected": True,
        "source": source,
        "layers": len(layers),
        "conv": dict(sorted(Counter(reads).items())),
        "leaves_int8": len(leaving),
        "leaves_int8_first": leaving[:_NAMED],
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
