"""What the comparison tells beyond passed and failed: flips, the drop, metrics by image, batch sizes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from rir_deploy.errors import InputError, UsageError
from rir_deploy.verify import GATES, Gate, Tolerance, VerifyResult, verify
from rir_deploy.verify.batches import check_batches
from rir_deploy.verify.flips import Flip

Logits = NDArray[np.float32]


def logits(n: int = 60, classes: int = 10, seed: int = 0) -> Logits:
    return np.random.default_rng(seed).standard_normal((n, classes)).astype(np.float32)


def compare(
    reference: Logits, candidate: Logits, labels: NDArray[np.int64] | None = None, gate: Gate | None = None
) -> VerifyResult:
    """In batches of 7, by images that carry their own number."""
    parts = [np.arange(start, min(start + 7, len(reference))) for start in range(0, len(reference), 7)]
    batches = [(rows.astype(np.uint8).reshape(-1, 1, 1, 1), None if labels is None else labels[rows]) for rows in parts]
    found = gate or Gate(0.0, 100.0, None)
    return verify(batches, lambda x: reference[x.reshape(-1)], lambda x: candidate[x.reshape(-1)], found)


def test_flips_name_image_predictions_and_margins() -> None:
    reference = np.zeros((20, 4), np.float32)
    reference[:, 2] = 3.0
    reference[:, 1] = 1.0
    candidate = reference.copy()
    candidate[9, 1] = 3.5  # over 3.0
    candidate[17] = np.nan
    found = compare(reference, candidate, labels=np.full(20, 2))
    assert found.accuracy.flips == (Flip(9, 2, 2, 1, 2.0, 0.5), Flip(17, 2, 2, None, 2.0, None))
    assert found.accuracy.agreement == 18 / 20
    assert found.accuracy.pairs is not None
    assert (found.accuracy.pairs.lost, found.accuracy.pairs.gained) == (2, 0)
    assert "not finite" not in str(found.to_dict()["flips"])
    assert [flip["image"] for flip in found.to_dict()["flips"]] == [9, 17]  # type: ignore[attr-defined]


def test_the_surest_flips_come_first_in_the_record() -> None:
    reference, candidate = logits(300), logits(300, seed=1)
    found = compare(reference[:250], candidate[:250])
    margins = [flip["reference_margin"] for flip in found.to_dict()["flips"]]  # type: ignore[attr-defined]
    top = np.sort(reference[:250], axis=1)
    differs = reference[:250].argmax(1) != candidate[:250].argmax(1)
    expected = np.sort((top[:, -1] - top[:, -2])[differs])[::-1]
    assert found.to_dict()["flipped"] == len(expected)
    assert np.allclose(margins, expected[:100])


def test_kl_and_cosine_are_those_of_their_definitions() -> None:
    reference, candidate = logits(), logits() + 0.3 * logits(seed=2)
    found = compare(reference, candidate).outputs
    p, q = (np.exp(x.astype(float)) / np.exp(x.astype(float)).sum(1, keepdims=True) for x in (reference, candidate))
    kl = (p * np.log(p / q)).sum(1)
    angle = [np.dot(a, b) / math.sqrt(np.dot(a, a) * np.dot(b, b)) for a, b in zip(reference, candidate, strict=True)]
    assert math.isclose(found.kl_mean, kl.mean(), rel_tol=1e-6)
    assert math.isclose(found.kl_max, kl.max(), rel_tol=1e-6)
    assert math.isclose(found.cosine, np.mean(angle), rel_tol=1e-6)
    assert math.isclose(found.cosine_min, min(angle), rel_tol=1e-6)


def test_metrics_of_outputs_that_are_dead_or_not_finite() -> None:
    zero = np.zeros((5, 3), np.float32)
    assert compare(zero, zero).outputs.cosine == 1.0
    assert compare(zero + 1, zero).outputs.cosine == 0.0
    broken = logits(14)
    broken[3, 1] = np.nan
    record = compare(logits(14), broken).to_dict()
    assert record["kl_max"] is None
    assert record["cosine_min"] is None


def test_a_margin_has_to_be_shown() -> None:
    reference = logits(60)
    labels = reference.argmax(1)
    gate = replace(GATES["fp32"], margin=1.0)
    few = compare(reference, reference, labels, gate)
    assert not few.passed
    assert few.drop is not None
    assert few.drop.images_needed is not None
    assert f"{few.drop.images_needed:,} images" in few.failures[0]
    assert compare(reference, reference, labels, replace(gate, margin=10.0)).passed
    without = compare(reference, reference, None, gate)
    assert without.drop is None
    assert "without labels" in without.failures[0]


def test_the_drop_is_told_where_no_margin_is_asked_for() -> None:
    reference = logits(60)
    found = compare(reference, reference, reference.argmax(1), GATES["int8"])
    assert found.passed
    assert found.drop is not None
    assert (found.drop.margin, found.drop.verdict) == (1.0, "undecided")


def test_every_preset_says_why() -> None:
    assert list(GATES) == ["fp32", "fp16", "int8"]
    for gate in GATES.values():
        assert len(gate.reason) > 40
    with pytest.raises(UsageError, match="margin"):
        replace(GATES["fp32"], margin=101.0)


IMAGES = np.random.default_rng(0).integers(0, 256, (10, 4, 4, 1), dtype=np.uint8)


def mean(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    return images.reshape(len(images), -1).mean(axis=1, keepdims=True)


def test_batches_that_answer_alike() -> None:
    seen: list[int] = []

    def run(images: NDArray[np.uint8]) -> NDArray[np.float64]:
        seen.append(len(images))
        return mean(images)

    checks = check_batches(run, IMAGES, [4, 7, 32], Tolerance(0.0, 0.0))
    assert [(check.size, check.passed, check.max_abs_error) for check in checks] == [
        (4, True, 0.0),
        (7, True, 0.0),
        (32, True, 0.0),
    ]
    assert seen == [4, 4, 4, 7, 32]


@pytest.mark.parametrize(
    "fault",
    [
        lambda images: mean(images) - mean(images).mean(),  # batch norm that was left in training mode
        lambda images: mean(images) if len(images) != 7 else mean(images[::-1]),  # rows out of order at one size
        lambda images: mean(images) if len(images) != 7 else mean(images) * np.nan,
        lambda images: mean(images) if len(images) != 7 else mean(images[:1]),  # only the first image is computed
    ],
)
def test_batches_that_do_not(fault: object) -> None:
    checks = check_batches(fault, IMAGES, [4, 7, 32], Tolerance(1e-3, 1e-3))  # type: ignore[arg-type]
    assert 7 in [check.size for check in checks if not check.passed]
    assert checks[0].passed


def test_a_size_that_cannot_be_run_is_named() -> None:
    def run(images: NDArray[np.uint8]) -> NDArray[np.float64]:
        if len(images) == 7:
            raise InputError("no kernel for 7")
        return mean(images)

    checks = check_batches(run, IMAGES, [1, 7, 8], Tolerance(0.0, 0.0))
    assert [(check.passed, check.reason) for check in checks] == [(True, ""), (False, "no kernel for 7"), (True, "")]


@pytest.mark.parametrize(("promised", "tried"), [(None, 9), (64, 9), (32, 9), (16, 8), (8, 8)])
def test_sizes_beyond_what_a_model_takes_are_no_failure(promised: int | None, tried: int) -> None:
    """Unless they were promised: an engine's range, the size of the comparison."""
    seen: list[int] = []

    def run(images: NDArray[np.uint8]) -> NDArray[np.float64]:
        seen.append(len(images))
        if len(images) > 20:
            raise InputError("more than 20 do not fit")
        return mean(images)

    sizes = [1, 2, 3, 4, 6, 7, 8, 16, 32]
    checks = check_batches(run, IMAGES, sizes, Tolerance(0.0, 0.0), promised)
    assert [check.size for check in checks] == sizes[:tried]
    assert all(check.passed for check in checks[:8])
    assert [check.reason for check in checks[8:]] == ["more than 20 do not fit"] * (tried - 8)
    longer = check_batches(run, IMAGES, [*sizes, 64], Tolerance(0.0, 0.0), 16)
    assert [check.size for check in longer] == sizes[:8]  # none after the first that does not run
    assert seen[-1] == 32
