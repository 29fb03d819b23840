"""The record of a run, ``run.json``, schema 3: everything that the report shows, and nothing else is read.

    run.json ─ machine      where it ran
             ─ model        the checkpoint it began with
             ─ export       the trace, its check against PyTorch, and the fold before and after
             ─ graphs       one ONNX graph a precision and flavour
             ─ calibration  the images that gave the INT8 ranges; null where nothing was calibrated
             ─ engines      what was built from the graphs, each with its parity proof
             ─ unfolded     graphs and engines of the network as it was traced, in INT8, to compare with; or null
             ─ pictures     the images of the flips that the proofs list, as far as they are small
             ─ stages       every stage against PyTorch and against the one before; null where it was left out
             ─ layers       every graph against the checkpoint, layer by layer; or null
             ─ block        one block before the fold and after it; null where there is none to draw
             ─ bench        the latency of the engines; null where it was not measured
             ─ roofline     the CPU engines against what the machine can do at most; null where it was left out
             ─ files        every file with its hash and the hashes of what it was made from

The keys of the JSON are the fields of the records below; a field with a default may be missing, a key that no field
has is passed over. Sizes are bytes, ``seconds`` are seconds, ``*_ms`` milliseconds; accuracies and agreements are
fractions 0..1, ``top1_drop`` is in points of 100; hashes are sha256 in hex.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rir_deploy.errors import InputError
from rir_deploy.report.reader import Amount, Count, Number, Picture, Share, Size, read_record
from rir_deploy.report.schema_bench import Bench, Machine
from rir_deploy.report.schema_engine import Engine, Kept
from rir_deploy.report.schema_graph import Graph
from rir_deploy.report.schema_roofline import Roofline
from rir_deploy.report.schema_stage import Block, LayerErrors, Stages

SCHEMA = 3


@dataclass(frozen=True)
class Model:
    """``recorded_top1`` is what the training wrote into the checkpoint, None where it wrote nothing; ``weights`` is the
    key of those that were taken out of several in it."""

    checkpoint: str
    sha256: str
    layout: str
    parameters: Count
    recorded_top1: Share | None
    weights: str | None = None


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
class Calibration:
    """What the INT8 ranges were taken from."""

    data: str
    images: Count
    method: str


@dataclass(frozen=True)
class Unfolded:
    """The network as it was traced: its FP32 graph, those of INT8, and an engine for each backend.

    The engines are those of ``Run.engines`` in INT8 with another graph; where one could not have run here it was not
    built, and its proof is of its graph.
    """

    graphs: tuple[Graph, ...]
    engines: tuple[Engine, ...]


@dataclass(frozen=True)
class File:
    """``parents`` are the hashes of the files it was made from."""

    path: str
    sha256: str
    size_bytes: Count
    parents: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """The whole record. ``passed`` is the run's own verdict; ``data`` names the images of the parity proof;
    ``pictures`` are PNG in base64, by an image's place in the data.
    """

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
    unfolded: Unfolded | None
    pictures: dict[Number, Picture]
    stages: Stages | None
    layers: tuple[LayerErrors, ...] | None
    block: Block | None
    bench: Bench | None
    files: tuple[File, ...]
    roofline: Roofline | None = None

    @property
    def all_graphs(self) -> tuple[Graph, ...]:
        """Those of the unfolded network last."""
        return (*self.graphs, *(self.unfolded.graphs if self.unfolded is not None else ()))

    @property
    def all_engines(self) -> tuple[Engine, ...]:
        """Those of the unfolded network last."""
        return (*self.engines, *(self.unfolded.engines if self.unfolded is not None else ()))


def read_run(data: object, source: str = "run.json") -> Run:
    """The record of a run from plain JSON data; ``source`` names the file in messages.

    Raises:
        InputError: it has another schema, or a key is missing, of a wrong type or out of range.
    """
    schema = data.get("schema") if isinstance(data, Mapping) else None
    if isinstance(schema, int) and not isinstance(schema, bool) and schema != SCHEMA:
        way_out = "update rir-deploy" if schema > SCHEMA else "repeat the run, which keeps what is still valid"
        raise InputError(f"'{source}' has schema {schema}, and this version reads schema {SCHEMA}; {way_out}")
    run = read_record(Run, data, source)
    for index, engine in enumerate(run.engines):
        if engine.status == "verified" and engine.verify is None:
            raise InputError(f"'{source}' has no 'engines[{index}].verify' for an engine that is verified")
    return run
