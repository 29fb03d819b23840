"""Who takes part in `int8.py`: one row a quantiser and setting, on one graph or on both."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

GRAPHS = ("folded", "traced")
FOLDED = ("folded",)
# Neither equalised nor corrected, each weight rounded by itself: what every tool can do.
PLAIN = "--method minmax --rounding nearest --no-equalize --no-bias-correction"

# name, graphs, options of `rir-deploy quantize`
OURS = (
    ("rir-deploy, TensorRT placement", GRAPHS, "--qdq tensorrt"),
    ("rir-deploy, CPU placement", GRAPHS, "--qdq cpu"),
    ("rir-deploy, TensorRT placement, plain min-max", FOLDED, f"--qdq tensorrt {PLAIN}"),
    ("rir-deploy, CPU placement, plain min-max", FOLDED, f"--qdq cpu {PLAIN}"),
    ("rir-deploy, TensorRT placement, identity apart", FOLDED, "--qdq tensorrt --split-identity"),
    ("rir-deploy, CPU placement, identity apart", FOLDED, "--qdq cpu --split-identity"),
    ("rir-deploy, 4-bit weights", FOLDED, "--qdq cpu --weight-bits 4"),
    ("rir-deploy, 3-bit weights", FOLDED, "--qdq cpu --weight-bits 3"),
)
BASELINE = "rir-deploy, CPU placement, plain min-max, folded"

UINT8 = {"activation_type": "QUInt8", "per_channel": True}
INT8 = {"per_channel": True, "extra_options": {"ActivationSymmetric": True}}

# name, function of int8_peers.py, options of the tool's own call
PEERS = (
    ("ONNX Runtime, defaults", "onnxruntime", {}),
    ("ONNX Runtime, uint8 per channel, min-max", "onnxruntime", UINT8),
    ("ONNX Runtime, int8 per channel, min-max", "onnxruntime", INT8),
    ("ONNX Runtime, int8 per channel, entropy", "onnxruntime", {**INT8, "calibrate_method": "Entropy"}),
    ("ONNX Runtime, int8 per channel, percentile", "onnxruntime", {**INT8, "calibrate_method": "Percentile"}),
    ("NNCF on ONNX, defaults", "nncf_onnx", {}),
    ("NNCF on OpenVINO, defaults", "nncf_openvino", {}),
    ("ModelOpt, max", "modelopt", {"calibration_method": "max"}),
    ("ModelOpt, entropy", "modelopt", {"calibration_method": "entropy"}),
    ("ONNX Runtime, 4-bit weights per channel, uint8", "onnxruntime", {**UINT8, "weight_type": "QInt4"}),
)


@dataclass(frozen=True)
class Contender:
    """A quantiser on one graph.

    ``tool`` is "fp32" (the graph as it is), "rir-deploy", or a function of `int8_peers`; ``options`` are arguments of
    the command line or JSON for the peer.
    """

    name: str
    graph: str
    tool: str
    options: str = ""

    @property
    def label(self) -> str:
        return f"{self.name}, {self.graph}"

    @property
    def file_name(self) -> str:
        """Of its graph; a name of any letters is made one that every file system takes."""
        stem = "".join(letter if letter.isalnum() else "-" for letter in self.label.lower())
        return stem + (".xml" if self.tool == "nncf_openvino" else ".onnx")

    @property
    def is_timed(self) -> bool:
        """In ONNX Runtime on a CPU, which computes a graph with TensorRT's Q/DQ placement in float."""
        return self.file_name.endswith(".onnx") and self.tool != "modelopt" and "--qdq tensorrt" not in self.options

    def command(self, folder: Path, train: str, modelopt_python: str | None) -> list[str]:
        """What makes its graph, in ``folder`` where the FP32 graphs and calibration.npy are."""
        source, output = str(folder / f"{self.graph}.onnx"), str(folder / self.file_name)
        if self.tool == "rir-deploy":
            options = ["--data", train, "-o", output, "--force", "--json", *self.options.split()]
            return [sys.executable, "-m", "rir_deploy", "quantize", source, *options]
        python = modelopt_python if self.tool == "modelopt" and modelopt_python else sys.executable
        worker, images = str(Path(__file__).with_name("int8_peers.py")), str(folder / "calibration.npy")
        # Isolated: the peer sees neither this folder nor what the caller put on the path.
        return [python, "-I", worker, self.tool, source, images, output, self.options]


def contenders() -> list[Contender]:
    found = [Contender("FP32", graph, "fp32") for graph in GRAPHS]
    found += [Contender(name, graph, "rir-deploy", options) for name, graphs, options in OURS for graph in graphs]
    found += [Contender(name, graph, tool, json.dumps(options)) for name, tool, options in PEERS for graph in GRAPHS]
    return found
