"""What verify found, for people."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rir_deploy.cli import common

if TYPE_CHECKING:
    from rir_deploy.pipeline.layers import LayerReport
    from rir_deploy.pipeline.stage_table import Stage, Stages
    from rir_deploy.pipeline.verify import Verified
    from rir_deploy.verify.statistics import DropTest

_FLIPS, _CLASSES = 10, 10
_SIDES = ("reference", "candidate")


def print_verified(verified: Verified) -> None:
    """Both sides in a table, what the comparison gave, and the verdict."""
    from rir_deploy.report.console import percent, print_table

    accuracy = verified.result.accuracy
    rows = [
        ("what", verified.reference["path"], verified.candidate["path"]),
        ("runs on", verified.reference["runs_on"], verified.candidate["runs_on"]),
        ("precision", verified.reference["precision"], verified.candidate["precision"]),
        ("top-1", percent(accuracy.reference_top1), percent(accuracy.candidate_top1)),
        ("top-5", percent(accuracy.reference_top5), percent(accuracy.candidate_top5)),
    ]
    repeated = "" if accuracy.distinct == accuracy.images else f" ({accuracy.distinct} distinct)"
    title = f"verify: {accuracy.images} images{repeated} of {verified.views.reference.source.name}"
    print_table(title, ("", "reference", "candidate"), rows)
    _print_classes(verified)
    _print_flips(verified)
    if verified.layers is not None:
        print_layers(verified.layers)
    for line in _lines(verified):
        common.say(line)
    label = " by simulation: the engine itself was not run" if verified.candidate["simulation"] else ""
    doubts = verified.result.doubts
    if doubts:
        common.say(f"predictions prove nothing on these images: {'; '.join(doubts)}")
        label += "; by the outputs alone, predictions cannot be judged" if verified.passed else ""
    common.say(f"parity {'passed' if verified.passed else 'FAILED'} (gate {verified.gate_name}){label}")


def print_layers(report: LayerReport) -> None:
    """Every layer that both sides have, and what it adds to the error by itself."""
    from rir_deploy.report.console import print_table

    if report.note:
        common.say(report.note)
        return
    columns = ("node", "block", "stream", "SQNR dB", "max error", "own SQNR dB", "own of allowed", "verdict")
    rows = [
        (
            row.layer.node,
            row.block or "-",
            row.stream or "-",
            _decibels(row.sqnr_db),
            f"{row.max_abs_error:.1e}",
            _decibels(row.own_sqnr_db),
            f"{row.own_error:.1%}",
            row.verdict,
        )
        for row in report.rows
    ]
    print_table(f"layers, on {report.images} images, by the limits of {report.precision}", columns, rows)


def _decibels(value: float) -> str:
    return f"{value:.1f}" if math.isfinite(value) else "equal" if value > 0 else "-"


def _lines(verified: Verified) -> list[str]:
    from rir_deploy.report.console import percent

    accuracy, outputs, drop = verified.result.accuracy, verified.result.outputs, verified.result.drop
    lines = [f"agreement {percent(accuracy.agreement)}, {len(accuracy.flips)} flipped"]
    lines += [] if drop is None else _drop_lines(drop)
    lines += _class_lines(verified)
    lines += [
        f"largest error {outputs.max_abs_error:.3g} ({outputs.max_relative_error:.1e} of the largest output "
        f"{outputs.max_abs_reference:.3g}), mean error {outputs.mean_abs_error:.3g}, SQNR {outputs.sqnr_db:.1f} dB",
        f"cosine {outputs.cosine:.6f} (worst image {outputs.cosine_min:.6f}), KL of the softmax {outputs.kl_mean:.1e} "
        f"nats (worst image {outputs.kl_max:.1e})",
    ]
    if verified.batches:
        sizes = ", ".join(str(check.size) for check in verified.batches)
        worst = max((check.max_abs_error or 0.0) for check in verified.batches)
        lines.append(f"batches of {sizes}: answers differ by {worst:.1e} at most")
    return lines


def _class_lines(verified: Verified) -> list[str]:
    """The class that lost most, if one did."""
    worst = verified.result.worst_class
    if worst is None or worst.drop <= 0.0:
        return []
    chance = (
        "" if worst.is_lost(verified.gate.max_class_drop) else f", within {verified.gate.max_class_drop:g} or chance"
    )
    return [
        f"worst class: recall of {verified.class_name(worst.label)} drops by {worst.drop:.1f} points (interval "
        f"{worst.low:.1f} to {worst.high:.1f} for all classes together, p {worst.p:.2g}){chance}"
    ]


def _drop_lines(drop: DropTest) -> list[str]:
    lines = [
        f"top-1 drop {drop.drop:.2f} points, 95 % interval {drop.low:.2f} to {drop.high:.2f} (lost {drop.pairs.lost}, "
        f"gained {drop.pairs.gained}; McNemar's exact p {drop.mcnemar_p:.2g})"
    ]
    if drop.verdict == "cannot be judged":
        return [*lines, f"cannot be judged at a margin of {drop.margin:g} points"]
    if drop.verdict != "undecided":
        return [*lines, f"{drop.verdict} at a margin of {drop.margin:g} points"]
    needed = "no number of images would" if drop.images_needed is None else f"some {drop.images_needed:,} images would"
    return [*lines, f"undecided at a margin of {drop.margin:g} points: {needed} show it to be no worse"]


def _print_classes(verified: Verified) -> None:
    """Recall class by class, those that lost most first."""
    from rir_deploy.report.console import percent, print_table

    found = sorted(verified.result.recalls, key=lambda one: (-one.drop, one.label))
    if not found:
        return
    rows = [
        (
            verified.class_name(one.label),
            str(one.pairs.images),
            percent(one.reference),
            percent(one.candidate),
            f"{one.drop:.1f}",
            f"{one.low:.1f} to {one.high:.1f}",
            f"{one.p:.2g}",
        )
        for one in found[:_CLASSES]
    ]
    some = f", the {_CLASSES} of {len(found)} that lost most" if len(found) > _CLASSES else ""
    columns = ("class", "images", "reference", "candidate", "drop", "interval", "p")
    print_table(f"recall by class, drops in points{some}", columns, rows)


def _print_flips(verified: Verified) -> None:
    """The flips that the reference was surest of."""
    from rir_deploy.report.console import print_table

    found = sorted(verified.flips(), key=lambda flip: -float(flip["reference_margin"]))
    if not found:
        return
    names = verified.views.recipe.classes
    rows = [
        (
            flip["name"],
            "-" if flip["label"] is None else names[flip["label"]],
            *("not finite" if one is None else one for one in flip["classes"]),
            *("-" if flip[f"{side}_margin"] is None else f"{flip[f'{side}_margin']:.3g}" for side in _SIDES),
        )
        for flip in found[:_FLIPS]
    ]
    title = f"{len(rows)} of {len(found)} flips, those the reference was surest of"
    print_table(title, ("image", "label", "reference", "candidate", "margin", "margin"), rows)


def print_stages(stages: Stages) -> None:
    """Every stage of a run against PyTorch, and against the stage before it."""
    from rir_deploy.report.console import print_table

    columns = (
        "stage",
        "made from",
        "top-1",
        "drop",
        "agreement",
        "SQNR dB",
        "drop here",
        "agreement",
        "SQNR dB",
        "verdict",
    )
    title = f"stages: {stages.images} images of {stages.data}; against PyTorch, then against the stage before"
    print_table(title, columns, [_stage_cells(row, stages) for row in stages.rows])
    for row in stages.rows:
        if row.side["simulation"]:
            common.say(f"{row.name}: {row.side['runs_on']}")
    if stages.worst is not None and stages.worst.parent is not None:
        drop = stages.worst.parent.accuracy.top1_drop
        common.say(f"most top-1 is lost at {stages.worst.name}: {drop:.2f} points")
    failed = [row.name for row in stages.rows if row.against is not None and not row.against.passed]
    verdict = f"FAILED at {', '.join(failed)}" if failed else "passed at every stage"
    common.say(f"parity {verdict}")


def _stage_cells(row: Stage, stages: Stages) -> tuple[str, ...]:
    from rir_deploy.report.console import percent

    if row.against is None or row.parent is None:
        return (row.name, "-", percent(stages.top1), *["-"] * 6, "reference")
    figures = [(one.accuracy, one.outputs) for one in (row.against, row.parent)]
    cells = [
        (
            "-" if accuracy.top1_drop is None else f"{accuracy.top1_drop:.2f}",
            percent(accuracy.agreement),
            _decibels(outputs.sqnr_db),
        )
        for accuracy, outputs in figures
    ]
    verdict = "passed" if row.against.passed else "FAILED"
    label = f"{verdict} (simulation)" if row.side["simulation"] else verdict
    return (row.name, row.made_from or "-", percent(row.against.accuracy.candidate_top1), *cells[0], *cells[1], label)
