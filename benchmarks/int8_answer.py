"""The logits of one graph on a CPU, in a process of its own.

    python benchmarks/int8_answer.py GRAPH IMAGES.npy LOGITS.npy

IMAGES are normalised float32 [N, C, H, W]. An .onnx runs in ONNX Runtime, an .xml in OpenVINO. The last line of stdout
says on what it ran.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from rir_deploy.engines import get_backend

BATCH = 50


def main() -> None:
    graph, images, logits = map(Path, sys.argv[1:])
    backend = get_backend("openvino" if graph.suffix == ".xml" else "onnxruntime")
    data = np.load(images)
    with backend.load(graph) as session:
        name = session.outputs[0].name
        batches = np.split(data, range(BATCH, len(data), BATCH))
        # Copied, since a runtime may answer the next batch into the same memory.
        np.save(logits, np.concatenate([np.array(session.run(batch)[name]) for batch in batches]))
        print(session.runs_on, flush=True)


if __name__ == "__main__":
    main()
