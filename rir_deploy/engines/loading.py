"""The one way from an engine's folder to a session: nothing is loaded that its manifest does not vouch for."""

from __future__ import annotations

from pathlib import Path

from rir_deploy.engines import get_backend
from rir_deploy.engines.base import Session
from rir_deploy.engines.gpu_options import GpuOptions
from rir_deploy.engines.manifest import Manifest, rebuild_hint
from rir_deploy.errors import BackendError, InputError


def load_engine(
    folder: Path,
    manifest: Manifest,
    threads: int | None = None,
    *,
    exclusive: bool = False,
    trust: bool = False,
    gpu: GpuOptions = GpuOptions(),
    streams: int | None = 1,
) -> Session:
    """Open the engine of a folder whose files `manifest.check_engine` has checked.

    ``trust`` opens it whatever the manifest says of version, GPU, tensors and batch sizes.

    Raises:
        InputError: the engine takes or gives other tensors than its manifest says, or another batch.
        BackendError: it is for another version of its runtime or another GPU, or these are not here.
    """
    backend = get_backend(manifest.backend)
    reason = None if trust else backend.mismatch(manifest)
    if reason is not None:
        raise BackendError(f"'{folder}' is not for this machine: {reason}; {rebuild_hint(manifest)}")
    session = backend.load(folder / manifest.engine.name, threads, exclusive=exclusive, gpu=gpu, streams=streams)
    difference = None if trust else _difference(session, manifest)
    if difference is not None:
        session.close()
        raise InputError(f"'{folder}' {difference} than its manifest says; {rebuild_hint(manifest)}")
    return session


def _difference(session: Session, manifest: Manifest) -> str | None:
    if session.input != manifest.input:
        return "takes another input"
    if tuple(session.outputs) != manifest.outputs:
        return "gives other outputs"
    if session.batches is not None and session.batches != (manifest.batch[0], manifest.batch[2]):
        return "takes other batch sizes"
    return None
