"""What is mutated, and the command that the mutant is given to: one target a kind of file.

A target writes one mutant into an empty folder and says what to run and how to judge a result.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bundle.forge import INDEX, Forgery
from tests.fuzz.archives import mutate_archive, mutate_npz
from tests.fuzz.noise import mutate_bytes, mutate_data, mutate_text, to_json
from tests.fuzz.onnx_graphs import mutate_onnx
from tests.fuzz.pickles import mutate_torch
from tests.fuzz.seeds import Seeds

# The preprocessing of the digits, for checks by other means.
MEAN, STD = 0.3058, 0.3764


@dataclass(frozen=True)
class Case:
    """``arguments`` are a command's; where it succeeds, ``check`` is asked with ``facts``.

    ``codes`` are the exit codes that may come beside 0 and 5; ``output`` is what the command writes, if anything.
    """

    mutation: str
    arguments: tuple[object, ...]
    check: str
    facts: dict[str, Any] = field(default_factory=dict)
    codes: tuple[int, ...] = ()
    output: str | None = None


Target = Callable[[random.Random, Seeds, Path], Case]


def graph(rng: random.Random, seeds: Seeds, folder: Path) -> Case:
    """A graph of no family, folded. Data files lie beside it, so that a graph may name them."""
    mutation, data = mutate_onnx(rng, rng.choice(seeds.graphs).read_bytes())
    path = _onnx(folder, data)
    output = folder / "out.onnx"
    facts = {"input": str(path), "output": str(output)}
    return Case(mutation, ("fold", path, "-o", output, "--json"), "folded", facts, output="out.onnx")


def network(rng: random.Random, seeds: Seeds, folder: Path) -> Case:
    """A folded RiR: inspected, built into an engine, or held against the RiR as it was."""
    mutation, data = mutate_onnx(rng, seeds.network.read_bytes())
    path = _onnx(folder, data)
    facts = {"input": str(path)}
    what = rng.choice(("inspect", "build", "verify"))
    if what == "inspect":
        return Case(f"{mutation}", ("inspect", path, "--json"), "described", facts)
    if what == "build":
        output = folder / "engine"
        command = ("build-engine", path, "-o", output, "--backend", "onnxruntime", "--json")
        return Case(mutation, command, "built", {**facts, "output": str(output)}, (2,), "engine")
    return _verify(mutation, seeds, seeds.network, path, seeds.images[0])


def engine(rng: random.Random, seeds: Seeds, folder: Path) -> Case:
    """The folder of an engine: its manifest or its graph, by one who knows no hash or by one who gets them right."""
    path = folder / "engine"
    shutil.copytree(seeds.engine, path)
    manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    what = rng.choice(("manifest", "manifest", "text", "bytes", "graph", "forged"))
    if what == "manifest":
        mutation, changed = mutate_data(rng, manifest)
        (path / "manifest.json").write_bytes(to_json(changed))
    elif what in ("text", "bytes"):
        whole = (path / "manifest.json").read_bytes()
        mutation, data = mutate_text(rng, whole.decode()) if what == "text" else mutate_bytes(rng, whole)
        (path / "manifest.json").write_bytes(data)
    else:
        mutation, data = mutate_onnx(rng, (path / "graph.onnx").read_bytes())
        (path / "graph.onnx").write_bytes(data)
        if what == "forged":
            record = {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
            for role in ("engine", "graph"):
                manifest[role].update(record)
            (path / "manifest.json").write_bytes(to_json(manifest))
            mutation = f"forged, {mutation}"
    if rng.random() < 0.3:
        return Case(mutation, ("inspect", path, "--json"), "forged", codes=(4,))
    return _verify(mutation, seeds, seeds.network, path / "graph.onnx", seeds.images[0], engine=path)


def table(rng: random.Random, seeds: Seeds, folder: Path) -> Case:
    """A range table, or the rounded weights that belong to it."""
    path, weights = folder / "table.json", folder / "table.safetensors"
    whole, rounded = seeds.table.read_bytes(), seeds.table.with_suffix(".safetensors").read_bytes()
    what = rng.choice(("data", "data", "text", "bytes", "weights", "forged"))
    if what == "data":
        mutation, changed = mutate_data(rng, json.loads(whole))
        whole = to_json(changed)
    elif what in ("text", "bytes"):
        mutation, whole = mutate_text(rng, whole.decode()) if what == "text" else mutate_bytes(rng, whole)
    else:
        mutation, rounded = mutate_safetensors(rng, rounded)
        mutation = f"rounded weights, {mutation}"
        if what == "forged":
            data = {**json.loads(whole), "weights_sha256": hashlib.sha256(rounded).hexdigest()}
            whole, mutation = to_json(data), f"forged {mutation}"
    path.write_bytes(whole)
    weights.write_bytes(rounded)
    if rng.random() < 0.2:
        return Case(mutation, ("inspect", path, "--json"), "forged")
    output = folder / "out.onnx"
    command = (
        "quantize",
        seeds.network,
        "-o",
        output,
        "--qdq",
        "cpu",
        "--recipe",
        "digits",
        "--ranges",
        path,
        "--json",
    )
    facts = {"table": str(path), "whole": str(seeds.table), "output": str(output), "expected": str(seeds.quantized)}
    return Case(mutation, command, "quantized", facts, output="out.onnx")


def bundle(rng: random.Random, seeds: Seeds, folder: Path) -> Case:
    """A bundle, by one who knows no hash, or with an index or a member changed and every hash right."""
    path = folder / "bundle.zip"
    command = ("inspect", path, "--json") if rng.random() < 0.5 else ("verify", path, "--json")
    what = rng.choice(("bytes", "zip", "index", "member"))
    if what in ("bytes", "zip"):
        mutate = mutate_bytes if what == "bytes" else mutate_archive
        mutation, data = mutate(rng, seeds.bundle.read_bytes())
        path.write_bytes(data)
        return Case(mutation, command, "unchanged", {"input": str(path), "whole": str(seeds.bundle)})
    forgery = Forgery.of(seeds.bundle)
    if what == "index":
        mutation, forgery.index = mutate_data(rng, forgery.index)
        forgery.text = (json.dumps(forgery.index, indent=1, sort_keys=True) + "\n").encode("utf-8", "surrogatepass")
        if not isinstance(forgery.index, dict):
            forgery.index = {"members": []}
    else:
        name = rng.choice(sorted(set(forgery.files) - {INDEX}))
        mutate = mutate_onnx if name.endswith(".onnx") else mutate_bytes
        mutation, forgery.files[name] = mutate(rng, forgery.files[name])
        forgery.relist()
        mutation = f"member, {mutation}"
    forgery.write(path)
    return Case(f"forged {mutation}", command, "forged", codes=(3, 4))


def checkpoint(rng: random.Random, seeds: Seeds, folder: Path) -> Case:
    """A checkpoint of this tool or of another, and pickles that would run code."""
    seed = rng.choice((*seeds.checkpoints, seeds.checkpoints[1]))
    path = folder / seed.name
    mutate = mutate_torch if seed.suffix == ".pt" else mutate_safetensors
    mutation, data = mutate(rng, seed.read_bytes())
    path.write_bytes(data)
    return Case(mutation, ("inspect", path, "--json"), "loaded", {"input": str(path)})


def images(rng: random.Random, seeds: Seeds, folder: Path) -> Case:
    """Images: arrays, or a zip of files in class folders."""
    seed = rng.choice(seeds.images)
    path = folder / seed.name
    mutate = mutate_npz if seed.suffix == ".npz" else mutate_archive
    mutation, data = mutate(rng, seed.read_bytes())
    path.write_bytes(data)
    return _verify(mutation, seeds, seeds.network, seeds.engine / "graph.onnx", path, engine=seeds.engine)


def recipe(rng: random.Random, seeds: Seeds, folder: Path) -> Case:
    """A recipe, or the plan of a run (which stops at the checkpoint that it names and that is not there)."""
    seed = rng.choice((seeds.recipe, seeds.plan))
    path = folder / seed.name
    text = seed.read_text(encoding="utf-8")
    mutation, data = mutate_text(rng, text) if rng.random() < 0.7 else mutate_bytes(rng, text.encode())
    path.write_bytes(data)
    if seed == seeds.plan:
        return Case(mutation, ("run", path, "-o", folder / "run", "--json"), "nothing", codes=(2,))
    command = ("verify", seeds.network, seeds.engine, "--data", seeds.images[0], "--recipe", path, "--json")
    return Case(mutation, command, "forged", codes=(2, 3))


TARGETS: dict[str, tuple[Target, float]] = {
    "ONNX files, folded": (graph, 0.26),
    "ONNX files, inspected, built and verified": (network, 0.18),
    "engines: manifests and graphs": (engine, 0.13),
    "range tables and rounded weights": (table, 0.11),
    "bundles": (bundle, 0.08),
    "checkpoints": (checkpoint, 0.12),
    "images": (images, 0.08),
    "recipes and plans": (recipe, 0.04),
}


def commands(seeds: Seeds, folder: Path) -> list[tuple[object, ...]]:
    """A command for every seed as it is, writing into ``folder``."""
    told = ("--recipe", "digits", "--json")
    sides = (seeds.network, seeds.engine)
    return [
        *(("fold", graph, "-o", folder / graph.name, "--json") for graph in seeds.graphs),
        *(("inspect", path, "--json") for path in (seeds.network, seeds.table, seeds.bundle, *seeds.checkpoints)),
        *(("verify", *sides, "--data", path, *told) for path in seeds.images),
        ("verify", seeds.bundle, "--json"),
        ("verify", *sides, "--data", seeds.images[0], "--recipe", seeds.recipe, "--json"),
        ("build-engine", seeds.network, "-o", folder / "engine", "--backend", "onnxruntime", "--json"),
        ("quantize", seeds.network, "-o", folder / "int8.onnx", "--qdq", "cpu", "--ranges", seeds.table, *told),
    ]


def mutate_safetensors(rng: random.Random, whole: bytes) -> tuple[str, bytes]:
    """Bytes, or the header as data, its length right again."""
    if rng.random() < 0.3:
        return mutate_bytes(rng, whole)
    length = int.from_bytes(whole[:8], "little")
    header, body = json.loads(whole[8 : 8 + length]), whole[8 + length :]
    metadata = header.get("__metadata__")
    if metadata and rng.random() < 0.4:  # the record inside: it is JSON in JSON
        key = rng.choice(sorted(metadata))
        mutation, record = mutate_data(rng, json.loads(metadata[key]))
        header["__metadata__"] = {**metadata, key: json.dumps(record)}
        mutation = f"record, {mutation}"
    else:
        mutation, header = mutate_data(rng, header)
        mutation = f"header, {mutation}"
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return mutation, len(text).to_bytes(8, "little") + text + body


def _onnx(folder: Path, data: bytes) -> Path:
    """The mutant in a folder of its own, with a data file inside, one outside, and a link to it."""
    (folder / "model").mkdir()
    (folder / "secret.bin").write_bytes(bytes(4096))
    (folder / "model" / "weights.bin").write_bytes(bytes(4096))
    (folder / "model" / "link.bin").symlink_to(folder / "secret.bin")
    path = folder / "model" / "model.onnx"
    path.write_bytes(data)
    return path


def _verify(
    mutation: str, seeds: Seeds, reference: Path, candidate: Path, data: Path, engine: Path | None = None
) -> Case:
    command = ("verify", reference, engine or candidate, "--data", data, "--recipe", "digits", "--json")
    facts = {"reference": str(reference), "candidate": str(candidate), "data": str(data), "mean": MEAN, "std": STD}
    return Case(mutation, command, "verified", facts, codes=(3, 4))
