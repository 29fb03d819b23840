"""The record of a run, ``run.json``, schema 1: everything that the report shows, and nothing else is read.

    run.json ─ machine      where it ran
             ─ model        the checkpoint it began with
             ─ export       the trace, its check against PyTorch, and the fold before and after
             ─ graphs       one ONNX graph a precision and flavour
             ─ calibration  the images that gave the INT8 ranges; null where nothing was calibrated
             ─ engines      what was built from the graphs, each with its parity proof
             ─ bench        the latency of the engines; null where it was not measured
             ─ files        every file with its hash and the hashes of what it was made from

The keys of the JSON are the fields of the records below; a field with a default may be missing, a key that no field
has is passed over. Sizes are bytes, ``seconds`` are seconds, ``*_ms`` milliseconds; accuracies and agreements are
fractions 0..1, ``top1_drop`` is in points of 100; hashes are sha256 in hex.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rir_deploy.errors import InputError
from rir_deploy.report.reader import Amount, Count, Share, Size, read_record
from rir_deploy.report.schema_engine import Bench, Engine, Kept, Machine

SCHEMA = 1


@dataclass(frozen=True)
class Model:
    """``recorded_top1`` is what the training wrote into the checkpoint, None where it wrote nothing."""

    checkpoint: str
    sha256: str
    layout: str
    parameters: Count
    recorded_top1: Share | None


@dataclass(frozen=True)
class Change:
    """A count before the fold and after it."""

    before: Count
    after: Count


@dataclass(frozen=True)
class OpCounts:
    """Nodes by operator, before the fold and after it."""

    before: dict[str, Count]
    after: dict[str, Count]


@dataclass(frozen=True)
class Fold:
    """What folding did; ``refused`` are nodes it left alone, and why. ``macs`` are multiply-adds of one image."""

    modified: bool
    convs: Change
    nodes: Change
    macs: Change
    params: Change
    weight_bytes: Change
    ops: OpCounts
    refused: tuple[Kept, ...]


@dataclass(frozen=True)
class Check:
    """The exported graph against the PyTorch module; ``on`` names the images."""

    on: str
    passed: bool
    agreement: Share
    max_abs_error: Amount | None


@dataclass(frozen=True)
class Export:
    """``check`` is None where it was left out, ``fold`` where the raw trace was kept."""

    opset: Count
    seconds: Amount
    check: Check | None
    fold: Fold | None


@dataclass(frozen=True)
class Candidate:
    """A way to quantise; ``sqnr_db`` of the outputs on the images held back, None where there was no choice."""

    method: str
    rounding: str
    equalized: bool
    sqnr_db: float | None


@dataclass(frozen=True)
class Choice:
    """The way taken, and all that were measured, best first."""

    images: Count
    method: str
    rounding: str
    equalized: bool
    sqnr_db: float | None
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True)
class Graph:
    """``kept`` are the nodes that stay in a wider precision than the graph's, and why; ``calibration`` is of INT8."""

    name: str
    file: str
    precision: str
    flavour: str | None
    size_bytes: Count
    sha256: str
    kept: tuple[Kept, ...]
    calibration: Choice | None


@dataclass(frozen=True)
class Calibration:
    """What the INT8 ranges were taken from."""

    data: str
    images: Count
    method: str


@dataclass(frozen=True)
class File:
    """``parents`` are the hashes of the files it was made from."""

    path: str
    sha256: str
    size_bytes: Count
    parents: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """The whole record. ``passed`` is the run's own verdict; ``data`` names the images of the parity proof."""

    schema: Size
    tool: str
    created: str
    passed: bool
    machine: Machine
    recipe: str
    data: str
    model: Model
    export: Export
    graphs: tuple[Graph, ...]
    calibration: Calibration | None
    engines: tuple[Engine, ...]
    bench: Bench | None
    files: tuple[File, ...]


def read_run(data: object, source: str = "run.json") -> Run:
    """The record of a run from plain JSON data; ``source`` names the file in messages.

    Raises:
        InputError: it has another schema, or a key is missing, of a wrong type or out of range.
    """
    schema = data.get("schema") if isinstance(data, Mapping) else None
    if isinstance(schema, int) and not isinstance(schema, bool) and schema != SCHEMA:
        raise InputError(f"'{source}' has schema {schema}, and this version reads schema {SCHEMA}; update rir-deploy")
    run = read_record(Run, data, source)
    for index, engine in enumerate(run.engines):
        if engine.status == "verified" and engine.verify is None:
            raise InputError(f"'{source}' has no 'engines[{index}].verify' for an engine that is verified")
    return run
