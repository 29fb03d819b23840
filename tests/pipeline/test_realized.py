"""An engine is held to the precision of its graph, by what the runtime says that it computes."""

from __future__ import annotations

import contextlib

import pytest

from rir_deploy.engines.base import Built
from rir_deploy.errors import BackendError
from rir_deploy.pipeline.realized import check_realized
from rir_deploy.quantize import QuantizeOptions, quantize
from tests.quantize.graphs import calibrate, writer


@pytest.mark.parametrize(("realized", "fine"), [({"u8": 6}, True), ({"f32": 6}, False), ({"f32": 1, "i8": 5}, True)])
def test_int8_that_is_computed_in_float_is_no_int8_engine(realized: dict[str, int], fine: bool) -> None:
    built = Built("engine.xml", "openvino", "1", realized={"conv": realized})
    check_realized("fp32", built)
    with contextlib.nullcontext() if fine else pytest.raises(BackendError, match="in integers"):
        check_realized("int8", built)


def test_int8_that_is_mostly_computed_in_float_is_no_int8_engine() -> None:
    """One integer convolution is not enough: what the graph quantises counts."""
    w = writer()
    x = w.input(3)
    for _ in range(5):
        x = w.relu(w.conv(x, 4))
    plain = w.model(w.op("GlobalAveragePool", [x], 4))
    graph = quantize(plain, calibrate(plain), QuantizeOptions("cpu")).model

    def realized(**kinds: int) -> Built:
        return Built("engine.xml", "openvino", "1", realized={"conv": kinds})

    assert check_realized("int8", realized(u8=5), graph) is None
    assert check_realized("int8", realized(u8=3), graph) is None  # a builder makes one convolution of two
    assert "2 of 5 convolutions in float" in str(check_realized("int8", realized(u8=3, f32=2), graph))
    with pytest.raises(BackendError, match=r"4 of 5 convolutions in float .*another backend"):
        check_realized("int8", realized(u8=1, f32=4), graph)
    kept = quantize(plain, calibrate(plain), QuantizeOptions("cpu", keep=("n2", "n4"))).model
    assert check_realized("int8", realized(u8=3, f32=2), kept) is None


def test_fp16_that_tensorrt_computes_in_float_is_no_fp16_engine() -> None:
    """CPUs store FP16 and compute in FP32, which is known and said; TensorRT is asked for it."""
    for backend, fine in (("tensorrt", False), ("tensorrt-rtx", False), ("openvino", True)):
        with contextlib.nullcontext() if fine else pytest.raises(BackendError, match=r"in FP16 here \(6 in f32\)"):
            check_realized("fp16", Built("engine", backend, "1", realized={"conv": {"f32": 6}}))
        check_realized("fp16", Built("engine", backend, "1", realized={"conv": {"f16": 5, "f32": 1}}))


@pytest.mark.parametrize("realized", [{}, {"conv": {}}, {"conv": None}, {"conv": {"unknown": 6}}])
@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_a_precision_that_could_not_be_read_is_said(realized: dict[str, object], precision: str) -> None:
    """Neither taken for right nor for wrong: an inspector whose words are new says nothing of the engine."""
    built = Built("engine.trt", "tensorrt", "1", ("sm87",), realized=realized)
    assert "could not be read" in str(check_realized(precision, built))
    assert check_realized("fp32", built) is None
    turing = Built("engine.rtx", "tensorrt-rtx", "1", ("sm75", "sm89"), realized=realized)
    with contextlib.nullcontext() if precision == "fp16" else pytest.raises(BackendError, match="build for sm75 on"):
        assert "could not be read" in str(check_realized(precision, turing))


def test_what_was_read_counts_and_the_rest_does_not() -> None:
    def checked(**kinds: int) -> str | None:
        return check_realized("int8", Built("engine.trt", "tensorrt", "1", realized={"conv": kinds}))

    assert checked(i8=1, unknown=5) is None
    assert "could not be read" in str(checked(f32=1, unknown=5))
    with pytest.raises(BackendError, match="in integers"):
        checked(f32=6)


def test_a_graph_without_convolutions_has_none_to_read() -> None:
    w = writer()
    graph = w.model(w.relu(w.input(3)))
    assert check_realized("int8", Built("engine.xml", "openvino", "1", realized={"conv": {}}), graph) is None
