"""JUnit XML: its form, by the rules of the schema that CI systems read, and what is failed, skipped and passed."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any
from xml.dom import minidom

import pytest

from rir_deploy.report.compare import compare_runs
from rir_deploy.report.junit import Case, Suite, compared_suites, run_suites, to_junit
from rir_deploy.report.schema import read_run
from tests.conftest import Runner
from tests.report.sample import sample

# junit-10.xsd of Jenkins' xUnit plugin: for each element the attributes it must have, those it may, and its children.
RULES: dict[str, tuple[set[str], set[str], set[str]]] = {
    "testsuites": (set(), {"name", "time", "tests", "failures", "errors", "skipped"}, {"testsuite"}),
    "testsuite": (
        {"name", "tests"},
        {"failures", "errors", "skipped", "time", "timestamp", "hostname", "id", "package"},
        {"testcase", "properties", "system-out", "system-err"},
    ),
    "testcase": (
        {"name"},
        {"classname", "time", "status", "assertions", "class", "file", "line"},
        {"skipped", "error", "failure", "system-out", "system-err"},
    ),
    "failure": (set(), {"type", "message"}, set()),
    "skipped": (set(), {"type", "message"}, set()),
    "system-out": (set(), set(), set()),
}


def check(element: Any) -> None:
    needed, allowed, children = RULES[element.tagName]
    attributes = set(element.attributes.keys())
    assert needed <= attributes <= needed | allowed, element.tagName
    for name in ("tests", "failures", "errors", "skipped"):
        assert name not in attributes or int(element.getAttribute(name)) >= 0
    assert "time" not in attributes or float(element.getAttribute("time")) >= 0.0
    for child in element.childNodes:
        if child.nodeType == child.ELEMENT_NODE:
            assert child.tagName in children, child.tagName
            check(child)
    if element.tagName in ("testsuite", "testsuites"):
        cases = element.getElementsByTagName("testcase")
        assert int(element.getAttribute("tests")) == len(cases)
        for kind, name in (("failure", "failures"), ("skipped", "skipped")):
            assert int(element.getAttribute(name)) == len(element.getElementsByTagName(kind))


def parse(xml: str) -> Any:
    root = minidom.parseString(xml.encode("utf-8")).documentElement
    check(root)
    return root


def cases(run: dict[str, Any]) -> dict[str, dict[str, str]]:
    """By suite and name: passed, or why not."""
    root = parse(to_junit(run_suites(read_run(run)), run["created"]))
    found: dict[str, dict[str, str]] = {}
    for suite in root.getElementsByTagName("testsuite"):
        rows = found.setdefault(suite.getAttribute("name"), {})
        for case in suite.getElementsByTagName("testcase"):
            whys = [
                f"{kind}: {one.getAttribute('message')}"
                for kind in ("failure", "skipped")
                for one in case.getElementsByTagName(kind)
            ]
            rows[case.getAttribute("name")] = whys[0] if whys else "passed"
    return found


def test_a_case_for_every_check() -> None:
    found = cases(sample())
    assert found == {
        "export": {"trace against PyTorch": "passed"},
        "parity": {
            "openvino-fp32": "passed",
            "openvino-int8": "passed",
            "tensorrt-rtx-fp16": "skipped: built, not run: no GPU; passed by simulation",
        },
        "accuracy": {
            "openvino-fp32": "passed",
            "openvino-int8": "passed",
            "tensorrt-rtx-fp16": "skipped: by simulation: not the engine itself",
        },
        "latency": {
            "PyTorch eager at batch 1": "passed",
            "openvino-int8 at batch 1": "passed",
            "tensorrt-rtx-fp16 at batch 1": "skipped: no NVIDIA driver",
            "openvino-int8-unfolded at batch 1": "passed",
            "PyTorch eager at batch 8": "passed",
            "openvino-int8 at batch 8": "passed",
            "tensorrt-rtx-fp16 at batch 8": "skipped: no NVIDIA driver",
        },
    }


def test_throughput_is_a_suite_of_its_own() -> None:
    run = sample()
    row = run["bench"]["results"][1] | {"mode": "pipelined", "streams": 2, "throughput_per_s": 70123.4}
    run["bench"]["results"].append(row)
    assert cases(run)["throughput"] == {"openvino-int8 (pipelined, 2 streams) at batch 1": "passed"}
    assert cases(run)["latency"] == cases(sample())["latency"]
    xml = to_junit(run_suites(read_run(run)), run["created"])
    assert "70,123 images/s; a call under that load: median 0.021 ms" in xml


def test_what_failed_says_why() -> None:
    run = sample()
    run["export"]["check"]["passed"] = False
    run["engines"][1]["verify"] |= {"passed": False, "failures": ["agreement 90 % is under 97 %"], "top1_drop": 1.03}
    run["engines"][2]["verify"] |= {"passed": False, "failures": ["NaN <&\"']]>"]}
    found = cases(run)
    assert found["export"]["trace against PyTorch"].startswith("failure: 100 images of digits:test: agreement 100.00 %")
    assert found["parity"]["openvino-int8"] == "failure: agreement 90 % is under 97 %"
    assert found["parity"]["tensorrt-rtx-fp16"] == "failure: NaN <&\"']]>"
    assert found["accuracy"]["openvino-int8"] == "failure: the top-1 drop of 1.03 points is over 1.02"


def test_times_are_those_of_the_work() -> None:
    run = sample()
    root = parse(to_junit(run_suites(read_run(run)), run["created"]))
    times = {case.getAttribute("name"): case.getAttribute("time") for case in root.getElementsByTagName("testcase")}
    assert times["trace against PyTorch"] == "7.410000"
    assert times["openvino-int8 at batch 1"] == "0.000021"
    suite = root.getElementsByTagName("testsuite")[0]
    assert suite.getAttribute("timestamp") == "2026-02-03T04:05:06"


def test_any_name_is_text() -> None:
    words = "<b>\"'&]]>\u6f22 \ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16")
    root = parse(to_junit([Suite(words, (Case(words, failure=words, out=words),))]))
    case = root.getElementsByTagName("testcase")[0]
    assert case.getAttribute("name") == words
    assert case.getElementsByTagName("failure")[0].firstChild.data == words
    assert case.getElementsByTagName("system-out")[0].firstChild.data == words


def test_a_comparison_is_a_suite_a_run() -> None:
    other = copy.deepcopy(sample())
    other["engines"][1]["size_bytes"] = 99999
    compared = compare_runs([("old", read_run(sample())), ("new", read_run(other))])
    root = parse(to_junit(compared_suites(compared)))
    (suite,) = root.getElementsByTagName("testsuite")
    assert suite.getAttribute("name") == "new against old"
    (failure,) = root.getElementsByTagName("failure")
    assert failure.parentNode.getAttribute("name") == "openvino-int8: size"
    assert failure.getAttribute("message") == "worse: 100.0 kB against 61.2 kB"


def test_the_command_writes_it_alone(tmp_path: Path, rir: Runner) -> None:
    (tmp_path / "run.json").write_text(json.dumps(sample()))
    ran = rir("report", tmp_path, "--junit", tmp_path / "checks.xml", "--markdown", tmp_path / "run.md")
    assert ran.code == 0, ran.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checks.xml", "run.json", "run.md"]
    parse((tmp_path / "checks.xml").read_text(encoding="utf-8"))
    ran = rir("report", tmp_path, "--junit", tmp_path / "checks.xml")
    assert ran.code == 2
    assert "--force" in ran.err
    ran = rir("report", tmp_path, "--junit", tmp_path / "one", "--markdown", tmp_path / "one")
    assert ran.code == 2
    assert "name one file" in ran.err
    assert not (tmp_path / "one").exists()


def test_no_zero_counts_are_lost() -> None:
    with pytest.raises(KeyError):
        check(minidom.parseString("<testsuite name='x' tests='0'><b/></testsuite>").documentElement.firstChild)
