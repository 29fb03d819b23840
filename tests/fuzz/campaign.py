"""Mutants by the hundred: made, tried, judged and counted.

What may come of one: exit code 5 (or one that its target names) with one printable sentence and nothing written; or
success, and then a result that is right by other means. Never: a crash, a hang, an unexpected error, code that runs, a
file outside of the output, a file left behind.
"""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fuzz.pool import START_SECONDS, Worker, WorkerDiedError
from tests.fuzz.right import RIGHT
from tests.fuzz.seeds import Seeds
from tests.fuzz.targets import TARGETS, Case, commands

MAX_SECONDS = 10.0
# Checks are not the tool's: a mutant that makes onnx's evaluator slow is not comparable.
CHECK_SECONDS = 30.0


@dataclass
class Tally:
    """What has become of the mutants so far; ``outcomes`` by target, ``mutations`` by what was done."""

    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    mutations: dict[str, Counter[str]] = field(default_factory=dict)
    failures: list[dict[str, Any]] = field(default_factory=list)
    longest_seconds: float = 0.0

    @property
    def mutants(self) -> int:
        return sum(sum(counts.values()) for counts in self.outcomes.values())

    def add(self, target: str, case: Case, seed: int, outcome: str, problems: list[str]) -> None:
        self.outcomes.setdefault(target, Counter())[outcome] += 1
        self.mutations.setdefault(target, Counter())[case.mutation] += 1
        if problems:
            self.failures.append({"target": target, "seed": seed, "mutation": case.mutation, "problems": problems})


def chosen(count: int, seed: int) -> Iterator[tuple[str, int]]:
    """``count`` targets by their shares, at least one of each, each with a seed of its own."""
    for place, (name, (_, share)) in enumerate(TARGETS.items()):
        for number in range(max(1, round(count * share))):
            yield name, (seed * 1000 + place) * 1_000_000 + number


class Campaign:
    """Tries mutants of ``seeds`` in ``root``, a folder that holds nothing else."""

    def __init__(self, root: Path, seeds: Seeds, worker: Worker) -> None:
        self.root, self.seeds, self.worker, self.tally = root.resolve(), seeds, worker, Tally()
        self._take_the_seeds()
        self._expected = self._outside()

    def _take_the_seeds(self) -> None:
        """Each is taken as it is. Runtimes make caches of their own, in the temporary and the home folder: now."""
        for place, command in enumerate(commands(self.seeds, self.root / "cases" / "whole")):
            answer = self.worker.run(command, START_SECONDS)
            assert answer["code"] in (0, 3), (place, command, answer["err"])
        shutil.rmtree(self.root / "cases")

    def try_one(self, target: str, seed: int) -> list[str]:
        """Make a mutant and try it; what was wrong with its outcome. Its folder stays where something was."""
        folder = self.root / "cases" / str(seed)
        folder.mkdir(parents=True)
        case = TARGETS[target][0](random.Random(seed), self.seeds, folder)
        before = _listed(folder)
        self.worker.start()
        outcome, problems = self._outcome(case)
        new = _listed(folder) - before
        if outcome.startswith("taken") and case.output is not None:
            new = {name for name in new if name != case.output and not name.startswith(f"{case.output}/")}
        problems += [f"left behind: {name}" for name in sorted(new)]
        if (outside := self._outside()) != self._expected:
            problems.append(f"outside: {sorted(outside ^ self._expected)}")
            self._expected = outside
        self.tally.add(target, case, seed, outcome, problems)
        if not problems:
            shutil.rmtree(folder)
        return problems

    def _outcome(self, case: Case) -> tuple[str, list[str]]:
        """A word for it, and what is wrong with it."""
        started = os.times().elapsed
        try:
            answer = self.worker.run(case.arguments, MAX_SECONDS)
        except WorkerDiedError as died:
            return "died", [str(died), _command(case)]
        self.tally.longest_seconds = max(self.tally.longest_seconds, os.times().elapsed - started)
        problems = [f"saw: {what}" for what in answer["seen"]]
        code = answer["code"]
        if code == 0 or (code == 3 and case.check == "verified"):
            verdict = self._verdict(case, answer)
            if verdict == RIGHT or verdict.startswith("incomparable"):
                word = verdict.partition(":")[0]
                return ("taken" if code == 0 else "gate failed") if word == RIGHT else f"taken, {word}", problems
            return "wrong", [*problems, verdict, _command(case)]
        if code not in (5, *case.codes):
            problems.append(f"exit code {code}: {answer['err'].strip()[-600:]}")
        if code != 3:
            problems += _sentence(answer["err"])
        if problems:
            problems.append(_command(case))
        return f"exit code {code}", problems

    def _verdict(self, case: Case, answer: dict[str, Any]) -> str:
        try:
            return self.worker.check(case.check, {**case.facts, "out": answer["out"]}, CHECK_SECONDS)
        except WorkerDiedError as died:
            return f"incomparable: {died}"

    def _outside(self) -> set[str]:
        """All that lies in the root beside the mutants' own folders and the seeds."""
        return {
            str((Path(folder) / name).relative_to(self.root))
            for part in ("tmp", "home", "here", self.seeds.folder.name)
            for folder, folders, files in os.walk(self.root / part)
            for name in (*folders, *files)
        }


def _sentence(err: str) -> list[str]:
    lines = [line for line in err.splitlines() if not line.startswith("rir-deploy: warning: ")]
    if len(lines) != 1 or not lines[0].startswith("rir-deploy: error: "):
        return [f"not one sentence: {err.strip()[-300:]!r}"]
    if not lines[0].isprintable():
        return [f"not printable: {lines[0]!r:.300}"]
    return [] if len(lines[0]) < 1200 else [f"a sentence of {len(lines[0])} characters: {lines[0]:.200}"]


def _command(case: Case) -> str:
    return " ".join(str(argument) for argument in case.arguments)


def _listed(folder: Path) -> set[str]:
    return {str((Path(top) / name).relative_to(folder)) for top, _, files in os.walk(folder) for name in files}
