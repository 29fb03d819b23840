"""What reaches a terminal: plain text, whatever the files say; and what runtimes say only where it was asked for."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from rir_deploy.cli import COMMANDS
from rir_deploy.plain_text import printable
from rir_deploy.verbosity import LOGGER, is_verbose
from tests.conftest import Bundled, Ran, Runner

# An ANSI sequence, a C1 control character, two that turn text round, a line that looks like ours, rich's and HTML's
# markup, and DEL, which JSON leaves as it is.
HOSTILE = "a\x1b[31mR\x9b2J\u202eX\u2066\n\rrir-deploy: error: forged\x07[red][/]|<b>\x7f\u2028"
NAME = HOSTILE.replace("/", "_")  # of a folder


def hostile_model(path: Path, output: str = "y" + HOSTILE) -> None:
    """Two convolutions, an addition and a classifier; every name in it is hostile, the ``output`` as it is given."""
    rng = np.random.default_rng(0)
    shapes = {"w": (8, 3, 3, 3), "v": (8, 8, 3, 3), "g": (8, 4), "unused": (3,)}
    weights = [
        numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name + HOSTILE)
        for name, shape in shapes.items()
    ]
    chain = [
        ("Conv", ["x", "w" + HOSTILE], "a", {"pads": [1] * 4}),
        ("Relu", ["a" + HOSTILE], "b", {}),
        ("Conv", ["b" + HOSTILE, "v" + HOSTILE], "c", {"pads": [1] * 4}),
        ("Add", ["c" + HOSTILE, "b" + HOSTILE], "d", {}),
        ("Sigmoid", ["d" + HOSTILE], "d2", {}),
        ("GlobalAveragePool", ["d2" + HOSTILE], "e", {}),
        ("Flatten", ["e" + HOSTILE], "f", {}),
        ("MatMul", ["f" + HOSTILE, "g" + HOSTILE], output.removesuffix(HOSTILE), {}),
    ]
    nodes = [
        helper.make_node(kind, inputs, [output + HOSTILE], name=f"{index}{HOSTILE}", **attributes)
        for index, (kind, inputs, output, attributes) in enumerate(chain)
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", ["N", 3, 16, 16]), (output, ["N", 4]))
    ]
    nodes[-1].output[:] = [output]
    graph = helper.make_graph(nodes, HOSTILE, ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, images and a recipe whose names are hostile, and what is made of them."""
    folder = tmp_path_factory.mktemp("hostile")
    hostile_model(folder / "m.onnx")
    hostile_model(folder / "n.onnx", "y")  # an engine's outputs have plain names
    rng = np.random.default_rng(1)
    for index in range(40):
        home = folder / "images" / f"{index % 4}{NAME}"
        home.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(home / f"{index}{NAME}.png")
    classes = json.dumps([f"{index}{NAME}" for index in range(4)]).replace("\x7f", "\\u007f")
    (folder / "r.toml").write_text(
        f'classes = {classes}\n[preprocess]\nsize = [16, 16]\nmode = "RGB"\nmean = [0.5, 0.5, 0.5]\n'
        'std = [0.25, 0.25, 0.25]\nresize = "none"\n[calibration]\nsamples = 32\n'
    )
    return folder


LINES = (
    "inspect m.onnx",
    "fold m.onnx -o f.onnx",
    "quantize m.onnx -o q.onnx --data images --recipe r.toml --save-ranges ranges.json",
    "inspect q.onnx",
    "inspect ranges.json",
    "build-engine m.onnx -o e --backend onnxruntime",
    "build-engine n.onnx -o e --backend onnxruntime",
    "inspect e",
    "verify m.onnx e --data images --recipe r.toml",
    "verify m.onnx q.onnx --data images --recipe r.toml --layers",
    "verify m.onnx images --data images",
    "bench e m.onnx --duration 0 --rounds 1 --warmup 0 --iterations 1",
    "export m.onnx -o x.onnx",
    "train r.toml -o t --data images",
    "inspect images",
)


def is_plain(ran: Ran) -> None:
    text = ran.out + ran.err
    assert [one for one in text if not one.isprintable() and one != "\n"] == []
    assert "\nrir-deploy: error: forged" not in text
    assert ran.code in (0, 2, 3, 4, 5), ran.err


def test_no_command_brings_control_characters_to_the_terminal(
    folder: Path, rir: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    shown = 0
    for line in LINES:
        for flag in ((), ("--json",)):
            outputs = [*flag, *(["--force"] if "-o" in line and "train" not in line else [])]
            ran = rir(*line.split(), *outputs)
            is_plain(ran)
            shown += "\\x1b[31mR" in ran.out + ran.err
    assert shown >= 8  # they were there to be shown


@pytest.mark.parametrize("text", ["\x1b[2J", "a\nb", "\x85", "\u200b", "\u202e", "\u2066", "\ud800", "\u2028", "\0"])
def test_plain_text(text: str) -> None:
    found = printable(f"é {text} 漢")
    assert found.isprintable()
    assert found.encode().startswith("é ".encode())
    assert found.encode("ascii", "backslashreplace").decode() == ascii(f"é {text} 漢")[1:-1]


def test_reports_of_a_hostile_run(bundled: Bundled, rir: Runner, tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    run = tmp_path / "run"
    shutil.copytree(bundled.run, run)
    record = json.loads((run / "run.json").read_text())
    for engine in record["engines"]:
        engine["reason"] = engine["name"] = engine["name"] + HOSTILE
    record["recipe"] = record["data"] = record["machine"]["cpu"] = HOSTILE
    (run / "run.json").write_text(json.dumps(record))
    outputs = [tmp_path / name for name in ("r.html", "r.md", "r.xml")]
    ran = rir("report", run, "-o", outputs[0], "--markdown", outputs[1], "--junit", outputs[2], "--terminal")
    assert ran.code == 0, ran.err
    is_plain(ran)
    for path in outputs:
        text = path.read_text(encoding="utf-8")
        assert [one for one in text if not one.isprintable() and one not in "\n\r\t\u202f\u2009\xa0"] == []
        assert path.suffix != ".md" or "\nrir-deploy: error: forged" not in text
    ElementTree.parse(outputs[2])
    assert "<b>" not in outputs[0].read_text()
    assert "forged" in outputs[1].read_text()
    table = next(line for line in outputs[1].read_text().splitlines() if line.startswith("|") and "forged" in line)
    assert table.endswith("|")  # the name did not end the row


def test_every_command_has_the_option(rir: Runner) -> None:
    for name in COMMANDS:
        assert "-v, --verbose" in rir(name, "--help").out


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("asked", [True, False])
def test_runtimes_speak_where_they_are_asked_to(asked: bool, before: bool, folder: Path) -> None:
    """ONNX Runtime, which warns of the weight that nothing reads in native code."""
    flag = ["-v"] if asked else []
    line = ["verify", "m.onnx", "m.onnx", "--data", "images", "--recipe", "r.toml", "--json"]
    command = [sys.executable, "-m", "rir_deploy", *(flag if before else []), *line, *([] if before else flag)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    json.loads(done.stdout)
    is_plain(Ran(done.returncode, done.stdout, done.stderr))
    assert (done.stderr != "") == asked
    if asked:
        assert all(line.startswith("runtime: ") for line in done.stderr.splitlines())
        assert "unused" in done.stderr


@pytest.mark.parametrize("asked", [True, False])
def test_libraries_speak_where_they_are_asked_to(
    asked: bool, folder: Path, rir: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python's warnings and logs; errors are always shown."""

    def speak(*_: object) -> dict[str, object]:
        warnings.warn(f"a warning {HOSTILE}", UserWarning, stacklevel=1)
        logging.getLogger("library").warning("a log %s", HOSTILE)
        logging.getLogger("library").error("an error %s", HOSTILE)
        return {"verbose": is_verbose()}

    monkeypatch.setattr("rir_deploy.pipeline.inspect.inspect_file", speak)
    monkeypatch.setattr(sys, "warnoptions", [])
    before = warnings.filters[:], logging.root.handlers[:], logging.root.manager.disable, os.fstat(2).st_ino
    ran = rir("inspect", folder / "m.onnx", "--json", *(["-v"] if asked else []))
    assert ran.json == {"verbose": asked}
    is_plain(ran)
    assert ("a warning a\\x1b" in ran.err) == ("a log a\\x1b" in ran.err) == asked
    assert "error: library: an error a\\x1b" in ran.err
    after = warnings.filters[:], logging.root.handlers[:], logging.root.manager.disable, os.fstat(2).st_ino
    assert after == before
    assert not is_verbose()
    assert logging.getLogger(LOGGER).level == logging.NOTSET
