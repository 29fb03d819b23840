"""The least time of a network, against sums written out here."""

from __future__ import annotations

import pytest

from rir_deploy.errors import BackendError, InputError
from rir_deploy.roofline.ceilings import Ceiling, Ceilings, Copy, Probe
from rir_deploy.roofline.model import LayerWork, bound_layers
from rir_deploy.roofline.shapes import Shape

SMALL, LARGE = Shape(8, 8, (4, 4)), Shape(64, 64, (32, 32))
COPIES = (Copy(1_000, 100.0), Copy(1_000_000, 40.0), Copy(1_000_000_000, 10.0))


def speed(backend: str, precision: str, value: float, shape: Shape = LARGE) -> Ceiling:
    return Ceiling(Probe(backend, precision, shape), value)


def known() -> Ceilings:
    measured = (
        speed("onnxruntime", "int8", 200.0),
        speed("openvino", "int8", 400.0),
        speed("openvino", "int8", 90.0, SMALL),
        speed("openvino", "fp32", 100.0),
        speed("openvino", "bf16", 180.0),
        speed("onnxruntime", "fp16", 50.0),
    )
    return Ceilings({}, measured, COPIES)


def work(macs: int, weights: int, reads: int, writes: int, precision: str = "int8") -> LayerWork:
    return LayerWork("conv", None, precision, macs, weights, reads, writes)


def test_a_layer_takes_the_longer_of_its_products_and_its_bytes() -> None:
    layers = [
        work(80_000_000, 600_000, 100, 200),  # at 400 GMAC/s: 0.2 ms
        work(4_000, 400_000, 300_000, 500_000),  # its bytes take longer
        work(50_000_000, 0, 100, 100, "fp32"),  # at 100 GMAC/s: 0.5 ms
    ]
    first, second, third = bound_layers(layers, known())
    # All weights together are 1 MB: a copy of 1 MB runs at 40 GB/s. Activations move at the speed of their own size.
    assert first.compute_ms == pytest.approx(0.2)
    assert first.memory_ms == pytest.approx(1e3 * (600_000 / 40e9 + 300 / 100e9))
    assert (first.bound, first.ceiling_ms) == ("compute", first.compute_ms)
    assert second.compute_ms == pytest.approx(4_000 / 400e9 * 1e3)
    assert second.memory_ms == pytest.approx(1e3 * (400_000 / 40e9 + 800_000 / 40e9))
    assert (second.bound, second.ceiling_ms) == ("memory", second.memory_ms)
    assert third.compute_ms == pytest.approx(0.5)


def test_weights_that_no_cache_holds_come_from_memory() -> None:
    one = work(1, 2_000_000, 10, 10)
    assert bound_layers([one], known())[0].memory_ms == pytest.approx(1e3 * (2_000_000 / 10e9 + 20 / 100e9))


def test_the_ceiling_is_the_best_of_all_shapes_and_runtimes() -> None:
    found = known()
    assert found.best("int8").gmac_per_s == 400  # type: ignore[union-attr]
    assert found.best("int8", "onnxruntime").gmac_per_s == 200  # type: ignore[union-attr]
    assert found.best("fp16").probe.precision == "bf16"  # type: ignore[union-attr]
    assert found.best("fp32", "onnxruntime") is None
    assert [(one.probe.precision, one.probe.backend, one.gmac_per_s) for one in found.bests()] == [
        ("int8", "openvino", 400),
        ("int8", "onnxruntime", 200),
        ("bf16", "openvino", 180),
        ("fp32", "openvino", 100),
        ("fp16", "onnxruntime", 50),
    ]


def test_what_a_larger_copy_reaches_a_smaller_one_does_too() -> None:
    odd = Ceilings({}, (), (Copy(1_000, 30.0), Copy(5_000, 50.0), Copy(9_000, 20.0)))
    assert [odd.bandwidth(size) for size in (0, 1_000, 1_001, 5_001, 10**9)] == [50, 50, 50, 20, 20]
    assert odd.memory_gb_per_s == 20


def test_what_is_not_known_is_an_error() -> None:
    with pytest.raises(BackendError, match="nothing here computes in fp32"):
        bound_layers([work(1, 1, 1, 1, "fp32")], Ceilings({}, (speed("openvino", "int8", 1.0),), COPIES))
    with pytest.raises(InputError, match="no copy of memory"):
        bound_layers([work(1, 1, 1, 1)], Ceilings({}, (speed("openvino", "int8", 1.0),)))


def test_of_two_measurements_the_faster_is_kept() -> None:
    merged = known().merged([speed("openvino", "fp32", 90.0), speed("openvino", "bf16", 190.0)], [Copy(1_000, 120.0)])
    assert merged.best("fp32").gmac_per_s == 100  # type: ignore[union-attr]
    assert merged.best("bf16").gmac_per_s == 190  # type: ignore[union-attr]
    assert len(merged.measured) == len(known().measured)
    assert merged.copies[0] == Copy(1_000, 120.0)
    probes = [one.probe for one in merged.measured]
    new = Probe("openvino", "fp32", SMALL)
    assert merged.lacks([*probes, new, new]) == [new]
