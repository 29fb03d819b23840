"""INT8 of the folded network beside INT8 of the network as it was traced: which is better at what, by `rules`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from rir_deploy.report.rules import LATENCY, SIZE, Better, by_images, by_sqnr, smaller
from rir_deploy.report.schema import Run
from rir_deploy.report.schema_bench import SYNCHRONOUS, BenchResult
from rir_deploy.report.schema_engine import Engine
from rir_deploy.report.schema_graph import Graph

Winner = Literal["folded", "unfolded", "level"]
_WINNERS: dict[Better, Winner] = {"first": "folded", "second": "unfolded", "level": "level"}


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
        folded, unfolded = self.folded, self.unfolded
        proofs = folded.engine.verify, unfolded.engine.verify
        found = {
            "agreement": by_images(*proofs, lambda verify: verify.agreement),
            "top-1": by_images(*proofs, lambda verify: verify.candidate.top1),
            "SQNR": by_sqnr(*proofs),
            "latency": smaller(folded.latency_ms, unfolded.latency_ms, LATENCY),
            "size": smaller(folded.size_bytes, unfolded.size_bytes, SIZE),
        }
        return {measure: _WINNERS[better] for measure, better in found.items() if better is not None}

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
    times = [medians_ms(run, engine) for engine in engines]
    batch = min(times[0].keys() & times[1].keys(), default=None)
    medians = [None if batch is None else found[batch] for found in times]
    left, right = map(Contestant, engines, graphs, sizes, medians)
    return Pair(left, right, batch, "engine" if built else "graph")


def _graph(graphs: tuple[Graph, ...], engine: Engine) -> Graph | None:
    return next((one for one in graphs if one.precision == "int8" and one.flavour == engine.flavour), None)


def medians_ms(run: Run, engine: Engine) -> dict[int, float]:
    """The median latency of an engine by batch size, one call after another."""
    return {
        one.batch: one.latency_ms.median
        for one in _results(run, engine)
        if one.latency_ms is not None and one.mode == SYNCHRONOUS and (one.streams or 1) == 1
    }


def throughputs_per_s(run: Run, engine: Engine) -> dict[tuple[int, int], float]:
    """Images a second of an engine with several calls in flight, by batch size and how many."""
    return {
        (one.batch, one.streams): one.throughput_per_s
        for one in _results(run, engine)
        if one.throughput_per_s is not None and one.mode != SYNCHRONOUS and one.streams is not None
    }


def _results(run: Run, engine: Engine) -> list[BenchResult]:
    results = () if run.bench is None else run.bench.results
    return [one for one in results if PurePosixPath(one.engine).name == engine.name]
