"""The sample report of docs/ and its picture in the README: a whole run of a trained checkpoint.

    python benchmarks/sample_report.py --checkpoint rir_cifar10_w16.pt --calibration cifar10-train.zip \
        --test cifar10-test.zip --keep FOLDER

A run that was killed continues in FOLDER. The picture is taken by Chromium, where that is here. Run it on a quiet
machine: the report has latencies.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.browser import browser_command, find_browser
from benchmarks.tables import ROOT

REPORT, PICTURE = ROOT / "docs" / "sample-report.html", ROOT / "docs" / "sample-report.png"
LARGEST_BYTES = 2_000_000
PLAN = """checkpoint = {checkpoint}
recipe = "cifar10"
backends = ["onnxruntime", "openvino", "tensorrt-rtx"]
targets = ["sm89"]
batch = [1, 1, 8]

[data]
calibration = {calibration}
test = {test}

[bench]
batches = [1, 8]
duration_s = 2.0
rounds = 3
roofline = true
mode = "both"
"""
# Two parts of the page side by side, at half of their size.
_WIDTH, _HEIGHT, _GAP = 1280, 1960, 32
_SHEET = """<!doctype html><style>
body {{ margin: 0; display: flex; gap: {gap}px; background: #d5dae0 }}
iframe {{ border: 0; width: {width}px; height: {height}px }}
</style><iframe src="{page}"></iframe><iframe src="{page}#section-accuracy"></iframe>"""


def run(plan: Path, folder: Path) -> Path:
    """The page of a run; a failed gate is part of the report, any other failure is not."""
    done = subprocess.run([sys.executable, "-m", "rir_deploy", "run", plan, "-o", folder])
    if done.returncode not in (0, 3):
        raise SystemExit(done.returncode)
    return folder / "report.html"


def picture(page: Path, output: Path) -> None:
    browser = find_browser()
    if browser is None:
        print("no Chromium here: the picture is left as it was", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as temporary:
        sheet = Path(temporary) / "sheet.html"
        sheet.write_text(_SHEET.format(gap=_GAP, width=_WIDTH, height=_HEIGHT, page=page.as_uri()), encoding="utf-8")
        command = browser_command(browser, Path(temporary) / "user", dark=False)
        command += ["--hide-scrollbars", "--force-device-scale-factor=0.5"]
        command += [f"--window-size={2 * _WIDTH + _GAP},{_HEIGHT}", f"--screenshot={output}", sheet.as_uri()]
        subprocess.run(command, check=True, timeout=120, stderr=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("checkpoint", "calibration", "test"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--keep", type=Path, required=True, help="folder of the plan and the run")
    arguments = parser.parse_args()
    arguments.keep.mkdir(parents=True, exist_ok=True)
    plan = arguments.keep / "deploy.toml"
    # Between quotes, JSON and TOML write a text alike.
    files = {
        name: json.dumps(str(getattr(arguments, name).resolve())) for name in ("checkpoint", "calibration", "test")
    }
    plan.write_text(PLAN.format(**files), encoding="utf-8")
    page = run(plan, arguments.keep / "run")
    if page.stat().st_size > LARGEST_BYTES:
        raise SystemExit(f"the report has {page.stat().st_size:,} bytes: too many for the repository")
    shutil.copyfile(page, REPORT)
    picture(REPORT, PICTURE)
    print(f"{REPORT} ({page.stat().st_size:,} bytes)")


if __name__ == "__main__":
    main()
