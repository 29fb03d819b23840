"""Every harmless variation of a network, and what verify says of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.parity_network import Network, Outcome, must
from benchmarks.parity_variations import FOLDED_VARIATIONS, VARIATIONS
from rir_deploy.embed import embed_preprocessing
from rir_deploy.engines import get_backend
from rir_deploy.fold import fold
from rir_deploy.onnx_file import save_onnx

Row = tuple[str, Outcome]


def variations(network: Network, small: bool) -> Iterator[Row]:
    """(name, outcome); ``small`` leaves out what one network is enough for."""
    yield from _graphs(network)
    yield from _exports(network, small)
    yield from _lowered(network, small)
    yield from _engines(network, small)
    yield from _settings(network, small)


def _graphs(network: Network) -> Iterator[Row]:
    for form, path in (("traced", network.traced), ("folded", network.folded)):
        model = network.load(path)
        for name, vary in {**VARIATIONS, **(FOLDED_VARIATIONS if form == "folded" else {})}.items():
            yield f"{form}: {name}", network.verify(vary(model))


def _exports(network: Network, small: bool) -> Iterator[Row]:
    """Exported again, by every opset; folded again and again."""
    path = network.folder / "export.onnx"
    for opset in range(18, 24, 5 if small else 1):
        for form, flags in (("traced", ["--no-fold"]), ("folded", [])):
            words = ("--recipe", network.recipe, "--opset", opset, "--no-check", "--force")
            must("export", network.checkpoint, "-o", path, *flags, *words)
            yield f"{form}: opset {opset}", network.verify(path)
            if form == "traced":
                yield f"traced, opset {opset}, folded", network.verify(fold(network.load(path)).model)
    twice = fold(fold(network.load(network.folded)).model).model
    yield "folded: folded thrice", network.verify(twice)
    embedded = embed_preprocessing(network.load(network.folded), network.preprocessing)
    yield "folded: preprocessing inside", network.verify(embedded)
    yield "folded: preprocessing inside, folded again", network.verify(fold(embedded).model)
    traced = embed_preprocessing(network.load(network.traced), network.preprocessing)
    yield "traced: preprocessing inside", network.verify(traced)


METHODS = (
    "minmax",
    "entropy",
    "mse",
    "auto",
    *(f"percentile --percentile {share}" for share in (99.9, 99.99, 99.999)),
)
OPTIONS = ("--rounding nearest", "--rounding mse", "--no-equalize", "--no-bias-correction")


def _lowered(network: Network, small: bool) -> Iterator[Row]:
    """INT8 by every method and option, in both flavours, from more and fewer images."""
    path = network.folder / "lowered.onnx"
    ways = [f"--method {method}" for method in METHODS] + list(OPTIONS)
    counts = (128,) if small else (64, 512)
    for form, source in (("traced", network.traced), ("folded", network.folded)):
        for flavour in ("cpu", "tensorrt"):
            own = ["--rest fp32"] if flavour == "tensorrt" else ["--weight-bits 4"]
            for way in [*ways[:: 3 if small else 1], *own, *(["--split-identity"] if form == "folded" else [])]:
                for samples in counts if way.startswith("--method") else counts[:1]:
                    words = (*way.split(), "--samples", samples, *network.calibration, "--force")
                    must("quantize", source, "-o", path, "--qdq", flavour, *words)
                    yield f"{form}: INT8 {flavour} {way} of {samples}", network.verify(path)


def _engines(network: Network, small: bool) -> Iterator[Row]:
    """Every backend that is there, in every precision, for several ranges of batch sizes."""
    folder = network.folder / "engine"
    ranges = ("1,1,32",) if small else ("1,1,1", "1,4,8", "2,3,7", "1,1,32")
    for backend in ("onnxruntime", "openvino", "tensorrt-rtx"):
        if not get_backend(backend).availability().can_build:
            continue
        targets = ["--target", "sm89"] if backend == "tensorrt-rtx" else []
        for precision in ("fp32", "fp16", "int8"):
            for form, source in (("traced", network.traced), ("folded", network.folded)):
                for batch in ranges if form == "folded" else ranges[-1:]:
                    data = [] if precision == "fp32" else network.calibration
                    words = ("--backend", backend, f"--{precision}", "--batch", batch, "--no-fold", *targets, *data)
                    must("build-engine", source, "-o", folder, *words, "--force")
                    name = f"{form}: {backend} {precision}, batches {batch}"
                    yield name, network.verify(folder, "--simulate", reference=_reference(network, small, batch))


def _reference(network: Network, small: bool, batch: str) -> Path:
    """The checkpoint itself once a precision; tracing it again each time is slow."""
    return network.checkpoint if batch == "1,1,32" and not small else network.traced


def _settings(network: Network, small: bool) -> Iterator[Row]:
    """The same graphs, compared in other batches, by other threads, against other references."""
    batches = (1, 7, 64) if small else (1, 2, 3, 5, 7, 8, 13, 16, 31, 64, 100, 359)
    for batch in batches:
        yield f"folded: compared in batches of {batch}", network.verify(network.folded, "--batch", batch)
        yield f"INT8: compared in batches of {batch}", network.verify(network.int8("cpu"), "--batch", batch)
    for threads in (1, 2, 4):
        yield f"folded: {threads} threads", network.verify(network.folded, "--threads", threads)
        yield f"INT8: {threads} threads", network.verify(network.int8("cpu"), "--threads", threads)
    yield "traced against folded", network.verify(network.traced, reference=network.folded)
    yield "INT8 against folded", network.verify(network.int8("tensorrt"), reference=network.folded)
    yield (
        "INT8 against INT8 of the other flavour",
        network.verify(network.int8("cpu"), "--precision", "int8", reference=network.int8("tensorrt")),
    )
    yield (
        "the checkpoint against itself",
        network.verify(network.checkpoint, "--recipe", network.recipe, reference=network.checkpoint),
    )
    bare = network.load(network.folded)
    bare.metadata_props.clear()
    path = network.folder / "bare.onnx"
    save_onnx(bare, path, force=True)
    yield "folded: no record of its past", network.verify(path, "--recipe", network.recipe)
