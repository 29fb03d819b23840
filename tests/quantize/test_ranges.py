from collections.abc import Iterator

import numpy as np
import pytest

from rir_deploy.errors import InputError, UsageError
from rir_deploy.quantize import RangeOptions, activation_names, collect_ranges, mark_outputs
from tests.quantize.graphs import SOURCES, Array, batches, calibrate, chain, run, session


def double(batch: Array) -> dict[str, Array]:
    return {"twice": 2 * batch, "shape": np.array([[1, 2]], dtype=np.int64), "names": np.array(["a"])}


def test_minmax_over_batches_is_that_of_all_data_at_once() -> None:
    data = batches(5)
    table = collect_ranges(iter(data), double, "x", SOURCES)
    whole = np.concatenate(data)
    assert (table["x"].min, table["x"].max) == (float(whole.min()), float(whole.max()))
    assert (table["twice"].min, table["twice"].max) == (2 * float(whole.min()), 2 * float(whole.max()))
    assert (table["shape"].min, table["shape"].max) == (1, 2)
    assert (table.samples, table.method, table.percentile) == (20, "minmax", None)
    assert "names" not in table.ranges


def test_percentile_cuts_both_sides_at_the_share_of_absolute_values() -> None:
    data = batches(5)
    table = collect_ranges(iter(data), double, "x", SOURCES, RangeOptions("percentile", 99.0))
    cut = np.sort(np.abs(np.concatenate(data)), axis=None)[int(np.ceil(0.99 * 5 * 768)) - 1]
    assert cut <= table["x"].max <= cut * 1.002
    assert table["x"].min == -table["x"].max
    assert table.percentile == 99.0


def test_percentile_never_widens() -> None:
    options = RangeOptions("percentile", 100.0, bins=256)
    table = collect_ranges([np.array([[5.0, 6.0]])], lambda batch: {"n": -batch}, "x", SOURCES, options)
    assert (table["x"].min, table["x"].max) == (5.0, 6.0)
    assert (table["n"].min, table["n"].max) == (-6.0, -5.0)


def test_every_batch_is_run_once_and_let_go() -> None:
    alive: list[int] = []

    def stream() -> Iterator[Array]:
        for index, batch in enumerate(batches(3)):
            alive.append(index)
            yield batch

    collect_ranges(stream(), double, "x", SOURCES)
    assert alive == [0, 1, 2]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_refused_by_tensor(bad: float) -> None:
    data = batches(2)
    data[1][2, 0, 0, 0] = bad
    with pytest.raises(InputError, match="NaN or infinite numbers in the tensor 'x'"):
        collect_ranges(data, double, "x", SOURCES)

    def broken(batch: Array) -> dict[str, Array]:
        return {"inner": np.full_like(batch, bad)}

    with pytest.raises(InputError, match="in the tensor 'inner'"):
        collect_ranges(batches(1), broken, "x", SOURCES)


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_constant_data_is_refused(value: float) -> None:
    data = [np.full((2, 3, 8, 8), value, dtype=np.float32)] * 2
    with pytest.raises(InputError, match=rf"the constant {value:g} in all 4 samples; give images"):
        collect_ranges(data, double, "x", SOURCES)


def test_no_data_is_refused() -> None:
    for data in ([], [np.zeros((0, 3, 8, 8), dtype=np.float32)]):
        with pytest.raises(InputError, match="no calibration data"):
            collect_ranges(data, double, "x", SOURCES)
    with pytest.raises(InputError, match="calibration data is empty"):
        collect_ranges([np.zeros((2, 0), dtype=np.float32)], lambda batch: {}, "x", SOURCES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "mode"}, "method must be one of minmax, percentile, entropy, mse"),
        ({"percentile": 50.0}, "over 50 and up to 100"),
        ({"percentile": 100.1}, "over 50 and up to 100"),
        ({"bins": 1000}, "power of two"),
        ({"bins": 128}, "power of two"),
    ],
)
def test_options_out_of_range(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        RangeOptions(**options)  # type: ignore[arg-type]


def test_marked_graph_gives_what_it_gave_and_the_tensors_asked_for() -> None:
    model = chain()
    names = activation_names(model)
    assert names == ("conv_0", "relu_1", "conv_2", "relu_3", "conv_4", "averagepool_5", "reshape_6")
    marked = mark_outputs(model, ["relu_1", "relu_3", "relu_1"])
    opened = session(marked)
    assert [value.name for value in opened.get_outputs()] == ["reshape_6", "relu_1", "relu_3"]
    batch = batches(1)[0]
    result, first, second = opened.run(None, {"x": batch})
    assert np.array_equal(result, run(model, batch))
    assert first.min() == 0.0
    assert second.shape == (4, 16, 4, 4)
    assert len(model.graph.outputs) == 1


def test_marking_an_unknown_tensor_suggests_one() -> None:
    with pytest.raises(UsageError, match="did you mean 'relu_1'"):
        mark_outputs(chain(), ["relu1"])


def test_table_of_a_model_knows_its_tensors() -> None:
    model = chain()
    table = calibrate(model)
    assert set(table.ranges) == {"x", *activation_names(model)}
    assert table["relu_1"].min == 0.0
    assert table["conv_0"].max == table["relu_1"].max
    assert table["conv_0"].min < 0.0
