"""The verdict in one sentence and the figures a reader looks for first."""

from __future__ import annotations

from dataclasses import dataclass

from rir_deploy.report import text
from rir_deploy.report.pairs import find_pairs
from rir_deploy.report.schema import Run
from rir_deploy.report.schema_bench import SYNCHRONOUS, Bench, BenchResult
from rir_deploy.report.schema_engine import Engine, Verify
from rir_deploy.report.tables_bench import is_eager, key_of, labels


@dataclass(frozen=True)
class KeyFigure:
    """A figure with what it is and what it belongs to."""

    title: str
    value: str
    note: str


@dataclass(frozen=True)
class Summary:
    """``passed`` is the verdict on the whole run."""

    passed: bool
    sentence: str
    figures: tuple[KeyFigure, ...]


def summarize(run: Run) -> Summary:
    """The summary of a run. A run with a failed proof has failed, whatever its record says."""
    failed = [engine for engine in run.engines if engine.failed]
    check = run.export.check
    passed = run.passed and not failed and (check is None or check.passed)
    fastest = None if run.bench is None else _fastest(run.bench)
    figures = (_parity(run), _fold(run), _drop(run), _proven(run), _smallest(run), fastest, _folding(run))
    return Summary(passed, _sentence(run, failed, passed), tuple(figure for figure in figures if figure is not None))


def _sentence(run: Run, failed: list[Engine], passed: bool) -> str:
    if failed:
        names = ", ".join(engine.name for engine in failed)
        return f"{text.plural(len(failed), 'engine')} of {len(run.engines)} failed: {names}."
    if not passed:
        return "The run did not pass."
    real = _counted(run)[0]
    absent = sum(engine.status == "built, not run" for engine in run.engines)
    rest = f"; {absent} more could be built but not run here" if absent else ""
    if not real:
        return f"No engine was run here{rest}."
    whom = "The one engine that was run here answers" if real == 1 else f"All {real} engines that were run here answer"
    return f"{whom} as the checkpoint does{rest}."


def _counted(run: Run) -> tuple[int, int]:
    """Engines that passed by running, and those whose graph passed by simulation."""
    passed = [engine.verify for engine in run.engines if engine.verify is not None and engine.verify.passed]
    return sum(not verify.simulation for verify in passed), sum(verify.simulation for verify in passed)


def _parity(run: Run) -> KeyFigure:
    real, simulated = _counted(run)
    absent = sum(engine.status == "built, not run" for engine in run.engines)
    notes = [f"{absent} built, not run"] if absent else []
    notes += [f"{simulated} passed by simulation"] if simulated else []
    return KeyFigure("Parity passed", f"{real} of {text.plural(len(run.engines), 'engine')}", "; ".join(notes))


def _fold(run: Run) -> KeyFigure | None:
    fold = run.export.fold
    if fold is None:
        return None
    nodes = f"nodes {text.count(fold.nodes.before)} → {text.count(fold.nodes.after)}"
    return KeyFigure("Convolutions", f"{text.count(fold.convs.before)} → {text.count(fold.convs.after)}", nodes)


def _drop(run: Run) -> KeyFigure | None:
    """The worst loss of accuracy of any engine, simulations included."""
    proofs = [(engine, engine.verify) for engine in run.engines if engine.verify is not None]
    drops = [(verify.top1_drop, engine, verify) for engine, verify in proofs if verify.top1_drop is not None]
    if not drops:
        return None
    drop, engine, verify = max(drops, key=lambda row: row[0])
    return KeyFigure("Largest top-1 drop", f"{text.points(drop)} points", f"{engine.name}: {_accuracies(verify)}")


def _proven(run: Run) -> KeyFigure | None:
    """Engines whose true drop of top-1 is under the margin, as far as 95 % intervals tell."""
    drops = [one.verify.drop for one in run.engines if one.verify is not None and one.verify.drop is not None]
    if not drops:
        return None
    found = {
        verdict: sum(drop.verdict == verdict for drop in drops)
        for verdict in ("undecided", "inferior", "cannot be judged")
    }
    notes = [f"{count} {verdict}" for verdict, count in found.items() if count]
    proven = len(drops) - sum(found.values())
    return KeyFigure("Non-inferior in top-1", f"{proven} of {text.plural(len(drops), 'engine')}", "; ".join(notes))


def _accuracies(verify: Verify) -> str:
    label = " (simulation)" if verify.simulation else ""
    return f"{text.percent(verify.reference.top1)} → {text.percent(verify.candidate.top1)}{label}"


def _smallest(run: Run) -> KeyFigure | None:
    sizes = [(engine.size_bytes, engine.name) for engine in run.engines if engine.size_bytes is not None]
    if not sizes:
        return None
    smallest, name = min(sizes, key=lambda row: row[0])
    return KeyFigure("Smallest engine", text.size(smallest), name)


def _fastest(bench: Bench) -> KeyFigure | None:
    """The fastest engine at the smallest batch size, against PyTorch eager where that was timed."""
    rows = [
        (result.latency_ms.median, result)
        for result in bench.results
        if result.latency_ms is not None and result.mode == SYNCHRONOUS
    ]
    rows = [row for row in rows if row[1].batch == min(result.batch for _, result in rows)]
    engines = [row for row in rows if not is_eager(row[1])]
    if not engines:
        return None
    median, result = min(engines, key=lambda row: row[0])
    eager = [row for row in rows if is_eager(row[1])]
    return KeyFigure(
        f"Fastest at batch {text.count(result.batch)}", f"{text.ms(median)} ms", _against(bench, result, median, eager)
    )


def _folding(run: Run) -> KeyFigure | None:
    """What the fold is worth in INT8, on the backend that is fastest with it."""
    timed = [
        (pair.folded.latency_ms, pair.unfolded.latency_ms, pair)
        for pair in find_pairs(run)
        if pair.folded.latency_ms and pair.unfolded.latency_ms
    ]
    if not timed:
        return None
    folded, unfolded, pair = min(timed, key=lambda row: row[0])
    better, worse = (", ".join(pair.won(which)) or "nothing" for which in ("folded", "unfolded"))
    note = f"{pair.folded.engine.backend}: folded is better at {better}, unfolded at {worse}"
    return KeyFigure("INT8, folded to unfolded", f"{text.number(unfolded / folded, 2)}× as fast", note)


def _against(bench: Bench, result: BenchResult, median: float, eager: list[tuple[float, BenchResult]]) -> str:
    names = labels(bench)
    name = names[key_of(result)]
    if not eager or not median:
        return name
    slower, other = min(eager, key=lambda row: row[0])
    return f"{name}: {text.number(slower / median, 1)}× {names[key_of(other)]}"
