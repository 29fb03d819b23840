"""The parts of a record on where losses enter, written by hand like the rest of it."""

from __future__ import annotations

from typing import Any

# One grey pixel.
PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="


def flipped(verify: dict[str, Any]) -> dict[str, Any]:
    """Three images flipped, two of which are shown; one of them has no picture."""
    return {**verify, "flipped": 3, "flips": [flip(41, "five", 2.347, 0.081), flip(97, None, 0.512, None)]}


def flip(image: int, candidate: str | None, reference_margin: float, candidate_margin: float | None) -> dict[str, Any]:
    return {
        "image": image,
        "name": f"digits/{image}",
        "label": "eight",
        "reference": "three",
        "candidate": candidate,
        "reference_margin": reference_margin,
        "candidate_margin": candidate_margin,
    }


def stages() -> dict[str, Any]:
    """The checkpoint, its trace, the fold and one engine, whose gate failed."""
    return {
        "images": 359,
        "rows": [
            _stage("PyTorch", None, 0.9917, None, None),
            _stage("traced ONNX", "PyTorch", 0.9917, _against(0.0, 1.91e-6, 131.7), _against(0.0, 1.91e-6, 131.7)),
            _stage("folded ONNX", "traced ONNX", 0.9889, _against(0.28, 0.0217, 47.3), _against(0.28, 0.0219, 46.9)),
            {
                **_stage("rtx-fp16", "folded ONNX", 0.9861, _against(0.56, None, None), _against(0.28, None, None)),
                "simulation": True,
            },
        ],
    }


def _stage(name: str, made_from: str | None, top1: float, whole: Any, here: Any) -> dict[str, Any]:
    return {
        "name": name,
        "made_from": made_from,
        "precision": "fp32",
        "runs_on": "runtime 7.8.9",
        "simulation": False,
        "top1": top1,
        "against_pytorch": whole,
        "against_parent": here,
    }


def _against(drop: float, error: float | None, sqnr_db: float | None) -> dict[str, Any]:
    return {
        "passed": error is not None,
        "failures": [] if error is not None else ["the outputs hold NaN"],
        "agreement": 0.9944,
        "top1_drop": drop,
        "max_abs_error": error,
        "sqnr_db": sqnr_db,
    }


def layers() -> list[dict[str, Any]]:
    """Two graphs: one that is close all the way, one whose second layer is wrong by its own doing."""
    close = [_error("stem/Conv", "stem", 133.1, "ok"), _error("mid/Conv", "layers.0", None, "ok")]
    wrong = [
        _error("stem/Conv", "stem", 46.2, "ok"),
        _error("mid/Conv", "layers.0", 6.02, "diverges"),
        _error("head/Gemm", None, 5.5, "follows"),
    ]
    return [
        {"graph": "fp32", "images": 31, "note": "", "rows": close},
        {"graph": "int8-cpu", "images": 31, "note": "", "rows": wrong},
    ]


def _error(node: str, block: str | None, sqnr_db: float | None, verdict: str) -> dict[str, Any]:
    return {
        "node": node,
        "block": block,
        "stream": "residual" if block else None,
        "sqnr_db": sqnr_db,
        "max_abs_error": 0.0 if sqnr_db is None else 0.0123,
        "own_sqnr_db": sqnr_db,
        "own_error": 0.0 if sqnr_db is None else 7.25 if verdict == "diverges" else 0.125,
        "verdict": verdict,
    }


def block() -> dict[str, Any]:
    """A block of two streams, and the convolution that it becomes."""
    before = [
        _node("r", "input", "r", None),
        _node("t", "input", "t", None),
        _node("rr", "Conv", "16 → 16, 3×3", "residual", "r"),
        _node("tr", "Conv", "16 → 16, 3×3", "residual", "t"),
        _node("tt", "Conv", "16 → 16, 3×3", "transient", "t"),
        _node("sum", "Add", "", "residual", "rr", "tr"),
        _node("shortcut", "Add", "", "residual", "sum", "r"),
        _node("norm", "BatchNormalization", "", "residual", "shortcut"),
        _node("norm out", "output", "norm", None, "norm"),
        _node("tt out", "output", "tt", None, "tt"),
    ]
    after = [
        _node("r+t", "input", "r+t", None),
        _node("joined", "Conv", "32 → 32, 3×3", "residual+transient", "r+t"),
        _node("joined out", "output", "joined", None, "joined"),
    ]
    return {"block": "layers.0", "before": before, "after": after}


def _node(name: str, op: str, detail: str, stream: str | None, *inputs: str) -> dict[str, Any]:
    return {"name": name, "op": op, "detail": detail, "stream": stream, "inputs": list(inputs)}
