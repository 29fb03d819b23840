"""Record what TensorRT's Python modules offer, from the modules themselves: tests/engines/tensorrt_surface.json.

    python tests/engines/record_surface.py 10.3.0=BINDINGS.so... -o tests/engines/tensorrt_surface.json

A ``BINDINGS.so`` is the extension in one of NVIDIA's bindings packages ("tensorrt_bindings/tensorrt.so" of
tensorrt-cu12-bindings and tensorrt-cu13-bindings, "tensorrt_rtx_bindings/tensorrt_rtx.so"). It is imported without
TensorRT: the nine C functions that it takes from TensorRT's libraries are stood in for by empty ones, made with the
system's C compiler. Nothing but the names of its classes and their members is read.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

CLASSES = (
    "Builder BuilderFlag ComputeCapability CudaGraphStrategy EngineInspector HardwareCompatibilityLevel IBuilderConfig "
    "ICudaEngine IExecutionContext IHostMemory IOptimizationProfile IProgressMonitor IRuntimeCache "
    "IRuntimeConfig ITimingCache LayerInformationFormat MemoryPoolType NetworkDefinitionCreationFlag OnnxParser "
    "OnnxParserRefitter ParserError ProfilingVerbosity Refitter Runtime TensorIOMode"
)
SYMBOLS = (
    "createInferBuilder_INTERNAL createInferRefitter_INTERNAL createInferRuntime_INTERNAL "
    "createNvOnnxParserRefitter_INTERNAL createNvOnnxParser_INTERNAL getBuilderPluginRegistry getNvOnnxParserVersion "
    "getPluginRegistry initLibNvInferPlugins"
)
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser", "tensorrt_rtx", "tensorrt_onnxparser_rtx")
READ = """
import importlib.util, json, sys
path, classes = sys.argv[1], sys.argv[2].split()
name = path.rsplit("/", 1)[-1].split(".")[0]
spec = importlib.util.spec_from_file_location(name, path)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
found = {}
for one in classes:
    members = getattr(getattr(module, one, None), "__members__", None)
    if members:
        found[one] = {key: int(value) for key, value in sorted(members.items())}
    elif hasattr(module, one):
        found[one] = sorted(key for key in dir(getattr(module, one)) if not key.startswith("_"))
print(json.dumps(found))
"""


def record(bindings: Path, libraries: Path) -> dict[str, object]:
    environment = {**os.environ, "LD_LIBRARY_PATH": str(libraries)}
    command = [sys.executable, "-c", READ, str(bindings), CLASSES]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return dict(json.loads(done.stdout))


def make_libraries(folder: Path) -> None:
    source = folder / "empty.c"
    source.write_text("\n".join(f"void *{name}(void) {{ return 0; }}" for name in SYMBOLS.split()), encoding="utf-8")
    for name in LIBRARIES:
        for major in (1, 10, 11):
            library = f"lib{name}.so.{major}"
            command = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{library}", "-o", str(folder / library), str(source)]
            subprocess.run(command, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bindings", metavar="VERSION=FILE", nargs="+")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    found: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory() as folder:
        make_libraries(Path(folder))
        for version, path in (one.split("=", 1) for one in arguments.bindings):
            found[version] = record(Path(path).resolve(), Path(folder))
    arguments.output.write_text(to_text(found), encoding="utf-8")


def to_text(found: dict[str, dict[str, object]]) -> str:
    """JSON with a line for every class."""
    versions = [
        f"{json.dumps(version)}: {{\n"
        + ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in classes.items())
        + "}"
        for version, classes in found.items()
    ]
    return "{\n" + ",\n".join(versions) + "}\n"


if __name__ == "__main__":
    main()
