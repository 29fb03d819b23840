"""The builder's settings, by one path for all versions: what one lacks is refused, never passed over."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rir_deploy.artifacts import atomic_file
from rir_deploy.engines.base import BatchRange, TensorSpec, fit_batch
from rir_deploy.engines.tensorrt_api import TensorRt
from rir_deploy.engines.tensorrt_options import TensorRtOptions
from rir_deploy.errors import BackendError, InputError, UsageError

if TYPE_CHECKING:
    import tensorrt as trt

_MIB = 1 << 20
_LEVELS = {"ampere-plus": "AMPERE_PLUS", "same-capability": "SAME_COMPUTE_CAPABILITY"}


def configure(module: TensorRt, config: trt.IBuilderConfig, options: TensorRtOptions, label: str) -> None:
    """Set what the options ask for, and what every build has.

    Precision is in the graph, and no precision flag of the builder is touched but one: TF32 is switched off, which is
    on by default and would compute an FP32 graph with 10-bit mantissas.

    Raises:
        UsageError: this version lacks what is asked for, or answers with another value than it was given.
        InputError: the timing cache is none.
    """
    config.profiling_verbosity = module.ProfilingVerbosity.DETAILED  # or the inspector knows no precisions
    if hasattr(module.BuilderFlag, "TF32"):
        config.clear_flag(module.BuilderFlag.TF32)
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, options.workspace_mib * _MIB)
    if options.builder_level is not None:
        config.builder_optimization_level = options.builder_level
    if options.hardware is not None:
        _set_hardware(module, config, options.hardware, label)
    for name in _flags(options):
        _set_flag(module, config, name, label)
    if options.timing_cache is not None:
        _read_timing_cache(config, options.timing_cache, label)


def add_profile(builder: trt.Builder, config: trt.IBuilderConfig, spec: TensorSpec, batch: BatchRange) -> None:
    """One optimisation profile from the smallest to the largest batch; none for a model of one fixed batch size.

    Raises:
        InputError: the image size is dynamic, or the fixed batch is outside of the range.
        BackendError: TensorRT does not take the profile.
    """
    if any(size is None for size in spec.shape[1:]):
        raise InputError(f"the input '{spec.name}' has a dynamic image size; export the model with a fixed one")
    batch = fit_batch(spec, batch)
    if spec.shape[0] is not None:
        return
    profile = builder.create_optimization_profile()
    low, opt, high = (_dims(size, spec) for size in (batch.min, batch.opt, batch.max))
    profile.set_shape(spec.name, low, opt, high)
    if config.add_optimization_profile(profile) < 0:
        raise BackendError(
            f"TensorRT takes no batches of {batch.min} to {batch.max} of '{spec.name}' {spec.shape[1:]}; "
            "give others with --batch"
        )


def _dims(batch: int, spec: TensorSpec) -> Any:
    """TensorRT makes its Dims of a tuple; its stubs do not know."""
    return (batch, *spec.shape[1:])


def write_timing_cache(config: trt.IBuilderConfig, path: Path) -> None:
    """Keep what the build has timed. One that was there is replaced: it was read before."""
    cache = config.get_timing_cache()
    if cache is not None:
        with atomic_file(path, force=True) as temporary:
            temporary.write_bytes(bytes(memoryview(cache.serialize())))


def _flags(options: TensorRtOptions) -> list[str]:
    """Stripped weights go with REFIT_IDENTICAL: they come back as they were, and nothing is left out of fusions."""
    names = {
        "VERSION_COMPATIBLE": options.version_compatible,
        "REFIT": options.refit,
        "STRIP_PLAN": options.strip_weights,
        "REFIT_IDENTICAL": options.strip_weights and not options.refit,
    }
    return [name for name, wanted in names.items() if wanted]


def _set_flag(module: TensorRt, config: trt.IBuilderConfig, name: str, label: str) -> None:
    flag = getattr(module.BuilderFlag, name, None)
    if flag is not None:
        config.set_flag(flag)
    if flag is None or not config.get_flag(flag):
        option = name.lower().replace("_", " ")
        raise UsageError(f"{label} does not build with '{option}'; leave the option out")


def _set_hardware(module: TensorRt, config: trt.IBuilderConfig, hardware: str, label: str) -> None:
    level = getattr(module.HardwareCompatibilityLevel, _LEVELS[hardware], None)
    if level is not None:
        config.hardware_compatibility_level = level
    if level is None or config.hardware_compatibility_level != level:
        raise UsageError(f"{label} does not build for '{hardware}'; leave --hardware-compatible out")


def _read_timing_cache(config: trt.IBuilderConfig, path: Path, label: str) -> None:
    try:
        known = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise UsageError(f"cannot read the timing cache '{path}': {error.strerror}; name another file") from error
    cache: trt.ITimingCache | None = config.create_timing_cache(known)
    if cache is None or not config.set_timing_cache(cache, False):
        raise InputError(
            f"'{path}' is no timing cache of {label} on this GPU; delete it or name another file with --timing-cache"
        )
