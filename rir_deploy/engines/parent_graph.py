"""The graph in an engine's folder, held to the manifest before anything is loaded by it. Its weights are not read."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path

import onnx
import onnx_ir as ir

from rir_deploy.engines.graph import graph_precision
from rir_deploy.errors import InputError
from rir_deploy.onnx_file import external_locations, native_code, read_provenance


def contradiction(path: Path, names: Collection[str], precision: str) -> str | None:
    """Why a graph is not the one of a manifest that vouches for the files ``names``; None where nothing says so.

    What an engine is held to goes by the precision, so that must be the graph's own.
    """
    logging.disable(logging.WARNING)  # onnx-ir logs what it mends in a malformed graph; the runtime refuses that later
    try:
        proto = onnx.load(path, load_external_data=False)
        strays = external_locations(proto) - set(names)
        if strays:
            return f"keeps weights in {min(strays)!r:.200}, which its manifest does not vouch for"
        native = native_code(proto)
        if native is not None:
            return f"is no plain graph: {native}"
        model = ir.from_proto(proto)
        provenance, found = read_provenance(model), graph_precision(model)
    except InputError as error:
        return f"says where it comes from in words that are none ({error})"
    except MemoryError:
        raise
    except Exception:  # protobuf, onnx and onnx-ir raise nearly every built-in error on malformed models
        return "is not a readable ONNX file"
    finally:
        logging.disable(logging.NOTSET)
    if provenance is not None and provenance.precision != precision:
        found = provenance.precision
    elif found == "fp32" and not any(node.op_type == "Conv" for node in model.graph):
        found = precision  # FP16 is told by convolutions: where there are none, nothing contradicts
    return None if found == precision else f"is {found!r:.80}, and its manifest says {precision!r:.80}"
