"""NVIDIA's own parser and builder, which need no GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from rir_deploy.engines import tensorrt as backend_module
from rir_deploy.engines.base import BatchRange, BuildOptions, Built
from rir_deploy.engines.tensorrt_gpu import NoGpu
from rir_deploy.engines.tensorrt_options import TensorRtOptions
from rir_deploy.engines.tensorrt_rtx import BACKEND
from rir_deploy.engines.tensorrt_targets import known_targets
from rir_deploy.errors import BackendError, InputError, UsageError
from tests.engines.graphs import Quantised, classifier, quantised, to_half, unknown_operator, with_external_data
from tests.fold.graphs import Writer

trt = pytest.importorskip("tensorrt_rtx")
SM89 = BuildOptions(targets=("sm89",))


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without one, also where there is one."""
    monkeypatch.setattr(backend_module, "probe_gpu", lambda: NoGpu("no NVIDIA driver"))


def build(model: ir.Model, folder: Path, options: BuildOptions = SM89) -> tuple[Built, int]:
    folder.mkdir(exist_ok=True)
    built = BACKEND.build(model, folder, options)
    return built, (folder / built.file).stat().st_size


def test_it_says_built_and_not_run(tmp_path: Path) -> None:
    found = BACKEND.availability()
    assert (found.can_build, found.can_run, found.version) == (True, False, trt.__version__)
    assert found.reason == "no NVIDIA driver"
    built, size = build(classifier(), tmp_path)
    assert (built.file, built.backend, built.targets) == ("engine.rtx", "tensorrt-rtx", ("sm89",))
    assert built.backend_version == trt.__version__
    assert built.realized["source"] == "build log"
    assert built.realized["conv"] == {"f32": 2}
    assert built.gpu == ""  # it is not bound to one
    assert size > 1000


def test_weights_are_stored_in_the_precision_of_the_graph(tmp_path: Path) -> None:
    """Four bytes a weight, two, one: the graph's types reach the engine, with no flag of the builder."""
    half, wide = np.float16, {"channels": 256, "convs": 4}
    weights = 3 * 256 * 256 * 9
    _, int8 = build(quantised(Quantised(**wide)), tmp_path / "int8")  # type: ignore[arg-type]
    _, int8_half = build(quantised(Quantised(**wide, float_type=half)), tmp_path / "int8_half")  # type: ignore[arg-type]
    _, fp32 = build(wide_float(), tmp_path / "fp32")
    _, fp16 = build(to_half(wide_float()), tmp_path / "fp16")
    assert fp32 - fp16 == pytest.approx(2 * weights, rel=0.1)
    assert fp16 - int8_half == pytest.approx(weights, rel=0.25)
    assert fp32 - int8 == pytest.approx(3 * weights, rel=0.25)


def wide_float() -> ir.Model:
    w = Writer(seed=1, dtype=np.float32)
    x = w.input(3)
    for _ in range(4):
        x = w.relu(w.conv(x, 256, bias=True))
    return w.model(x)


def test_one_engine_for_all_targets(tmp_path: Path) -> None:
    names = known_targets(trt)
    assert set(names) >= {"sm75", "sm80", "sm86", "sm89", "sm120", "sm121"}
    # Convolutions only: for Turing, RTX 1.7 has no FP32 kernel of a Gemm and says so.
    for name, model in (("fp32", wide_float()), ("fp16", to_half(classifier())), ("int8", quantised())):
        built, _ = build(model, tmp_path / name, BuildOptions(targets=names))
        assert built.targets == names
    built, _ = build(classifier(), tmp_path / "default", BuildOptions())
    assert built.targets == ()


def test_an_unknown_target_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="sm75") as refusal:
        build(classifier(), tmp_path, BuildOptions(targets=("sm90",)))
    assert refusal.value.exit_code == 2


def test_a_workspace_reaches_the_builder(tmp_path: Path) -> None:
    def options(mib: int) -> BuildOptions:
        return BuildOptions(targets=("sm89",), tensorrt=TensorRtOptions(workspace_mib=mib))

    build(quantised(Quantised(channels=64)), tmp_path / "enough", options(64))
    with pytest.raises(InputError, match="no kernel within a workspace of 1 MiB"):
        build(quantised(Quantised(channels=64)), tmp_path / "little", options(1))


def test_batch_ranges(tmp_path: Path) -> None:
    build(classifier(), tmp_path / "range", BuildOptions(BatchRange(2, 8, 64), ("sm89",)))
    fixed = classifier()
    fixed.graph.inputs[0].shape = ir.Shape([4, 3, 8, 8])
    build(fixed, tmp_path / "fixed", SM89)
    with pytest.raises(InputError, match="batches of 4 only"):
        build(fixed, tmp_path / "outside", BuildOptions(BatchRange(8, 8, 8), ("sm89",)))
    sizes = classifier()
    sizes.graph.inputs[0].shape = ir.Shape(["n", 3, "h", "w"])
    with pytest.raises(InputError, match="dynamic image size"):
        build(sizes, tmp_path / "sizes", SM89)


@pytest.mark.parametrize(
    "options",
    [
        Quantised(activations="uint8"),
        Quantised(zero_point=1),
        Quantised(int32_bias=True),
        Quantised(weights="int4"),
        Quantised(write_zero_point=False),
    ],
    ids=str,
)
def test_graphs_that_it_misreads_are_refused_and_leave_nothing(options: Quantised, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--qdq tensorrt"):
        build(quantised(options), tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_parsers_refusal_names_the_node(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the node 'strange' \(Frobnicate\)") as refusal:
        build(unknown_operator(), tmp_path)
    assert "\n" not in str(refusal.value)


def test_two_inputs_are_refused(tmp_path: Path) -> None:
    w = Writer(dtype=np.float32)
    model = w.model(w.add(w.input(3), w.input(3, name="z")))
    with pytest.raises(InputError, match="2 inputs"):
        build(model, tmp_path)


def test_external_weights_end_up_in_the_engine(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    model = with_external_data(wide_float(), tmp_path / "source")
    _, size = build(model, tmp_path / "engine")
    assert size > 4 * 3 * 256 * 256 * 9


def test_progress_comes_from_the_builder(tmp_path: Path) -> None:
    heard: list[tuple[str, int, int]] = []
    build(classifier(), tmp_path, BuildOptions(targets=("sm89",), on_progress=lambda *step: heard.append(step)))
    assert heard[0][1] == 0
    assert len({phase for phase, _, _ in heard}) > 1
    assert all(0 <= done <= total for _, done, total in heard)


def test_an_exception_from_progress_ends_the_build_and_the_process_lives(tmp_path: Path) -> None:
    def stop(phase: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(classifier(), tmp_path, BuildOptions(on_progress=stop))
    build(classifier(), tmp_path)


def test_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    build(classifier(), tmp_path)
    with pytest.raises(InputError):
        build(unknown_operator(), tmp_path)
    assert capfd.readouterr() == ("", "")


def test_loading_without_a_driver_is_one_sentence(tmp_path: Path) -> None:
    built, _ = build(classifier(), tmp_path)
    with pytest.raises(BackendError, match="no NVIDIA driver; copy the engine's folder") as refusal:
        BACKEND.load(tmp_path / built.file)
    assert refusal.value.exit_code == 4
    assert "\n" not in str(refusal.value)
