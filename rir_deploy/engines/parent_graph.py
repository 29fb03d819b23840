"""The graph in an engine's folder, held to the manifest before anything is loaded by it. Its weights are not read."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from rir_deploy.onnx_file import external_locations


def contradiction(path: Path, names: Collection[str]) -> str | None:
    """Why a graph is not the one of a manifest that vouches for the files ``names``; None where nothing says so."""
    try:
        proto = onnx.load(path, load_external_data=False)
    except (DecodeError, OSError, ValueError):
        return "is not a readable ONNX file"
    strays = external_locations(proto) - set(names)
    if strays:
        return f"keeps weights in {min(strays)!r:.200}, which its manifest does not vouch for"
    return None
