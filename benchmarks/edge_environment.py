"""An edge environment, really installed: what a device needs to test, build and time from a bundle, and its size.

    rir-deploy demo -o run && rir-deploy bundle run -o model.zip
    python benchmarks/edge_environment.py model.zip -o benchmarks/results/edge_environment.json

Makes a virtual environment with the bare package and onnxruntime, runs the three commands in it, and measures what is
installed; then adds [edge]. The host's size is that of [host] in the environment that runs this script, which has to
have it. Sizes are those of the files that the packages brought, compiled Python files among them.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from rir_deploy.bench.machine import read_machine

ROOT = Path(__file__).parents[1]
RUNTIME = "onnxruntime"
# What no device has to have.
ABSENT = ("torch", "onnxscript", "matplotlib", "jinja2", "scikit-learn", "openvino")
QUICK = ("--duration", "0.5", "--rounds", "1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        venv = Path(name) / "venv"
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        python = venv / "bin" / "python"
        install(python, str(ROOT), RUNTIME)
        site = next((venv / "lib").glob("python*/site-packages"))
        edge = sizes(site, {"rir-deploy": "", RUNTIME: ""})
        present = [package for package in ABSENT if package in edge]
        assert not present, present
        commands = run_commands(python, arguments.bundle.absolute(), Path(name))
        install(python, f"{ROOT}[edge]")
        with_gpu = sizes(site, {"rir-deploy": "edge", RUNTIME: ""})
        host = sizes(Path(sysconfig.get_path("purelib")), {"rir-deploy": "host"}, site)
    result = {
        "machine": read_machine().to_dict(),
        "edge": described(edge),
        "edge with cuda-python": described(with_gpu),
        "host": described(host),
        "commands": commands,
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for key in ("edge", "edge with cuda-python", "host"):
        print(f"{key}: {result[key]['bytes'] / 1e6:.0f} MB, {len(result[key]['packages'])} packages")


def install(python: Path, *packages: str) -> None:
    subprocess.run([str(python), "-m", "pip", "install", "-q", *packages], check=True)


def sizes(site: Path, roots: dict[str, str], package_site: Path | None = None) -> dict[str, dict[str, Any]]:
    """Version and bytes of distributions (name to extra) and all that they need, as installed in ``site``.

    ``package_site`` is where the package itself is looked for: it may be installed in place in ``site``.
    """
    found: dict[str, dict[str, Any]] = {}
    waiting = list(roots.items())
    while waiting:
        name, extra = waiting.pop()
        where = package_site if name == "rir-deploy" and package_site is not None else site
        distribution = next(iter(importlib.metadata.distributions(name=name, path=[str(where)])), None)
        if distribution is None:
            raise SystemExit(f"{name} is not installed in {where}")
        paths = [Path(str(distribution.locate_file(file))) for file in distribution.files or ()]
        size = sum(path.stat().st_size for path in paths if path.is_file())
        found[name] = {"version": distribution.version, "bytes": size}
        for requirement in map(Requirement, distribution.requires or ()):
            wanted = requirement.marker is None or requirement.marker.evaluate({"extra": extra})
            key = requirement.name.lower().replace("_", "-")
            if wanted and key not in found:
                waiting += [(key, one) for one in requirement.extras or {""}]
    return found


def described(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    largest = sorted(found.items(), key=lambda item: -item[1]["bytes"])
    return {"bytes": sum(one["bytes"] for one in found.values()), "packages": dict(largest)}


def run_commands(python: Path, bundle: Path, folder: Path) -> dict[str, Any]:
    """What the three commands said."""
    tested = command(python, folder, "verify", str(bundle))
    built = command(python, folder, "build-engine", str(bundle), "-o", "engine", "--int8", "--backend", RUNTIME)
    again = command(python, folder, "verify", str(bundle), "engine")
    timed = command(python, folder, "bench", str(bundle), "engine", *QUICK)
    return {
        "verify BUNDLE": Counter(row["status"] for row in tested["results"]),
        "build-engine BUNDLE --int8": {key: built[key] for key in ("backend", "precision", "size_bytes")},
        "verify BUNDLE ENGINE": Counter(row["status"] for row in again["results"]),
        "bench BUNDLE ENGINE": Counter(row["status"] for row in timed["results"]),
    }


def command(python: Path, folder: Path, *words: str) -> dict[str, Any]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(python.parent / "rir-deploy"), *words, "--json"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise SystemExit(f"rir-deploy {' '.join(words)} exited with {done.returncode}: {done.stderr}")
    return dict(json.loads(done.stdout))


if __name__ == "__main__":
    main()
