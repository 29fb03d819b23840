"""What runtimes make of the graphs: integer kernels on CPUs, an engine from NVIDIA's builder."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from rir_deploy.quantize import QuantizeOptions, quantize
from tests.quantize.graphs import array, batches, calibrate, chain, residual, run, session, sqnr_db, two_streams, writer

CPU = QuantizeOptions("cpu")
GRAPHS = [chain, residual, two_streams]


def head_of_products() -> ir.Model:
    w = writer()
    mean = w.op("Flatten", [w.op("GlobalAveragePool", [w.relu(w.conv(w.input(3), 32, bias=True))], 32)], 32)
    weight, bias = w.constant(w.rng.standard_normal((16, 32))), w.constant(w.rng.standard_normal(16))
    x = w.relu(w.op("Gemm", [mean, weight, bias], 16, transB=1))
    return w.model(w.op("MatMul", [x, w.constant(w.rng.standard_normal((16, 5)))], 5))


def optimized_by_onnxruntime(model: ir.Model, folder: Path) -> Counter[str]:
    path = str(folder / "optimized.onnx")
    session(model, path)
    return Counter(node.op_type for node in onnx.load(path).graph.node)


@pytest.mark.parametrize("reduced", [False, True])
@pytest.mark.parametrize("make", GRAPHS)
def test_onnxruntime_runs_every_convolution_on_integers(make, reduced: bool, tmp_path: Path) -> None:  # type: ignore
    result = quantize(make(), calibrate(make()), QuantizeOptions("cpu", reduced_range=reduced))
    found = optimized_by_onnxruntime(result.model, tmp_path)
    assert found["QLinearConv"] == len(result.quantized)
    assert found["Conv"] == found["FusedConv"] == 0
    if make is chain:  # nothing between the integer convolutions: quantised once, dequantised once
        assert (found["QuantizeLinear"], found["DequantizeLinear"], found["Relu"]) == (1, 1, 0)
    if make is residual:
        assert found["QLinearAdd"] == 2


def test_onnxruntime_runs_products_on_integers(tmp_path: Path) -> None:
    model = head_of_products()
    found = optimized_by_onnxruntime(quantize(model, calibrate(model), CPU).model, tmp_path)
    assert found["Gemm"] == found["MatMul"] == found["FusedGemm"] == 0
    assert found["QGemm"] == 1


def test_onnxruntime_computes_the_tensorrt_flavour_in_float(tmp_path: Path) -> None:
    found = optimized_by_onnxruntime(quantize(chain(), calibrate(chain())).model, tmp_path)
    assert found["QLinearConv"] == 0  # so it is right for parity and never timed


@pytest.mark.parametrize("make", GRAPHS)
def test_openvino_runs_every_convolution_on_integers(make) -> None:  # type: ignore[no-untyped-def]
    import openvino as ov

    model = make()
    result = quantize(model, calibrate(model), CPU)
    core = ov.Core()
    compiled = core.compile_model(core.read_model(ir.to_proto(result.model).SerializeToString()), "CPU")
    infos = [operator.get_rt_info() for operator in compiled.get_runtime_model().get_ops()]
    kinds = [
        (info["layerType"].astype(str), info["runtimePrecision"].astype(str)) for info in infos if "layerType" in info
    ]
    convolutions = Counter(precision for kind, precision in kinds if kind == "Convolution")
    assert sum(convolutions.values()) == len(result.quantized)
    assert set(convolutions) <= {"u8", "i8"}
    batch = np.concatenate(batches())
    assert sqnr_db(run(model, batch), compiled(batch)[0]) > 33


def built_by_tensorrt(model: ir.Model, target: str = "SM89") -> int:
    """Bytes of the engine for a GPU, by default an Ada one; no GPU is needed to build it."""
    trt = pytest.importorskip("tensorrt_rtx")
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    parsed = parser.parse(ir.to_proto(model).SerializeToString())
    assert parsed, [str(parser.get_error(index)) for index in range(parser.num_errors)]
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, target), 0)
    profile = builder.create_optimization_profile()
    shape = network.get_input(0).shape
    profile.set_shape(network.get_input(0).name, *[(batch, *shape[1:]) for batch in (1, 4, 8)])
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    assert engine is not None
    return len(memoryview(engine))


@pytest.mark.parametrize("rest", ["fp32", "fp16"])
@pytest.mark.parametrize("make", [*GRAPHS, head_of_products])
def test_tensorrt_parses_and_builds_for_every_gpu_it_knows(make, rest: str) -> None:  # type: ignore[no-untyped-def]
    trt = pytest.importorskip("tensorrt_rtx")
    result = quantize(make(), calibrate(make()), QuantizeOptions(rest=rest))  # type: ignore[arg-type]
    targets = [name for name in dir(trt.ComputeCapability) if name.startswith("SM")]
    assert len(targets) > 4
    if make is head_of_products and rest == "fp32":
        targets.remove("SM75")  # "FP32 GEMM is not supported" on Turing, says the builder (1.7)
    for target in targets:
        assert built_by_tensorrt(result.model, target) > 0


@pytest.mark.parametrize("rest", ["fp32", "fp16"])
def test_tensorrt_takes_a_sum_with_an_operand_that_was_always_zero(rest: str) -> None:
    w = writer()
    x = w.input(3)
    dead = w.op("Conv", [x, w.constant(np.zeros((8, 3, 1, 1)))], 8, kernel_shape=[1, 1])
    model = w.model(w.conv(w.relu(w.add(w.conv(x, 8), dead)), 5))
    result = quantize(model, calibrate(model), QuantizeOptions(rest=rest))  # type: ignore[arg-type]
    scales = {
        str(node.inputs[1].name): float(array(node.inputs[1]))  # type: ignore[union-attr]
        for node in result.model.graph
        if node.op_type == "QuantizeLinear"
    }
    dead_range = "conv_0_scale"  # the operand that no convolution takes along
    assert 0 < scales[dead_range] == min(scales.values()) < 1e-4
    assert built_by_tensorrt(result.model) > 0
