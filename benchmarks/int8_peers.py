"""One peer quantises one graph, in a process and an environment of its own.

    python -I benchmarks/int8_peers.py TOOL IN.onnx IMAGES.npy OUT OPTIONS

IMAGES are normalised float32 [N, C, H, W]; OPTIONS is a JSON object of the tool's own arguments. The last line of
stdout says which tool it was. Nothing but the tool and numpy is imported.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.float32]
BATCH = 32


def onnxruntime(source: str, images: Images, output: str, options: dict[str, Any]) -> str:
    """`quantize_static` after `quant_pre_process`, as ONNX Runtime's documentation has it."""
    import onnx
    import onnxruntime
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self, name: str) -> None:
            self.batches: Iterator[Images] = iter(np.split(images, range(BATCH, len(images), BATCH)))
            self.name = name

        def get_next(self) -> dict[str, Images] | None:
            batch = next(self.batches, None)
            return None if batch is None else {self.name: batch}

    kinds = {"activation_type": quantization.QuantType, "weight_type": quantization.QuantType}
    kinds["calibrate_method"] = quantization.CalibrationMethod
    values = {key: kinds[key][value] if key in kinds else value for key, value in options.items()}
    reader = Reader(onnx.load(source).graph.input[0].name)
    with tempfile.TemporaryDirectory() as folder:
        prepared = str(Path(folder) / "prepared.onnx")
        quant_pre_process(source, prepared)
        quantization.quantize_static(prepared, output, reader, **values)
    return f"onnxruntime {onnxruntime.__version__}"


def nncf_onnx(source: str, images: Images, output: str, options: dict[str, Any]) -> str:
    import nncf
    import onnx

    model = onnx.load(source)
    name = model.graph.input[0].name
    dataset = nncf.Dataset(list(images), lambda image: {name: image[None]})
    # As many images as all others take; NNCF's own default is 300.
    onnx.save(nncf.quantize(model, dataset, subset_size=len(images), **options), output)
    return f"nncf {nncf.__version__}, onnx {onnx.__version__}"


def nncf_openvino(source: str, images: Images, output: str, options: dict[str, Any]) -> str:
    import nncf
    import openvino

    dataset = nncf.Dataset(list(images), lambda image: image[None])
    model = nncf.quantize(openvino.Core().read_model(source), dataset, subset_size=len(images), **options)
    # By default what is not quantised would be rounded to FP16 here.
    openvino.save_model(model, output, compress_to_fp16=False)
    return f"nncf {nncf.__version__}, openvino {openvino.__version__.split('-')[0]}"


def modelopt(source: str, images: Images, output: str, options: dict[str, Any]) -> str:
    import modelopt
    import onnx
    from modelopt.onnx.quantization import quantize

    # All images in one batch: its entropy method spans its histograms by the first batch, and does worse by small ones.
    shapes = f"{onnx.load(source).graph.input[0].name}:{'x'.join(map(str, images.shape))}"
    quantize(
        source,
        calibration_data=images,
        calibration_shapes=shapes,
        calibration_eps=["cpu"],
        output_path=output,
        **options,
    )
    return f"modelopt {modelopt.__version__}"


TOOLS = {tool.__name__: tool for tool in (onnxruntime, nncf_onnx, nncf_openvino, modelopt)}


def main() -> None:
    tool, source, images, output, options = sys.argv[1:]
    said = TOOLS[tool](source, np.load(images), output, json.loads(options))
    print(said, flush=True)


if __name__ == "__main__":
    main()
