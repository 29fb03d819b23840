"""A model that calls ONNX's own operators by their domain's long name is the same model."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from rir_deploy.errors import InputError
from rir_deploy.fold import fold, measure_work
from rir_deploy.graph.domains import use_short_domain
from tests.fold.family import Family, build


def _long(opsets: dict[str, int], nodes: bool = True) -> ir.Model:
    proto = ir.to_proto(build(Family(((3, 2, 1),)), ("h", "w")))
    del proto.opset_import[:]
    proto.opset_import.extend(helper.make_opsetid(domain, version) for domain, version in opsets.items())
    for node in proto.graph.node if nodes else ():
        node.domain = "ai.onnx"
    return ir.from_proto(proto)


def _bytes(model: ir.Model) -> bytes:
    return ir.to_proto(model).SerializeToString(deterministic=True)


@pytest.mark.parametrize("opsets", [{"ai.onnx": 18}, {"": 18, "ai.onnx": 11}, {"ai.onnx": 18, "com.other": 1}])
@pytest.mark.parametrize("nodes", [True, False])
def test_it_folds_as_the_short_name_does(opsets: dict[str, int], nodes: bool) -> None:
    model, usual = _long(opsets, nodes), build(Family(((3, 2, 1),)), ("h", "w"))
    before = _bytes(model)
    assert measure_work(model) == measure_work(usual)
    result = fold(model).model
    assert _bytes(result) == _bytes(fold(usual).model)
    assert result.graph.opset_imports == {"": 18}
    assert _bytes(model) == before


def test_it_is_written_short_once() -> None:
    model = _long({"ai.onnx": 18})
    assert use_short_domain(model)
    assert not use_short_domain(model)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)


def test_functions_too() -> None:
    value = ir.Value(name="a")
    node = ir.Node("", "Relu", [value])
    body = ir.Graph([value], node.outputs, nodes=[node], opset_imports={"ai.onnx": 18}, name="body")
    function = ir.Function("own", "twice", graph=body, attributes=[])
    model = _long({"": 18})
    model.functions[function.identifier()] = function
    assert use_short_domain(model)
    assert function.opset_imports == {"": 18}


def test_an_old_opset_is_named_as_such() -> None:
    with pytest.raises(InputError, match="opset 5"):
        fold(_long({"ai.onnx": 5}))
