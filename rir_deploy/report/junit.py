"""JUnit XML, which CI systems read: a test case for each check of a run, failed with the reason, skipped where not run.

The form is the one that Jenkins, GitLab and GitHub's actions read (the schema of Jenkins' xUnit plugin, junit-10.xsd).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from rir_deploy.report import text
from rir_deploy.report.compare import Compared, Measure
from rir_deploy.report.plots_accuracy import interval
from rir_deploy.report.schema import Run
from rir_deploy.report.schema_bench import SYNCHRONOUS, Bench, BenchResult
from rir_deploy.report.schema_engine import Engine
from rir_deploy.report.tables_bench import key_of, labels, split


@dataclass(frozen=True)
class Case:
    """A check. ``failure`` says why it failed, ``skipped`` why it was not made; ``out`` are its figures."""

    name: str
    failure: str = ""
    skipped: str = ""
    out: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Suite:
    """Checks of one kind."""

    name: str
    cases: tuple[Case, ...]


def run_suites(run: Run) -> list[Suite]:
    """The export, every engine's parity and its accuracy, and what was timed."""
    parity = tuple(_parity(engine) for engine in run.engines)
    accuracy = tuple(_accuracies(run.engines))
    alone, flying = ((), ()) if run.bench is None else (_timings(run.bench, rows) for rows in split(run.bench))
    suites = (
        Suite("export", (_export(run),)),
        Suite("parity", parity),
        Suite("accuracy", accuracy),
        Suite("latency", alone),
        Suite("throughput", flying),
    )
    return [suite for suite in suites if suite.cases]


def compared_suites(compared: Compared) -> list[Suite]:
    """A suite for each later run: a failed case for each engine that it lacks, and a case for each figure that both
    have, failed where it is worse.
    """
    suites = []
    for index, name in enumerate(compared.names):
        if index:
            own = [one for one in compared.measures if one.values[0] is not None and one.values[index] is not None]
            lacking = (Case(engine, failure=sentence) for engine, sentence in compared.lacking(index).items())
            cases = (*lacking, *(_judged(one, index) for one in own))
            suites.append(Suite(f"{name} against {compared.names[0]}", cases))
    return suites


def _judged(one: Measure, index: int) -> Case:
    better, out = one.better[index], f"{one.words[index]} against {one.words[0]}"
    failure = f"worse: {out}" if better == "first" else ""
    return Case(f"{one.engine}: {one.name}", failure, "" if better else f"not judged: {out}", out)


def to_junit(suites: Sequence[Suite], created: str = "") -> str:
    """The suites as one XML document; ``created`` is an ISO 8601 time, whose zone the form has no place for."""
    cases = [case for suite in suites for case in suite.cases]
    root = ElementTree.Element("testsuites", {"name": "rir-deploy", **_counts(cases)})
    for suite in suites:
        when = {"timestamp": created[:19]} if created else {}
        element = ElementTree.SubElement(root, "testsuite", {"name": suite.name, **_counts(suite.cases), **when})
        for case in suite.cases:
            _write(element, suite.name, case)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _counts(cases: Iterable[Case]) -> dict[str, str]:
    found = list(cases)
    return {
        "tests": str(len(found)),
        "failures": str(sum(bool(case.failure) for case in found)),
        "errors": "0",
        "skipped": str(sum(bool(case.skipped) and not case.failure for case in found)),
        "time": f"{sum(case.seconds for case in found):.6f}",
    }


def _write(suite: ElementTree.Element, kind: str, case: Case) -> None:
    attributes = {"classname": f"rir-deploy.{kind}", "name": case.name, "time": f"{case.seconds:.6f}"}
    element = ElementTree.SubElement(suite, "testcase", attributes)
    if case.failure:
        ElementTree.SubElement(element, "failure", {"message": case.failure, "type": kind}).text = case.failure
    elif case.skipped:
        ElementTree.SubElement(element, "skipped", {"message": case.skipped})
    if case.out:
        ElementTree.SubElement(element, "system-out").text = case.out


def _export(run: Run) -> Case:
    check, seconds = run.export.check, run.export.seconds
    if check is None:
        return Case("trace against PyTorch", skipped="it was left out", seconds=seconds)
    out = f"{check.on}: agreement {text.percent(check.agreement)}, largest error {text.error(check.max_abs_error)}"
    return Case("trace against PyTorch", "" if check.passed else out, out=out, seconds=seconds)


def _parity(engine: Engine) -> Case:
    """A proof by simulation is none of the engine: it can fail, and is skipped where it does not."""
    verify, seconds = engine.verify, engine.seconds or 0.0
    if engine.failed:
        reasons = () if verify is None else verify.failures
        return Case(engine.name, "; ".join(reasons) or engine.reason or "it failed", seconds=seconds)
    if verify is None:
        return Case(engine.name, skipped=engine.reason or engine.status, seconds=seconds)
    out = (
        f"{text.plural(verify.images, 'image')}: agreement {text.percent(verify.agreement)}, "
        f"largest error {text.error(verify.max_abs_error)}, gate {verify.gate.precision}"
    )
    how = f"{engine.status}: {engine.reason}; passed by simulation" if verify.simulation else ""
    return Case(engine.name, skipped=how, out=out, seconds=seconds)


def _accuracies(engines: Iterable[Engine]) -> Iterator[Case]:
    for engine in engines:
        verify = engine.verify
        if verify is None or verify.drop is None or verify.top1_drop is None:
            continue
        drop, bound = verify.drop, verify.gate.max_top1_drop
        out = (
            f"top-1 {text.percent(verify.reference.top1)} → {text.percent(verify.candidate.top1)}: a drop of "
            f"{text.points(verify.top1_drop)} points, 95 % interval {interval(drop)}; McNemar's p "
            f"{drop.mcnemar_p:.2g}; {drop.verdict} at a margin of {drop.margin:g} points"
        )
        over = verify.top1_drop > bound
        failure = f"the top-1 drop of {text.points(verify.top1_drop)} points is over {text.points(bound)}"
        skipped = "by simulation: not the engine itself" if verify.simulation else ""
        yield Case(engine.name, failure if over else "", skipped, out)


def _timings(bench: Bench, results: Sequence[BenchResult]) -> tuple[Case, ...]:
    names = labels(bench)
    return tuple(_timing(f"{names[key_of(one)]} at batch {one.batch}", one) for one in results)


def _timing(name: str, result: BenchResult) -> Case:
    latency = result.latency_ms
    if latency is None:
        return Case(name, skipped=result.reason or result.status)
    out = f"median {text.ms(latency.median)} ms, p90 {text.ms(latency.p90)} ms, p99 {text.ms(latency.p99)} ms"
    if result.mode != SYNCHRONOUS:
        out = f"{text.number(result.throughput_per_s, 0)} images/s; a call under that load: {out}"
    return Case(name, out="; ".join([out, *result.warnings]), seconds=latency.median / 1e3)
