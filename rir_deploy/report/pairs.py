"""INT8 of the folded network beside INT8 of the network as it was traced: which is better at what.

A difference that chance or noise explains decides nothing:

1. agreement and top-1: on as many images as the two can be told apart by. Each side changes n (1 - agreement)
   predictions; of two counts that differ by chance alone, the difference is under two standard deviations,
   2 sqrt(sum of both), 95 times in 100.
2. SQNR: under 0.5 dB, 6 % of the error.
3. latency (median) under 5 %, as two timings of one engine differ; size under 1 %.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from rir_deploy.report.schema import Run
from rir_deploy.report.schema_engine import SYNCHRONOUS, Engine, Verify
from rir_deploy.report.schema_graph import Graph

Winner = Literal["folded", "unfolded", "level"]
_SQNR_DB, _LATENCY, _SIZE = 0.5, 0.05, 0.01


@dataclass(frozen=True)
class Contestant:
    """One side of a pair. ``latency_ms`` is the median at the smallest batch size that both were timed at; the size is
    that of the graph where not both engines were built.
    """

    engine: Engine
    graph: Graph | None
    size_bytes: int | None
    latency_ms: float | None


@dataclass(frozen=True)
class Pair:
    """A backend's two INT8 engines; ``batch`` is what their latency was measured at, None where it was not."""

    folded: Contestant
    unfolded: Contestant
    batch: int | None
    sizes_of: Literal["engine", "graph"]

    @property
    def verdicts(self) -> dict[str, Winner]:
        """The better one by measure; what was not measured of both is left out."""
        found = {
            "agreement": _of_images(self, lambda verify: verify.agreement),
            "top-1": _of_images(self, lambda verify: verify.candidate.top1),
            "SQNR": _of_sqnr(self),
            "latency": _smaller(self.folded.latency_ms, self.unfolded.latency_ms, _LATENCY),
            "size": _smaller(self.folded.size_bytes, self.unfolded.size_bytes, _SIZE),
        }
        return {measure: winner for measure, winner in found.items() if winner is not None}

    def won(self, winner: Winner) -> tuple[str, ...]:
        """The measures that one side is better at, or that are level."""
        return tuple(measure for measure, better in self.verdicts.items() if better == winner)


def find_pairs(run: Run) -> list[Pair]:
    """A pair for each backend that has an INT8 engine of either graph."""
    others = {engine.backend: engine for engine in run.unfolded.engines} if run.unfolded is not None else {}
    folded = [engine for engine in run.engines if engine.precision == "int8" and engine.backend in others]
    return [_pair(run, engine, others[engine.backend]) for engine in folded]


def _pair(run: Run, folded: Engine, unfolded: Engine) -> Pair:
    graphs = [_graph(run.graphs, folded), _graph(run.unfolded.graphs if run.unfolded else (), unfolded)]
    engines = (folded, unfolded)
    built = all(engine.size_bytes is not None for engine in engines)
    sizes = [
        engine.size_bytes if built else None if graph is None else graph.size_bytes
        for engine, graph in zip(engines, graphs, strict=True)
    ]
    times = [_medians(run, engine) for engine in engines]
    batch = min(times[0].keys() & times[1].keys(), default=None)
    medians = [None if batch is None else found[batch] for found in times]
    left, right = map(Contestant, engines, graphs, sizes, medians)
    return Pair(left, right, batch, "engine" if built else "graph")


def _graph(graphs: tuple[Graph, ...], engine: Engine) -> Graph | None:
    return next((one for one in graphs if one.precision == "int8" and one.flavour == engine.flavour), None)


def _medians(run: Run, engine: Engine) -> dict[int, float]:
    """By batch size, in ms."""
    results = () if run.bench is None else run.bench.results
    return {
        one.batch: one.latency_ms.median
        for one in results
        if one.latency_ms is not None
        and one.mode == SYNCHRONOUS
        and (one.streams or 1) == 1
        and PurePosixPath(one.engine).name == engine.name
    }


def _of_images(pair: Pair, share: Callable[[Verify], float | None]) -> Winner | None:
    folded, unfolded = pair.folded.engine.verify, pair.unfolded.engine.verify
    if folded is None or unfolded is None or folded.images != unfolded.images:
        return None
    left, right = share(folded), share(unfolded)
    if left is None or right is None:
        return None
    flips = folded.images * ((1.0 - folded.agreement) + (1.0 - unfolded.agreement))
    difference = folded.images * (left - right)
    if abs(difference) <= 2.0 * math.sqrt(flips):
        return "level"
    return "folded" if difference > 0 else "unfolded"


def _of_sqnr(pair: Pair) -> Winner | None:
    folded, unfolded = pair.folded.engine.verify, pair.unfolded.engine.verify
    if folded is None or unfolded is None or folded.sqnr_db is None or unfolded.sqnr_db is None:
        return None
    left, right = folded.sqnr_db, unfolded.sqnr_db
    return "level" if abs(left - right) < _SQNR_DB else "folded" if left > right else "unfolded"


def _smaller(left: float | None, right: float | None, level: float) -> Winner | None:
    if left is None or right is None:
        return None
    if abs(left - right) <= level * max(left, right):
        return "level"
    return "folded" if left < right else "unfolded"
