"""The judgement of layers, from arrays alone."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rir_deploy.verify.layers import Layer, LayerComparison, Part, first_divergence, judge, unrelated
from rir_deploy.verify.limits import LIMITS, Limit

PARTS = (Part(0, 4, "relu_2", "layers.0", "residual"), Part(4, 8, "relu_3", "layers.0", "transient"))


def maps(seed: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(seed).standard_normal((6, 8, 5, 5)).astype(np.float32)


LOOSE = Limit(relative=0.2, shows_in_output=False)


def compare(
    whole: object, own: object, name: str = "n", limit: Limit = LOOSE, parts: tuple[Part, ...] = PARTS
) -> LayerComparison:
    comparison = LayerComparison(Layer(name, "Relu", f"{name}_out", parts), limit)
    for part in (slice(0, 2), slice(2, 6)):  # in two batches
        comparison.update(maps()[part], np.asarray(whole)[part], np.asarray(own)[part])
    return comparison


def test_a_float_error_is_what_its_definition_says() -> None:
    reference, error = maps().astype(float), 0.01 * maps(1).astype(float)
    found = Limit(relative=0.5).errors(*(np.square(x).mean(axis=(0, 2, 3)) for x in (reference, error)), 1.0)
    rms = np.sqrt(np.square(error).mean(axis=(0, 2, 3)))
    scale = np.sqrt(np.square(reference).mean(axis=(0, 2, 3))) + 0.1 * np.sqrt(np.square(reference).mean())
    assert np.allclose(found, rms / scale / 0.5)


def test_an_int8_error_is_counted_in_steps() -> None:
    """Of 1/255 of the span: 4 steps in one channel of four are 2 in all."""
    limit = Limit(channel_steps=8.0, tensor_steps=4.0)
    step = 10.0 / 255
    found = limit.errors(np.ones(4), np.square(np.array([4 * step, 0, 0, 0])), 10.0)
    assert np.allclose(found, [0.5, 0, 0, 0])
    together = limit.errors(np.ones(4), np.square(np.full(4, 6 * step)), 10.0)
    assert np.allclose(together, [1.5] * 4)


def test_errors_of_zeros_and_of_what_is_not_finite() -> None:
    for limit in (Limit(relative=0.5), Limit(channel_steps=8.0, tensor_steps=4.0)):
        assert limit.errors(np.zeros(2), np.zeros(2), 0.0).tolist() == [0.0, 0.0]
        assert limit.errors(np.zeros(2), np.array([0.0, 1.0]), 0.0).tolist() == [0.0, math.inf]
        assert limit.errors(np.ones(2), np.array([np.nan, np.inf]), 1.0).tolist() == [math.inf, math.inf]


def test_figures_over_batches_are_figures_over_all() -> None:
    whole, own = maps() + 0.1 * maps(1), maps() + 0.01 * maps(2)
    row = compare(whole, own).row()
    for found, other in ((row.sqnr_db, whole), (row.own_sqnr_db, own)):
        noise = np.square(other.astype(float) - maps()).sum()
        assert math.isclose(found, 10 * math.log10(np.square(maps().astype(float)).sum() / noise), rel_tol=1e-6)
    assert math.isclose(row.max_abs_error, np.abs(whole.astype(float) - maps()).max(), rel_tol=1e-6)


def test_a_drift_follows_and_a_jump_diverges() -> None:
    off = maps() * np.float32(1.5)
    assert compare(maps(), maps()).row().verdict == "ok"
    assert compare(off, maps()).row().verdict == "follows"
    assert compare(off, off).row().verdict == "diverges"
    assert compare(maps(), off).row().verdict == "ok"  # what it is given is not what it gets


def test_a_divergence_names_the_stream_that_is_off() -> None:
    off = maps()
    off[:, 5] *= 2
    row = compare(off, off).row()
    assert (row.block, row.stream, row.nodes, row.channel) == ("layers.0", "transient", ("relu_3",), 5)
    assert "layers.0, transient" in row.sentence()
    sound = compare(maps(), maps()).row()
    assert (sound.stream, sound.nodes) == ("residual+transient", ("relu_2", "relu_3"))


def test_a_channel_that_hardly_varies_is_not_held_to_its_own_size() -> None:
    """One step of a tensor's scale may be all that a small channel has."""
    reference = maps()
    reference[:, 1] *= 1e-3
    off = reference.copy()
    off[:, 1] = 0
    for precision, verdict in (("int8", "ok"), ("fp32", "diverges")):
        comparison = LayerComparison(Layer("n", "Relu", "x", PARTS), LIMITS[precision])
        comparison.update(reference, off, off)
        assert comparison.row().verdict == verdict


def test_what_is_not_finite_diverges() -> None:
    off = maps()
    off[3, 2, 0, 0] = np.nan
    row = compare(off, off).row()
    assert row.verdict == "diverges"
    assert row.to_dict()["own_error"] is None
    assert row.to_dict()["sqnr_db"] is None
    assert "not finite" in row.sentence()


def test_in_float_a_wrong_layer_shows_in_the_output() -> None:
    off = maps() * np.float32(1.5)
    sound, wrong, follower = compare(maps(), maps(), "out"), compare(off, off, "n"), compare(off, maps(), "out")
    shows = Limit(relative=0.2)
    assert [row.verdict for row in judge([wrong, sound], shows)] == ["differs", "ok"]
    rows = judge([wrong, follower], shows)
    assert [row.verdict for row in rows] == ["diverges", "follows"]
    found = first_divergence(rows)
    assert found is not None
    assert found.layer.node == "n"
    assert [row.verdict for row in judge([wrong, sound], LOOSE)] == ["diverges", "ok"]


def test_dropped_channels_matter_where_something_reads_them() -> None:
    off = maps()
    off[:, 6:] = 0
    parts = (Part(0, 6, "a", "layers.0", None), Part(6, 8, "a", "layers.0", None, dropped=True))
    dropped = compare(off, off, parts=parts)
    sound, wrong = compare(maps(), maps(), "out"), compare(maps() * 2, maps() * 2, "out")
    assert [row.verdict for row in judge([dropped, sound], LOOSE)] == ["differs", "ok"]
    assert [row.verdict for row in judge([dropped, wrong], LOOSE)] == ["diverges", "diverges"]


def test_what_the_candidate_lacks_is_what_is_wrong() -> None:
    layer = Layer("n", "Conv", "x", PARTS, (Part(0, 0, "relu_1", "stem", "residual"),))
    comparison = LayerComparison(layer, LOOSE)
    comparison.update(maps(), maps() * 2, maps() * 2)
    row = comparison.row()
    assert (row.verdict, row.block, row.nodes) == ("diverges", "stem", ("relu_1",))


def test_namesakes_that_are_strangers_are_told_apart_from_faults() -> None:
    stranger, sound = compare(maps(5), maps(5), "a"), compare(maps(), maps(), "out")
    assert unrelated([stranger, sound]) == ("a_out",)
    assert unrelated([stranger, compare(maps(6), maps(), "out")]) == ()  # the output is off: a fault
    assert unrelated([sound, sound]) == ()
    assert unrelated([]) == ()


@pytest.mark.parametrize("precision", LIMITS)
def test_rounding_to_the_precision_is_within_its_limit(precision: str) -> None:
    """As far as one tensor's rounding goes: a limit that this would break could not be kept."""
    x = np.maximum(maps(), 0)
    step = x.max() / 255
    rounded = {"fp32": x * (1 + 2**-23), "fp16": x.astype(np.float16), "int8": np.round(x / step) * step}[precision]
    comparison = LayerComparison(Layer("n", "Relu", "x", PARTS), LIMITS[precision])
    comparison.update(x, rounded, rounded)
    assert comparison.row().verdict == "ok"
    assert comparison.row().own_error > 0
    assert len(LIMITS[precision].reason) > 40
