"""What verify must not take for a proof, and faults that agreement and top-1 hardly show; harmless noise passes all."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from rir_deploy.verify import GATES, VerifyResult, verify
from rir_deploy.verify.classes import class_recalls, upper_tail
from rir_deploy.verify.kinds import KindOf
from rir_deploy.verify.outliers import OutlierSearch
from rir_deploy.verify.outputs import OutputComparison

INT8 = GATES["int8"]
Logits = NDArray[np.float64]
Labels = NDArray[np.int64]


def network(n: int = 1000, classes: int = 10, right: float = 0.9, seed: int = 0) -> tuple[Logits, Labels]:
    """Logits of a network that has a share of images right, at margins that differ, and the labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    outputs = rng.standard_normal((n, classes)) * 2
    said = np.where(rng.random(n) < right, labels, (labels + rng.integers(1, classes, n)) % classes)
    outputs[np.arange(n), said] = outputs.max(axis=1) + rng.gamma(3, 2, n)
    return outputs, labels


def noisy(outputs: Logits, decibels: float = 38.0, seed: int = 1, clipped: float = 0.0) -> Logits:
    """INT8: noise on all outputs, and images whose largest values are clipped."""
    rng = np.random.default_rng(seed)
    size = outputs.std() * 10 ** (-decibels / 20)
    error = rng.standard_normal(outputs.shape) * size * rng.gamma(4, 0.25, (len(outputs), 1))
    rows = rng.random(len(outputs)) < clipped
    found: Logits = outputs + error
    most = np.quantile(found, 0.97)
    found[rows] = np.where(found[rows] > most, most + 0.2 * (found[rows] - most), found[rows])
    return found


def compare(
    reference: Logits,
    candidate: Logits,
    labels: Labels | None,
    gate: str = "int8",
    images: NDArray[np.uint8] | None = None,
    **bounds: float,
) -> VerifyResult:
    if images is None:
        images = np.arange(len(reference), dtype=np.uint32).view(np.uint8).reshape(len(reference), 1, 1, 4)
    places = np.array_split(np.arange(len(reference)), 7)
    batches = [(images[at], None if labels is None else labels[at]) for at in places]
    left, right = iter([reference[at] for at in places]), iter([candidate[at] for at in places])
    return verify(batches, lambda _: next(left), lambda _: next(right), replace(GATES[gate], **bounds))


@pytest.mark.parametrize("classes", [2, 10, 100])
@pytest.mark.parametrize("n", [100, 360, 1000])
@pytest.mark.parametrize("clipped", [0.0, 0.02])
def test_harmless_noise_passes(n: int, classes: int, clipped: float) -> None:
    for seed in range(10):
        outputs, labels = network(n, classes, seed=seed)
        found = compare(outputs, noisy(outputs, seed=seed, clipped=clipped), labels)
        assert found.passed, found.failures
        assert found.doubts == ()
        assert compare(outputs, noisy(outputs, seed=seed, clipped=clipped), None).passed


def test_noise_that_hits_a_hard_class_most_passes() -> None:
    """Near ties are not spread evenly: half of one class's images flip to and fro by chance."""
    for seed in range(10):
        outputs, labels = network(1000, seed=seed)
        rows = np.flatnonzero(labels == 3)[:30]
        outputs[rows, 5] = outputs[rows, 3] = outputs[rows].max(axis=1) + 0.01
        outputs[rows[:15], 3] += 0.005
        outputs[rows[15:], 5] += 0.005
        found = compare(outputs, noisy(outputs, 33, seed), labels)
        assert not any("recall" in text or "exchanged" in text for text in found.failures), found.failures


# --- a reference that knows nothing


def test_a_reference_at_or_below_chance_is_never_non_inferior() -> None:
    outputs, labels = network()
    others = {
        "permuted outputs": np.roll(outputs, 1, axis=1),
        "noise": np.random.default_rng(5).standard_normal(outputs.shape),
        "one class": np.where(np.arange(10) == 4, 9.0, outputs * 1e-3),
    }
    for name, reference in others.items():
        for gate in GATES:
            found = compare(reference, reference, labels, gate)
            assert found.drop is not None
            assert found.drop.verdict == "cannot be judged", name
            assert found.doubts, name
            assert not compare(reference, reference, labels, gate, margin=2.0).passed, name
    (doubt,) = compare(others["permuted outputs"], others["permuted outputs"], labels).doubts
    assert "less than guessing gives (10.0%)" in doubt
    (doubt,) = compare(others["one class"], others["one class"], labels).doubts
    assert "calls all images the same (4)" in doubt
    assert compare(others["one class"], others["one class"], None).doubts == (doubt,)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_guessing_is_always_saying_the_most_frequent_class(share: float) -> None:
    """A reference that has no more right than the largest class has images knows nothing."""
    rng = np.random.default_rng(0)
    labels = np.where(rng.random(400) < share, 0, rng.integers(1, 10, 400))
    said = rng.permutation(labels)
    guess = np.eye(10)[np.where(rng.random(400) < 0.98, 0, said)] * 5 + rng.standard_normal((400, 10)) * 0.1
    assert compare(guess, guess, labels).doubts
    knows = np.eye(10)[np.where(rng.random(400) < 0.97, labels, said)] * 5 + rng.standard_normal((400, 10)) * 0.1
    assert compare(knows, knows, labels).doubts == ()


# --- images that show nothing


@pytest.mark.parametrize("distinct", [1, 5, 250])
def test_repeated_images_are_counted_and_prove_nothing(distinct: int) -> None:
    outputs, labels = network(500)
    rows = np.arange(500) % distinct
    images = rows.astype(np.uint32).view(np.uint8).reshape(500, 1, 1, 4)
    reference, candidate = outputs[rows], noisy(outputs)[rows]
    found = compare(reference, candidate, labels[rows], images=images)
    assert (found.accuracy.images, found.accuracy.distinct) == (500, distinct)
    assert f"only {distinct} of the 500 images" in found.doubts[0]
    assert any("prove nothing" in text for text in found.failures)
    assert found.drop is not None
    assert found.drop.verdict == "cannot be judged"
    assert found.drop.pairs.images == distinct


def test_a_few_repeated_images_are_counted_once() -> None:
    """Interval and recall are those of the images without the repeated ones."""
    outputs, labels = network(500)
    rows = np.concatenate([np.arange(400), np.arange(100)])
    images = rows.astype(np.uint32).view(np.uint8).reshape(500, 1, 1, 4)
    candidate = noisy(outputs, 20)
    found = compare(outputs[rows], candidate[rows], labels[rows], images=images)
    once = compare(outputs[:400], candidate[:400], labels[:400])
    assert found.accuracy.distinct == 400
    assert found.drop == once.drop
    assert found.recalls == once.recalls
    assert found.doubts == ()
    assert found.accuracy.agreement == np.mean(outputs[rows].argmax(1) == candidate[rows].argmax(1))


def test_images_of_one_class_prove_nothing() -> None:
    outputs, labels = network(1000)
    mine = labels == 7
    found = compare(outputs[mine], noisy(outputs)[mine], labels[mine])
    assert found.doubts == ("all images are of one class (7)",)
    assert not found.passed
    assert compare(outputs[mine], outputs[mine], labels[mine], "fp32").passed  # by its outputs
    assert not compare(outputs[mine], outputs[mine], labels[mine], "fp32", margin=1.0).passed


# --- one class, or two


@pytest.mark.parametrize("n", [500, 1000, 5000])
@pytest.mark.parametrize("label", [0, 6])
@pytest.mark.parametrize("gate", list(GATES))
def test_a_class_that_loses_ten_points_fails_though_all_lose_one(n: int, label: int, gate: str) -> None:
    outputs, labels = network(n, right=1.0)
    candidate = noisy(outputs, 60)
    rows = np.flatnonzero(labels == label)[: n // 100]
    candidate[rows, label] = candidate[rows].min(axis=1)
    found = compare(outputs, candidate, labels, gate)
    assert found.accuracy.top1_drop == pytest.approx(1.0, abs=0.21)
    assert found.worst_class is not None
    assert found.worst_class.label == label
    assert found.worst_class.drop == pytest.approx(10.0, abs=0.5)
    assert any(text.startswith(f"recall of the class {label} drops by") for text in found.failures)


def test_figures_of_a_class_against_ones_computed_here() -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 5, 400)
    reference, candidate = rng.random(400) < 0.9, rng.random(400) < 0.85
    for one in class_recalls(labels, reference, candidate, 1.0):
        mine = labels == one.label
        lost, others = int((reference & ~candidate)[mine].sum()), ~mine
        assert one.reference == reference[mine].mean()
        assert one.candidate == candidate[mine].mean()
        assert one.drop == pytest.approx(100 * (reference[mine].mean() - candidate[mine].mean()))
        p0 = 0.01 + (reference & ~candidate)[others].mean()
        draws = rng.binomial(int(mine.sum()), p0, 200_000)
        assert one.p == pytest.approx(min(5 * float((draws >= lost).mean()), 1.0), abs=0.02)
        assert one.low < one.drop < one.high


@pytest.mark.parametrize(("n", "share"), [(1, 0.5), (20, 0.1), (50, 0.01), (300, 0.97)])
def test_the_tail_of_the_binomial_is_a_sum_of_exact_fractions(n: int, share: float) -> None:
    for hits in range(n + 2):
        exact = math.fsum(math.comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(hits, n + 1))
        assert upper_tail(hits, n, share) == pytest.approx(exact, rel=1e-9, abs=1e-300)


def test_false_alarms_over_classes_are_as_rare_as_they_are_said_to_be() -> None:
    """All classes lose 2 % and gain 1 %, by chance alone: of 300 candidates, at most 5 in 100 may fail by a class."""
    rng = np.random.default_rng(7)
    failed = 0
    for _ in range(300):
        labels, reference = rng.integers(0, 10, 500), np.ones(500, dtype=bool)
        reference[rng.random(500) < 0.1] = False
        candidate = np.where(reference, rng.random(500) > 0.02, rng.random(500) < 0.1)
        failed += any(one.is_lost(5.0) for one in class_recalls(labels, reference, candidate, 1.0))
    assert failed <= 15


@pytest.mark.parametrize("pair", [(0, 1), (3, 5), (9, 2)])
@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("n", [500, 2000])
def test_two_classes_exchanged_on_two_percent_of_the_images(pair: tuple[int, int], labelled: bool, n: int) -> None:
    outputs, labels = network(n)
    for seed in range(5):
        candidate = noisy(outputs, seed=seed)
        rows = np.random.default_rng(seed).choice(n, n // 50, replace=False)
        candidate[np.ix_(rows, pair)] = candidate[np.ix_(rows, pair[::-1])]
        found = compare(outputs, candidate, labels if labelled else None)
        (failure,) = (text for text in found.failures if "exchanged" in text)
        first, second = sorted(pair)
        assert f"between the classes {first} and {second}" in failure


def test_predictions_of_two_classes_exchanged_by_any_outputs() -> None:
    """Not the two values, but the prediction: the other class is put on top."""
    outputs, labels = network(1000)
    candidate = noisy(outputs)
    rows = np.flatnonzero(outputs.argmax(1) == 3)[:20]
    candidate[rows, 5] = candidate[rows, 3] + 4.0
    search = OutlierSearch()
    search.update(outputs, candidate)
    found = search.outliers()
    assert found.is_fault
    assert found.classes == (3, 5)
    assert found.unexplained >= 15
    assert not compare(outputs, candidate, labels).passed


# --- what the outputs are


def softmax(outputs: Logits) -> Logits:
    powers = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("gate", list(GATES))
@pytest.mark.parametrize(
    ("change", "kind"), [(softmax, "probabilities"), (lambda x: np.log(softmax(x)), "log-probabilities")]
)
def test_a_softmax_at_the_end_is_named(change: Callable[[Logits], Logits], kind: str, gate: str) -> None:
    outputs, labels = network()
    for left, right in ((outputs, change(outputs)), (change(outputs), outputs)):
        found = compare(left, right, labels, gate)
        assert any(f"with {kind}" in text and "softmax" in text for text in found.failures)
    both = compare(change(outputs), change(outputs), labels, gate)
    assert both.passed
    assert (both.outputs.reference_kind, both.outputs.candidate_kind) == (kind, kind)


def test_rounded_probabilities_are_probabilities() -> None:
    kind = KindOf()
    kind.update(np.round(softmax(network()[0]) * 255) / 255)
    assert kind.kind == "probabilities"


@pytest.mark.parametrize("scale", [0.01, 0.1, 0.5, 0.7, 1.5, 2.0, 100.0, -1.0])
def test_another_scale_fails_the_int8_gate(scale: float) -> None:
    outputs, labels = network()
    found = compare(outputs, noisy(outputs) * scale, labels)
    assert found.outputs.scale == pytest.approx(scale, rel=0.01)
    assert any(f"times {found.outputs.scale:.3g}" in text for text in found.failures)


@pytest.mark.parametrize("scale", [0.9, 1.0, 1.1])
def test_a_scale_near_one_passes(scale: float) -> None:
    outputs, labels = network()
    assert compare(outputs, noisy(outputs) * scale, labels).passed


def test_outputs_that_are_mostly_noise_fail_though_predictions_stay() -> None:
    outputs, labels = network()
    candidate = noisy(outputs, 40)
    rng, top = np.random.default_rng(0), outputs.argmax(axis=1)
    candidate += rng.standard_normal(candidate.shape) * outputs.std() * 0.45
    rows = np.arange(len(outputs))
    candidate[rows, top] = np.maximum(candidate[rows, top], candidate.max(axis=1) + 0.01)
    found = compare(outputs, candidate, labels)
    assert found.accuracy.agreement == 1.0
    assert any("SQNR" in text for text in found.failures)
    assert compare(outputs, candidate, labels, min_sqnr_db=0.0).passed


def _rounded(values: Logits, levels: int = 255) -> Logits:
    """As by the Q/DQ pair of an output: integers of one step."""
    step = (values.max() - min(values.min(), 0.0)) / levels
    return np.round(values / step) * step


@pytest.mark.parametrize("classes", [3, 10, 200])
@pytest.mark.parametrize("change", [softmax, lambda x: np.log(softmax(x))])
def test_a_rounded_softmax_is_still_one(change: Callable[[Logits], Logits], classes: int) -> None:
    """Rows of rounded probabilities need not sum to one: of many classes most round to nothing."""
    rng = np.random.default_rng(classes)
    labels, logits = rng.integers(0, classes, 600), rng.normal(0, 1, (600, classes))
    logits[np.arange(600), labels] += np.abs(rng.normal(6, 2, 600))
    wide = change(logits)
    metrics = OutputComparison()
    metrics.update(wide, _rounded(wide))
    found = metrics.metrics(None)
    assert found.reference_kind == found.candidate_kind != "logits"


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_each_kind_is_told_from_each_other_one(noise: float) -> None:
    logits = network()[0]
    forms: dict[str, Callable[[Logits], Logits]] = {
        "logits": lambda x: x,
        "probabilities": softmax,
        "log-probabilities": lambda x: np.log(softmax(x)),
    }
    rough = logits + np.random.default_rng(1).normal(0, noise, logits.shape)
    for (left, one), (right, other) in itertools.product(forms.items(), repeat=2):
        metrics = OutputComparison()
        metrics.update(one(logits), other(rough))
        found = metrics.metrics(None)
        assert (found.reference_kind, found.candidate_kind) == (left, right)


@pytest.mark.parametrize("quiet", [0.0, 0.3, 0.55, 0.8])
@pytest.mark.parametrize("classes", [3, 10])
@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_quiet_images_do_not_make_the_noise_of_others_a_fault(quiet: float, classes: int, spread: float) -> None:
    """Dark frames hardly err. Two classes that are hard to tell flip where the others do, and by no more."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        labels, reference = rng.integers(0, classes, 1000), rng.normal(0, 1, (1000, classes))
        reference[np.arange(1000), labels] += np.abs(rng.normal(6, 2, 1000))
        alike = np.flatnonzero(labels < 2)
        reference[alike, 1 - labels[alike]] = reference[alike, labels[alike]] - np.abs(rng.normal(0, 2.5, len(alike)))
        error = rng.normal(0, 0.1, reference.shape) * np.exp(rng.normal(0, spread, (1000, 1)))
        error[rng.random(1000) < quiet] *= 0.02
        search = OutlierSearch()
        search.update(reference, reference + error)
        assert not search.outliers().is_fault, search.outliers()


@pytest.mark.parametrize("quiet", [0.0, 0.5])
def test_exchanged_classes_show_beside_quiet_images(quiet: float) -> None:
    rng = np.random.default_rng(2)
    reference = network()[0]
    error = rng.normal(0, 0.1, reference.shape)
    error[rng.random(len(reference)) < quiet] *= 0.02
    candidate = reference + error
    some = np.arange(0, len(reference), 50)
    candidate[some, 0], candidate[some, 1] = candidate[some, 1], candidate[some, 0].copy()
    search = OutlierSearch()
    search.update(reference, candidate)
    assert search.outliers().is_fault
    assert search.outliers().classes == (0, 1)


def test_one_image_again_and_again_is_one_outlier() -> None:
    reference = network()[0]
    candidate = reference.copy()
    sure = int(np.argmax(reference[:, 0] - reference[:, 1]))
    candidate[sure, [0, 1]] = candidate[sure, [1, 0]]
    images = np.arange(len(reference), dtype=np.uint32).view(np.uint8).reshape(-1, 2, 2, 1)
    order = np.concatenate([np.arange(len(reference)), np.full(20, sure)])
    found = verify([(images[order], None)], lambda _: reference[order], lambda _: candidate[order], GATES["int8"])
    assert (found.outliers.exchanged, found.outliers.is_fault) == (1, False)
