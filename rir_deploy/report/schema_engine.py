"""The parts of a run's record about engines: what was built, its parity proof. See `schema`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rir_deploy.report.reader import Amount, Count, Share


@dataclass(frozen=True)
class Kept:
    """A node that was left as it is, and why."""

    node: str
    reason: str


@dataclass(frozen=True)
class Score:
    """One side of a parity proof; the accuracies are None where the images have no labels."""

    top1: Share | None
    top5: Share | None
    runs_on: str


@dataclass(frozen=True)
class GateBounds:
    """The bounds of a parity gate; ``atol`` and ``rtol`` are None where outputs are not compared one by one."""

    precision: str
    min_agreement: Share
    max_top1_drop: Amount
    atol: Amount | None
    rtol: Amount | None


@dataclass(frozen=True)
class Drop:
    """What can be said of the drop of top-1, in points.

    ``lost`` and ``gained`` are the images that the reference alone, or the engine alone, has right. ``interval`` is the
    paired 95 % interval, ``mcnemar_p`` McNemar's exact p; ``images_needed`` would decide for the engine, None where it
    is decided or no number would.
    """

    lost: Count
    gained: Count
    interval: tuple[float, float]
    mcnemar_p: Share
    margin: Amount
    verdict: Literal["non-inferior", "inferior", "undecided", "cannot be judged"]
    images_needed: Count | None


@dataclass(frozen=True)
class ClassRecall:
    """Recall of one class, by name, of both sides; ``drop`` and ``interval`` are in points.

    ``interval`` holds for all classes together; ``p`` is how likely so many lost images are in the worst of all classes
    where each loses what it may.
    """

    name: str
    images: Count
    reference: Share
    candidate: Share
    drop: float
    interval: tuple[float, float]
    p: Share


@dataclass(frozen=True)
class Flip:
    """An image, by its place in the data, that the two sides do not call the same; classes by name.

    ``label`` is None without labels, ``candidate`` and its margin where the engine's answer is not finite. A margin is
    how far the logit of the prediction is over the next one.
    """

    image: Count
    name: str
    label: str | None
    reference: str
    candidate: str | None
    reference_margin: Amount | None
    candidate_margin: Amount | None


@dataclass(frozen=True)
class Verify:
    """A parity proof.

    ``simulation``: the engine's graph ran in its place. ``sqnr_db`` is None where the outputs are equal, the errors
    where they are not finite. ``drop`` is None without labels; ``flips`` are some of the ``flipped``, those that the
    reference was surest of. ``doubts`` say why predictions on these images prove nothing.
    """

    passed: bool
    failures: tuple[str, ...]
    simulation: bool
    images: Count
    reference: Score
    candidate: Score
    agreement: Share
    top1_drop: float | None
    max_abs_error: Amount | None
    mean_abs_error: Amount | None
    sqnr_db: float | None
    gate: GateBounds
    drop: Drop | None
    flipped: Count
    flips: tuple[Flip, ...]
    distinct_images: Count | None = None
    doubts: tuple[str, ...] = ()
    classes: tuple[ClassRecall, ...] = ()
    worst_class: ClassRecall | None = None


@dataclass(frozen=True)
class Engine:
    """An engine. ``status`` is "verified", "failed", "built, not run" or, with a proof of its graph alone, "not built".
    ``reason`` says why it is not the first, or what the proof of a verified one leaves open (an FP16 engine on a CPU
    that computes in FP32).

    ``size_bytes`` and ``seconds`` are None where it was not built; ``realized`` is what the runtime made of it.
    """

    name: str
    backend: str
    backend_version: str
    precision: str
    flavour: str | None
    size_bytes: Count | None
    targets: tuple[str, ...]
    seconds: Amount | None
    realized: dict[str, object]
    status: Literal["verified", "failed", "built, not run", "not built"]
    reason: str
    verify: Verify | None

    @property
    def ran(self) -> bool:
        """Whether the engine itself answered, and not a graph in its place."""
        return self.status in ("verified", "failed")

    @property
    def failed(self) -> bool:
        """A proof that failed counts, whatever the status says."""
        return self.status == "failed" or (self.verify is not None and not self.verify.passed)
