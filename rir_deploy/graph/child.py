"""Comparing two graphs in a process of its own: `python -m rir_deploy.graph.child FOLDER`.

A runtime may end its process on numbers that no user would give, such as a division of integers by zero. The folder
holds ``original.onnx`` and ``result.onnx``; ``answer.json`` and, once the original has run, ``original.done`` are
written into it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import onnx_ir as ir

from rir_deploy.file_system import scratch_folder
from rir_deploy.graph.compare import DifferenceError, Equivalence, compare_here
from rir_deploy.graph.evaluate import Graph, NotRunError

_SECONDS = 600


def compare_in_child(original: Graph, result: Graph, limit: float | None) -> Equivalence:
    """`compare_here`, in a new process.

    Raises:
        DifferenceError: they differ, or running the result alone ends the process.
        NotRunError: nothing runs the original, or running it ends the process.
    """
    with scratch_folder() as folder:
        for role, graph in (("original", original), ("result", result)):
            ir.save(graph.model, folder / f"{role}.onnx", external_data=f"{role}.data")
        command = [sys.executable, "-m", __name__, str(folder), json.dumps(limit)]
        try:
            done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise NotRunError(f"it does not end within {_SECONDS} s on random inputs") from error
        if not (folder / "answer.json").exists():
            if (folder / "original.done").exists():
                raise DifferenceError(f"running it ends the process (exit code {done.returncode})")
            raise NotRunError(f"running it on random inputs ends the process (exit code {done.returncode})")
        answer = json.loads((folder / "answer.json").read_text())
    if "difference" in answer:
        raise DifferenceError(answer["difference"])
    if "not_run" in answer:
        raise NotRunError(answer["not_run"])
    return Equivalence.from_dict(answer["equivalence"])


def _main(folder: Path, limit: float | None) -> None:
    original, result = (Graph(ir.load(path), path) for path in (folder / "original.onnx", folder / "result.onnx"))
    try:
        done = compare_here(original, result, limit, lambda: (folder / "original.done").touch())
        answer: dict[str, object] = {"equivalence": done.to_dict()}
    except DifferenceError as error:
        answer = {"difference": str(error)}
    except NotRunError as error:
        answer = {"not_run": str(error)}
    (folder / "answer.json").write_text(json.dumps(answer))


if __name__ == "__main__":
    _main(Path(sys.argv[1]), json.loads(sys.argv[2]))
