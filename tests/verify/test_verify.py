"""The parity gate against figures computed here, and the faults it has to catch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rir_deploy.errors import InputError, UsageError
from rir_deploy.verify import GATES, Gate, Tolerance, verify
from rir_deploy.verify.accuracy import AccuracyComparison
from rir_deploy.verify.outputs import OutputComparison

Logits = NDArray[np.float32]


def logits(n: int = 40, classes: int = 10, seed: int = 0) -> Logits:
    return np.random.default_rng(seed).standard_normal((n, classes)).astype(np.float32)


def batches(n: int, size: int, labels: NDArray[np.int64] | None) -> Iterator[tuple[NDArray[np.uint8], object]]:
    """Images that carry their own number, so that a runner can answer for each."""
    for start in range(0, n, size):
        rows = np.arange(start, min(start + size, n))
        yield rows.astype(np.uint8).reshape(-1, 1, 1, 1), None if labels is None else labels[rows]


def answering(answers: Logits) -> Callable[[NDArray[np.uint8]], Logits]:
    return lambda images: answers[images.reshape(-1)]


def check(reference: Logits, candidate: Logits, gate: str = "fp32", labels: NDArray[np.int64] | None = None) -> bool:
    result = verify(batches(len(reference), 7, labels), answering(reference), answering(candidate), GATES[gate])  # type: ignore[arg-type]
    return result.passed


@given(st.integers(1, 60), st.integers(1, 9), st.integers(0, 99))
def test_figures_over_batches_are_figures_over_all(n: int, size: int, seed: int) -> None:
    reference = logits(n, seed=seed)
    noise = np.random.default_rng(seed + 1).standard_normal(reference.shape).astype(np.float32) * 0.1
    candidate = reference + noise
    labels = np.random.default_rng(seed + 2).integers(0, 10, n)
    outputs, accuracy = OutputComparison(), AccuracyComparison()
    for start in range(0, n, size):
        part = slice(start, start + size)
        outputs.update(reference[part], candidate[part])
        accuracy.update(reference[part], candidate[part], labels[part])
    found, result = outputs.metrics(Tolerance(1.0, 0.0)), accuracy.result()
    error = candidate.astype(np.float64) - reference.astype(np.float64)
    assert found.max_abs_error == np.abs(error).max()
    assert math.isclose(found.mean_abs_error, np.abs(error).mean(), rel_tol=1e-9)
    power = np.square(reference.astype(np.float64)).sum() / np.square(error).sum()
    assert math.isclose(found.sqnr_db, 10 * math.log10(power), rel_tol=1e-9)
    assert result.agreement == np.mean(reference.argmax(1) == candidate.argmax(1))
    assert result.reference_top1 == np.mean(reference.argmax(1) == labels)
    order = np.argsort(-candidate, axis=1)[:, :5]
    assert result.candidate_top5 == np.mean([labels[i] in order[i] for i in range(n)])


def test_equal_outputs_pass_every_gate() -> None:
    for gate in GATES:
        assert check(logits(), logits(), gate)


@pytest.mark.parametrize(
    "fault",
    [
        lambda x: x * np.float32(1.02),  # a scale off by 2 %
        lambda x: x + np.float32(0.01),  # a bias
        lambda x: np.roll(x, 1, axis=0),  # images out of order
        lambda x: x[:, ::-1],  # classes reversed
        lambda x: np.where(np.arange(10) == 3, 0, x).astype(np.float32),  # one dead class
        lambda x: np.where(np.arange(len(x))[:, None] == 5, np.nan, x).astype(np.float32),  # one NaN image
        lambda x: np.where(np.arange(len(x))[:, None] == 5, np.inf, x).astype(np.float32),
        np.zeros_like,
    ],
)
def test_faults_fail_the_fp32_gate(fault: Callable[[Logits], Logits]) -> None:
    assert not check(logits(), fault(logits()))


def test_nan_in_the_first_batch_is_not_forgotten() -> None:
    candidate = logits()
    candidate[0, 0] = np.nan
    comparison = OutputComparison()
    comparison.update(logits()[:5], candidate[:5])
    comparison.update(logits()[5:], candidate[5:])
    assert not comparison.metrics(Tolerance(1e9, 1.0)).within_tolerance


def test_the_int8_gate_judges_predictions() -> None:
    reference = logits(200)
    assert check(reference, reference * np.float32(1.02), "int8")
    flipped = reference.copy()
    flipped[:10] = -flipped[:10]  # 5 % of the predictions
    assert not check(reference, flipped, "int8")


@pytest.mark.parametrize(("gate", "scale", "within"), [("int8", 1.02, None), ("fp32", 1.02, False), ("fp32", 1, True)])
def test_a_gate_without_a_tolerance_says_nothing_of_one(gate: str, scale: float, within: bool | None) -> None:
    reference = logits(200)
    sides = answering(reference), answering(reference * np.float32(scale))
    result = verify(batches(200, 7, None), *sides, GATES[gate])  # type: ignore[arg-type]
    assert result.passed == (within is not False)
    assert result.to_dict()["within_tolerance"] is within


def test_a_drop_of_top1_fails_even_where_agreement_would_do() -> None:
    reference = logits(200)
    labels = reference.argmax(1).astype(np.int64)
    candidate = reference.copy()
    candidate[:5] = -candidate[:5]  # 97.5 % agree, and top-1 falls by 2.5 points
    assert not check(reference, candidate, "int8", labels)


def test_a_drop_of_top1_exactly_at_the_bound_passes() -> None:
    """7 of 200 lost are 3.5 points; 100 times 7 / 200 would be a bit over them."""
    reference, gate = logits(200), Gate(0.0, 3.5, None)
    labels = reference.argmax(1).astype(np.int64)
    for lost, passes in ((7, True), (8, False)):
        candidate = reference.copy()
        candidate[:lost] = -candidate[:lost]
        result = verify(batches(200, 7, labels), answering(reference), answering(candidate), gate)  # type: ignore[arg-type]
        assert result.passed == passes


def test_labels_beyond_the_outputs_are_refused() -> None:
    with pytest.raises(InputError, match="label 10"):
        check(logits(), logits(), labels=np.full(40, 10))


def test_different_shapes_and_no_images_are_refused() -> None:
    with pytest.raises(InputError, match="two versions of one model"):
        OutputComparison().update(logits(), logits(classes=9))
    with pytest.raises(InputError, match="no images"):
        verify(iter(()), answering(logits()), answering(logits()), GATES["fp32"])


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
def test_bounds_are_checked(bad: float) -> None:
    with pytest.raises(UsageError):
        Tolerance(bad, 0.0)
    with pytest.raises(UsageError):
        Gate(bad, 1.0, None)
    with pytest.raises(UsageError):
        Gate(1.0, bad, None)
