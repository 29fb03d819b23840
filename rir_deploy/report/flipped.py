"""The images that engines do not call as the checkpoint does, each with all that was said of it."""

from __future__ import annotations

from dataclasses import dataclass

from rir_deploy.report import text
from rir_deploy.report.schema import Run
from rir_deploy.report.schema_engine import Engine, Flip
from rir_deploy.report.table import Cell, Table, columns


@dataclass(frozen=True)
class Flipped:
    """``picture`` is a PNG in base64, None where it was too large to be kept; a claim is who says what, how surely."""

    name: str
    picture: str | None
    label: str
    reference: str
    claims: tuple[tuple[str, str], ...]


def flipped_images(run: Run) -> tuple[Flipped, ...]:
    """The images of the flips that the proofs of the run's engines list, those that the checkpoint was surest of first;
    the unfolded network is asked about the same ones.
    """
    proofs = [engine.verify for engine in run.engines if engine.verify is not None]
    found: dict[int, list[tuple[Engine, Flip]]] = {flip.image: [] for proof in proofs for flip in proof.flips}
    for engine in run.all_engines:
        for flip in () if engine.verify is None else engine.verify.flips:
            if flip.image in found:
                found[flip.image].append((engine, flip))
    order = sorted(found, key=lambda image: (-(found[image][0][1].reference_margin or 0.0), image))
    return tuple(_image(run.pictures.get(str(image)), found[image]) for image in order)


def _image(picture: str | None, flips: list[tuple[Engine, Flip]]) -> Flipped:
    first = flips[0][1]
    claims = tuple((engine.name, _said(flip.candidate, flip.candidate_margin)) for engine, flip in flips)
    return Flipped(
        first.name,
        picture,
        text.NONE if first.label is None else first.label,
        _said(first.reference, first.reference_margin),
        claims,
    )


def _said(what: str | None, margin: float | None) -> str:
    if what is None:
        return "not finite"
    return what if margin is None else f"{what} (by {margin:.2g})"


def flips_table(run: Run) -> Table | None:
    """How many images flipped, an engine a row; None where no proof knows."""
    proofs = [(engine, engine.verify) for engine in run.all_engines if engine.verify is not None]
    if not proofs:
        return None
    titles = columns("engine", ">images", ">flipped", ">agreement")
    rows = tuple(
        (
            Cell(engine.name, "simulation" if verify.simulation else ""),
            Cell(text.count(verify.images)),
            Cell(text.count(verify.flipped)),
            Cell(text.percent(verify.agreement)),
        )
        for engine, verify in proofs
    )
    return Table("flips", "Images that are not called as the checkpoint calls them", titles, rows)
