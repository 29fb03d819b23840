"""Put TensorRT's type stubs into a folder for MYPYPATH: python .ci/tensorrt_stubs.py FOLDER

Not installed like other packages, because they would bring bindings of one version of TensorRT into the same folder as
those of the version that is used. Five of their lines are not Python; they are mended here.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

PACKAGE = "tensorrt-stubs==10.13.0.35.1"


def main(folder: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), PACKAGE]
    subprocess.run(pip, check=True)
    path = folder / "tensorrt_bindings" / "tensorrt.pyi"
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"\bin: ", "inputs: ", text)
    text = text.replace("power: Weights = None, channel_axis: int)", "power: Weights = None, channel_axis: int = 0)")
    ast.parse(text)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
