"""How INT8 is calibrated: the options that commands share, and what they say of the outcome."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rir_deploy.cli import common

if TYPE_CHECKING:
    from rir_deploy.pipeline.calibrate import CalibrationRequest
    from rir_deploy.pipeline.evaluation import SearchRequest

KEEP_HELP = (
    "Layers that stay in float: those with a match in the name of their node, of its output or weight, or of an "
    "unfolded tensor that it computes; repeatable."
)
_OPTIONS = (
    click.option(
        "--ranges",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Range table made before; --data beside it are the images it was made on.",
    ),
    click.option(
        "--samples", type=click.IntRange(1), help="Calibration images; by default as many as the recipe says."
    ),
    click.option(
        "--method",
        metavar="NAME",
        help="How a range follows from what was seen: minmax, percentile, entropy, mse, or auto: what fits held-back "
        "images best. By default as the recipe says.",
    ),
    click.option(
        "--percentile",
        type=float,
        help="Share of absolute values kept, in percent, by --method percentile; by default as the recipe says.",
    ),
    click.option(
        "--rounding",
        metavar="NAME",
        help="Of weights: gptq (second order, the default), mse (nearest, least squared error) or nearest.",
    ),
    click.option("--no-equalize", is_flag=True, help="Leave the scales of the channels as they are."),
    click.option("--no-bias-correction", is_flag=True, help="Leave the biases as they are."),
    click.option(
        "--weight-bits",
        type=int,
        default=8,
        show_default=True,
        help="8, 4 or 3; first and last layers keep 8. 4 make a small file, for ONNX Runtime (--qdq cpu), that is not "
        "computed in 4 bits; 3 are stored in 4 as well and save nothing more.",
    ),
    click.option(
        "--split-identity",
        is_flag=True,
        help="Round the identity of a folded block apart from its kernel: one product and one sum more a block.",
    ),
    click.option(
        "--expect-top1",
        type=float,
        metavar="PERCENT",
        help="Top-1 that the FP32 model reaches, where its checkpoint does not say: calibration images on which it is "
        "far lower are refused.",
    ),
    click.option(
        "--max-drop",
        type=float,
        metavar="POINTS",
        help="Largest loss of top-1 on --eval-data: the fewest layers that keep it stay in float.",
    ),
    click.option("--eval-data", metavar="SOURCE", help="Labelled images for --max-drop; not those of the proof."),
)


def calibration_options(function: common.Function) -> common.Function:
    """The options, collected by the command in one dictionary; what is left out is as the recipe says."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def calibration_request(data: str | None, options: dict[str, Any]) -> CalibrationRequest:
    """What --data and the options ask for."""
    from rir_deploy.pipeline.calibrate import CalibrationRequest

    return CalibrationRequest(
        data,
        options["ranges"],
        options["samples"],
        options["method"],
        options["percentile"],
        rounding=options["rounding"],
        equalize=not options["no_equalize"],
        correct_bias=not options["no_bias_correction"],
        bits=options["weight_bits"],
        split_identity=options["split_identity"],
        expect_top1=None if options["expect_top1"] is None else options["expect_top1"] / 100.0,
    )


def search_request(options: dict[str, Any], *, rank: bool = False) -> SearchRequest | None:
    """What --max-drop and --eval-data ask for; ``rank`` asks for the ranking alone."""
    from rir_deploy.pipeline.evaluation import SearchRequest

    request = SearchRequest(options["max_drop"], options["eval_data"])
    return request if rank or request.max_drop is not None else None


def say_calibration(described: dict[str, Any]) -> None:
    """What INT8 was calibrated to, and what else was measured."""
    from rir_deploy.pipeline.plausible import FEW

    for warning in described["warnings"]:
        common.warn(warning)
    found = described["calibration"]
    if found is None or "rounding" not in found:
        return
    on = "held-back images" if found["images"] >= FEW else "the same images"
    measured = "" if found["sqnr_db"] is None else f": {found['sqnr_db']:.1f} dB on {on}"
    images = f"{found['images']} image{'' if found['images'] == 1 else 's'}"
    common.say(f"calibrated on {images}, {_way(found)}{measured}")
    for other in found["candidates"][1:4]:
        common.say(f"  next best: {_way(other)}: {other['sqnr_db']:.1f} dB")
    if described["sensitivity"] is not None:
        _say_sensitivity(described["sensitivity"])


def _way(candidate: dict[str, Any]) -> str:
    equalized = ", channels equalised" if candidate["equalized"] else ""
    return f"ranges by {candidate['method']}, weights by {candidate['rounding']}{equalized}"


# What a layer becomes, by the precision of its weights.
_BECOMES = {"int8": "INT8", "int4": "INT4 weights", "fp16": "FP16", "fp32": "FP32"}


def _say_sensitivity(found: dict[str, Any]) -> None:
    from rir_deploy.report.console import print_table

    rows = []
    for layer in found["layers"]:
        damage = "none" if layer["sqnr_db"] is None else f"{layer['sqnr_db']:.1f} dB"
        place = " ".join(part for part in (layer["block"], layer["stream"]) if part)
        rows.append((layer["node"], place, damage, _BECOMES[layer["precision"]], ", ".join(layer["members"])))
    print_table("each layer quantised alone", ("node", "block", "SQNR", "becomes", "computes"), rows)
    if found["drop"] is not None:
        test = found["drop_test"]
        low, high = test["interval"]
        common.say(
            f"{found['kept']} of {len(rows)} layers stay in float: top-1 drops by {100 * found['drop']:.2f} points "
            f"on {test['images']:,} evaluation images (95 % interval {low:.2f} to {high:.2f})"
        )
