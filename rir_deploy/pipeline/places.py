"""Where in a network a tensor is: the block and the stream, from the modules that the tracer noted on the nodes."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import onnx_ir as ir

from rir_deploy.export import MODULE_KEY

PREPROCESSING = "preprocessing"
_STREAMS = ("residual", "transient")


@dataclass(frozen=True)
class Place:
    """``block`` is the module of a layer ("layers.3"), ``stream`` "residual" or "transient"; None where not known."""

    block: str | None
    stream: str | None


def place_of(value: ir.Value) -> Place:
    """By the nearest node upstream that tells: of the block any, of the stream one of the same block."""
    block: str | None = None
    seen: set[ir.Node] = set()
    producer = value.producer()
    joins = producer is not None and producer.op_type == "Concat"
    queue = deque([producer])
    while queue:
        node = queue.popleft()
        if node is None or node in seen:
            continue
        seen.add(node)
        module = node.metadata_props.get(MODULE_KEY)
        here = None if module is None else block_of(module)
        block = block or here
        if module is not None and here == block:
            stream = _stream(module[len(here or "") :])
            if stream is not None:
                return Place(block, None if joins else stream)
        if here in (None, block):
            queue.extend(inner.producer() for inner in node.inputs if inner is not None)
    return Place(block, None)


def block_of(module: str) -> str:
    """The part of a module's path that counts the blocks.

    "layers.3" of "layers.3.residual_norm", "features.stage1.unit2" of "features.stage1.unit2.body", "stem" of
    "stem.residual.norm".
    """
    names = module.split(".")
    numbered = [index for index, name in enumerate(names) if name[-1:].isdigit()]
    if not numbered:
        return names[0]
    end = numbered[0] + 1
    # A last name like "conv2" is what is in the block; a last "2" is the block itself.
    while end < len(names) and names[end][-1:].isdigit() and (names[end].isdigit() or end + 1 < len(names)):
        end += 1
    return ".".join(names[:end])


def _stream(inside: str) -> str | None:
    """What a module inside a RiR's block writes to: the transient stream for "residual_to_transient"."""
    for name in inside.split("."):
        target = name.rpartition("_to_")[2]
        for stream in _STREAMS:
            if target.startswith(stream):
                return stream
        if name == "shortcut":
            return _STREAMS[0]
    return None
