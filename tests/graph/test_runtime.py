"""What a runtime says of a failure, as a part of one sentence."""

from __future__ import annotations

import pytest

from rir_deploy.graph.runtime import first_line

NODE = "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running"
SAID = {
    f"{NODE} Concat node. Name:'joined' Status Message: concatbase.h:135 PrepareForComputeImpl Sizes must match": (
        "Concat 'joined': Sizes must match"
    ),
    f"{NODE} Reshape node. Name:'r' Status Message: /src/core/reshape_helper.h:91 onnxruntime::ReshapeHelper::"
    "ReshapeHelper(const onnxruntime::TensorShape&, bool) The sizes differ": "Reshape 'r': The sizes differ",
    f"{NODE} Add node. Name:'' Status Message: out of memory": "Add '': out of memory",
    "[ONNXRuntimeError] : 10 : INVALID_GRAPH : This is an invalid model": "This is an invalid model",
    "first\nsecond": "first",
    "": "RuntimeError",
}


@pytest.mark.parametrize("message", SAID)
def test_the_place_in_the_runtimes_own_code_is_left_out(message: str) -> None:
    assert first_line(RuntimeError(message)) == SAID[message]
