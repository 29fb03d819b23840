"""Whether a TensorRT engine is for the runtime and the GPU of this machine, by its manifest alone.

The rules are those of "Engine Compatibility" in the manuals of TensorRT 10.16 and 11.1 and of TensorRT-RTX.
"""

from __future__ import annotations

import platform
import re

from rir_deploy.engines.manifest import Manifest
from rir_deploy.engines.tensorrt_flavour import Flavour
from rir_deploy.engines.tensorrt_gpu import Gpu

# What RTX builds for where no target is named.
_RTX_OLDEST = (8, 0)


def why_not_here(manifest: Manifest, flavour: Flavour, version: str, gpu: Gpu) -> str | None:
    """The reason, or None where nothing speaks against it."""
    if not _version_fits(manifest, version):
        return f"it was built with {flavour.label} {manifest.backend_version}, and {version} is here"
    here = gpu.label
    elsewhere = None if flavour.portable else _other_host(manifest)
    if elsewhere is not None:
        return elsewhere
    if flavour.portable and not manifest.targets and gpu.capability < _RTX_OLDEST:
        return f"it was built for GPUs from sm80, and this is {here}"
    if manifest.targets and not serves(manifest.targets, gpu):
        return f"it was built for {', '.join(manifest.targets)}, and this is {here}"
    if not flavour.portable and "hardware" not in manifest.options and manifest.gpu != here:
        return f"it was built on {manifest.gpu or 'an unknown GPU'}, and this is {here}"
    return None


def _other_host(manifest: Manifest) -> str | None:
    """A plan runs on the kind of system and processor that built it; a manifest that names none is not held to it."""
    for key, here in (("system", platform.system()), ("machine", platform.machine())):
        built = manifest.host.get(key, here)
        if built != here:
            return f"it was built on {built!r:.80}, and this is {here!r}"
    return None


def serves(targets: tuple[str, ...], gpu: Gpu) -> bool:
    """Whether a GPU is among the targets; "sm80+" means it and all later ones."""
    return any(target == gpu.target or (target.endswith("+") and _later(target, gpu)) for target in targets)


def _later(target: str, gpu: Gpu) -> bool:
    """ "sm80+" and "sm120+": the last digit is the minor version."""
    found = re.fullmatch(r"sm(\d+)(\d)\+", target)
    return found is not None and gpu.capability >= (int(found[1]), int(found[2]))


def _version_fits(manifest: Manifest, version: str) -> bool:
    """The very same, or for a version-compatible engine a later one of the same major, and 10 in 11."""
    if manifest.backend_version == version:
        return True
    if manifest.options.get("version_compatible") is not True:
        return False
    built, here = (tuple(map(int, re.findall(r"\d{1,9}", text))) for text in (manifest.backend_version, version))
    return bool(built) and here >= built and (here[0] == built[0] or (built[0], here[0]) == (10, 11))
