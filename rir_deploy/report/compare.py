"""Runs side by side, engine by engine: which is better at what, and what a later run lacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rir_deploy.report import text
from rir_deploy.report.differences import data_of, differences, gpu_calls_of, machine_of
from rir_deploy.report.pairs import medians_ms, throughputs_per_s
from rir_deploy.report.rules import LATENCY, SIZE, Better, by_images, by_sqnr, larger, smaller
from rir_deploy.report.schema import Run
from rir_deploy.report.summary import summarize


@dataclass(frozen=True)
class Measure:
    """One figure of an engine in every run, None where a run has none, with its words.

    ``better`` judges each run's against the first run's: "first" is that the first run is better. It is None where
    there is nothing to judge, as of the first run itself. ``timed``: it is of the bench.
    """

    engine: str
    name: str
    values: tuple[float | None, ...]
    words: tuple[str, ...]
    better: tuple[Better | None, ...]
    timed: bool = False


@dataclass(frozen=True)
class Compared:
    """The ``runs`` by their ``names``; ``differences`` say what of them cannot be compared and is not judged."""

    names: tuple[str, ...]
    runs: tuple[Run, ...]
    measures: tuple[Measure, ...]
    differences: tuple[str, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What to be wary of: what a later run lacks, then what differs."""
        return (*self._lacks, *self.differences)

    @property
    def worse(self) -> tuple[str, ...]:
        """What a later run lacks, did not run or is worse at than the first, a sentence each."""
        figures = (
            f"{self.names[index]}: {one.engine}, {one.name} {one.words[index]} against {one.words[0]}"
            for one in self.measures
            for index, better in enumerate(one.better)
            if better == "first"
        )
        return (*self._lacks, *figures)

    def lacking(self, index: int) -> dict[str, str]:
        """Engines of the first run, and times of them, that the run at ``index`` has not, with a sentence each."""
        return dict(_lacking(self.names, self.runs, self.measures, index)) if index else {}

    @property
    def _lacks(self) -> tuple[str, ...]:
        return tuple(sentence for index in range(len(self.runs)) for sentence in self.lacking(index).values())

    @property
    def failed(self) -> tuple[str, ...]:
        """The later runs that did not pass."""
        later = list(zip(self.names, self.runs, strict=True))[1:]
        return tuple(name for name, run in later if not summarize(run).passed)

    def to_dict(self) -> dict[str, object]:
        return {
            "runs": [
                {"name": name, "passed": summarize(run).passed, "created": run.created, "model": run.model.sha256}
                for name, run in zip(self.names, self.runs, strict=True)
            ],
            "notes": list(self.notes),
            "measures": [
                {
                    "engine": one.engine,
                    "measure": one.name,
                    "values": list(one.values),
                    "better": [_WORDS[better] for better in one.better],
                }
                for one in self.measures
            ],
            "worse": list(self.worse),
            "failed": list(self.failed),
        }


_WORDS: dict[Better | None, str | None] = {"first": "worse", "second": "better", "level": "level", None: None}


def compare_runs(runs: Sequence[tuple[str, Run]]) -> Compared:
    """Compare later runs with the first one, engine by engine.

    Accuracy is judged where the images are the same, latency where the machine and the threads are, and TensorRT's
    where its calls are made in the same way; what differs is in the notes.
    """
    names, records = tuple(name for name, _ in runs), tuple(run for _, run in runs)
    first = records[0]
    same_data = [data_of(run) == data_of(first) for run in records]
    same_machine = [machine_of(run) == machine_of(first) for run in records]
    same_calls = [
        same and gpu_calls_of(run) == gpu_calls_of(first) for same, run in zip(same_machine, records, strict=True)
    ]
    engines = list(dict.fromkeys(engine.name for run in records for engine in run.engines))
    on_gpu = {engine.name for run in records for engine in run.engines if engine.backend.startswith("tensorrt")}
    measures = tuple(
        one
        for name in engines
        for one in _measures(name, records, same_data, same_calls if name in on_gpu else same_machine)
    )
    return Compared(names, records, measures, tuple(differences(names, records)))


def _measures(
    name: str, runs: Sequence[Run], same_data: Sequence[bool], same_timing: Sequence[bool]
) -> Iterator[Measure]:
    engines = [next((one for one in run.engines if one.name == name), None) for run in runs]
    proofs = [None if one is None else one.verify for one in engines]
    sizes = [None if one is None else one.size_bytes for one in engines]
    same_model = [run.model.sha256 == runs[0].model.sha256 for run in runs]

    def judged(judge: Callable[[int], Better | None], allowed: Sequence[bool]) -> tuple[Better | None, ...]:
        return (None, *(judge(index) if allowed[index] else None for index in range(1, len(runs))))

    yield _measure(
        name, "size", sizes, text.size, judged(lambda i: smaller(sizes[0], sizes[i], SIZE), [True] * len(runs))
    )
    yield _measure(
        name,
        "top-1",
        [None if one is None else one.candidate.top1 for one in proofs],
        text.percent,
        judged(
            lambda i: by_images(proofs[0], proofs[i], lambda one: one.candidate.top1, paired=same_model[i]), same_data
        ),
    )
    yield _measure(
        name,
        "agreement",
        [None if one is None else one.agreement for one in proofs],
        text.percent,
        judged(lambda i: by_images(proofs[0], proofs[i], lambda one: one.agreement), same_data),
    )
    yield _measure(
        name,
        "SQNR",
        [None if one is None else one.sqnr_db for one in proofs],
        lambda value: f"{text.number(value, 1)} dB",
        judged(lambda i: by_sqnr(proofs[0], proofs[i]), same_data),
        ["equal" if one is not None and one.max_abs_error == 0 else "" for one in proofs],
    )
    known = list(zip(runs, engines, strict=True))
    times = [{} if engine is None else medians_ms(run, engine) for run, engine in known]
    for batch in sorted({batch for one in times for batch in one}):
        medians = [one.get(batch) for one in times]
        better = judged(lambda i, seen=medians: smaller(seen[0], seen[i], LATENCY), same_timing)  # type: ignore[misc]
        yield _measure(
            name, f"latency at batch {batch}", medians, lambda value: f"{text.ms(value)} ms", better, timed=True
        )
    flows = [{} if engine is None else throughputs_per_s(run, engine) for run, engine in known]
    for key in sorted({key for one in flows for key in one}):
        rates = [one.get(key) for one in flows]
        better = judged(lambda i, seen=rates: larger(seen[0], seen[i], LATENCY), same_timing)  # type: ignore[misc]
        title = f"throughput at batch {key[0]}, {text.plural(key[1], 'stream')}"
        yield _measure(name, title, rates, lambda value: f"{text.number(value, 0)} images/s", better, timed=True)


def _measure(
    engine: str,
    name: str,
    values: Sequence[float | None],
    write: Callable[[float], str],
    better: tuple[Better | None, ...],
    instead: Sequence[str] = (),
    *,
    timed: bool = False,
) -> Measure:
    words = [text.NONE if value is None else write(value) for value in values]
    words = [own or word for own, word in zip(instead or [""] * len(words), words, strict=True)]
    return Measure(engine, name, tuple(values), tuple(words), better, timed)


def _lacking(
    names: Sequence[str], runs: Sequence[Run], measures: Sequence[Measure], index: int
) -> Iterator[tuple[str, str]]:
    """What the first run has and a later one has not: engines, engines that ran, and times of engines that it has."""
    name, base = names[index], names[0]
    own = {engine.name: engine for engine in runs[index].engines}
    gone = set()
    for engine in runs[0].engines:
        there = own.get(engine.name)
        if there is None:
            yield engine.name, f"{name} has no engine {engine.name}, which {base} has"
        elif engine.ran and not there.ran:
            reason = f" ({there.reason})" if there.reason else ""
            yield engine.name, f"{name} did not run {engine.name}{reason}, which {base} did"
        else:
            continue
        gone.add(engine.name)
    for one in measures:
        if one.timed and one.engine not in gone and one.values[0] is not None and one.values[index] is None:
            yield f"{one.engine}: {one.name}", f"{name} has no {one.name} of {one.engine}, which {base} has"
