"""All faults of `parity_faults*`, put into a trained network one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from benchmarks import parity_faults, parity_faults_int8
from benchmarks.parity_faults_ends import (
    END_FAULTS,
    PREPROCESSING_FAULTS,
    RECORD_FAULTS,
    Embedded,
    preprocessing_faults,
    record,
)
from benchmarks.parity_faults_int8 import Quantized
from benchmarks.parity_graph import Net
from benchmarks.parity_network import Network
from rir_deploy.embed import embed_preprocessing
from rir_deploy.fold import fold

PREPROCESSING = "preprocessing"


@dataclass(frozen=True)
class Injection:
    """A candidate with one fault: of a stage ("fp32", "preprocessing", "int8"), in a form of the graph, and the blocks
    of which one must be named."""

    stage: str
    form: str
    fault: str
    expected: tuple[str, ...]
    model: ir.Model


def injections(network: Network, blocks: str) -> Iterator[Injection]:
    """``blocks``: "all" of the network, or "some": the first, those with a stride, and the last."""
    yield from _float(network, blocks)
    yield from _ends(network)
    yield from _preprocessing(network)
    for flavour in ("cpu", "tensorrt"):
        yield from _int8(network, flavour, blocks)


def _chosen(names: list[str], net: Net, blocks: str) -> list[str]:
    if blocks == "all":
        return names
    strided = [name for name in names if net.is_strided(name)] if not isinstance(net, Quantized) else names[4:5]
    return list(dict.fromkeys([names[0], *strided[:1], names[-1]]))


def _float(network: Network, blocks: str) -> Iterator[Injection]:
    """In the trace as an exporter would leave it, and in what the fold makes of that."""
    traced = network.load(network.traced)
    net = Net(traced)
    for name in parity_faults.FAULTS:
        for block in _chosen(net.blocks(), net, blocks):
            if parity_faults.applies(name, net, block):
                faulty = parity_faults.inject(traced, name, block)
                yield Injection("fp32", "traced", name, (block,), faulty)
                yield Injection("fp32", "folded", name, (block,), fold(faulty).model)


def _ends(network: Network) -> Iterator[Injection]:
    traced = network.load(network.traced)
    last = Net(traced).blocks()[-1]
    for name, (fault, places) in END_FAULTS.items():
        net = Net(traced)
        fault(net)
        expected = tuple(last if place == "last" else place for place in places)
        yield Injection("fp32", "traced", name, expected, net.model)
        yield Injection("fp32", "folded", name, expected, fold(net.model).model)


def _preprocessing(network: Network) -> Iterator[Injection]:
    folded, preprocessing = network.load(network.folded), network.preprocessing
    embedded = embed_preprocessing(folded, preprocessing)
    for name in preprocessing_faults(preprocessing):
        net = Embedded(embedded)
        PREPROCESSING_FAULTS[name](net, preprocessing)
        yield Injection("preprocessing", "embedded", name, (PREPROCESSING,), net.model)
    for name in RECORD_FAULTS:
        yield Injection("preprocessing", "recorded", name, (PREPROCESSING,), record(folded, name))


def _int8(network: Network, flavour: str, blocks: str) -> Iterator[Injection]:
    model = network.load(network.int8(flavour))
    net = Quantized(model)
    for name in parity_faults_int8.FAULTS:
        for block in _chosen(net.blocks(), net, blocks):
            if parity_faults_int8.applies(name, net, block):
                faulty = parity_faults_int8.inject(model, name, block)
                yield Injection("int8", flavour, name, (block,), faulty)
    for name in ("range saturated at a sixteenth", "zero point off by 16", "scales of Q and DQ differ by half"):
        faulty = parity_faults_int8.inject(model, name, "input")
        yield Injection("int8", flavour, f"images: {name}", (PREPROCESSING,), faulty)
