"""How many cases of the conformance suite each backend passes on this machine.

    python benchmarks/conformance.py -o benchmarks/results/conformance.json
    python benchmarks/conformance.py --table benchmarks/results/conformance.json     # the table in docs/reliability.md

A backend that does not run here is not counted as passing. Stand-ins are TensorRT's and ONNX Runtime's modules as their
versions offer them, on host memory: they test this project's code and not NVIDIA's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from rir_deploy.bench.machine import read_machine
from rir_deploy.engines import BACKENDS

ROOT = Path(__file__).parents[1]
SUITE = "tests/engines/test_conformance.py"


def measure(output: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", SUITE, "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if done.returncode not in (0, 1):
            sys.exit(done.stdout)
        cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    counts: dict[str, Counter[str]] = {}
    reasons: dict[str, str] = {}
    for case in cases:
        name = backend_of(str(case.get("name")))
        skipped = case.find("skipped")
        kind = "not here" if skipped is not None else "passed" if len(case) == 0 else "failed"
        counts.setdefault(name, Counter())[kind] += 1
        if skipped is not None:
            reasons[name] = str(skipped.get("message")).removeprefix(f"{name}: ")
    rows = [
        {
            "backend": name,
            **{kind: count[kind] for kind in ("passed", "failed", "not here")},
            "reason": reasons.get(name),
        }
        for name, count in counts.items()
    ]
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(
        json.dumps({"machine": read_machine().to_dict(), "rows": rows}, indent=1) + "\n", encoding="utf-8"
    )


def backend_of(case: str) -> str:
    """The backend in "test_x[stand-in of TensorRT 10.3.0-1]" or "test_x[openvino]"."""
    parameters = case.partition("[")[2].removesuffix("]")
    names = sorted((*BACKENDS, *_stand_ins()), key=len, reverse=True)
    return next(name for name in names if parameters == name or parameters.startswith(f"{name}-"))


def _stand_ins() -> list[str]:
    from tests.engines.test_conformance import STAND_INS

    return [f"stand-in of {name}" for name in STAND_INS]


def to_table(result: dict[str, Any]) -> str:
    lines = ["| backend | passed | failed | |", "| --- | --- | --- | --- |"]
    for row in result["rows"]:
        passed = "not run" if row["not here"] else row["passed"]
        lines.append(f"| {row['backend']} | {passed} | {row['failed']} | {row['reason'] or ''} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("-o", "--output", type=Path, help="JSON file to write")
    what.add_argument("--table", type=Path, help="JSON file to print as a table in Markdown")
    arguments = parser.parse_args()
    if arguments.table is not None:
        print(to_table(json.loads(arguments.table.read_text(encoding="utf-8"))))
    else:
        measure(arguments.output)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
