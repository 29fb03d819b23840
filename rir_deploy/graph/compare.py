"""Whether two graphs compute the same: both run on random inputs, and every output is compared.

1. Sizes: a dynamic size is tried at two values, and where several inputs have one of their own, at 1 in each alone,
   since sums may broadcast it. Inputs of a fixed size are drawn twice.
2. Types: inputs have the types that the graph takes. Both graphs run in one runtime, ONNX Runtime where it takes them.
3. Limit: a part of the largest value of an output, by the coarsest type that it is computed through. NaN and
   infinities have to be where they were; where the original overflows, it is tried on smaller inputs first.
4. A graph with steps or poles in it (a rounding, an argmax, a logarithm) magnifies rounding errors without bound. An
   output over the limit is no difference where the original itself moves about as much when its inputs and weights
   move by a rounding error, or changes the shape of that output.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import LiftConstantsToInitializersPass

from rir_deploy.graph.evaluate import Evaluator, Feeds, Graph, GraphInput, NotRunError, open_evaluator
from rir_deploy.graph.runtime import first_line
from rir_deploy.graph.weights import is_weight

# The largest difference allowed, relative to the largest value of the output.
LIMITS: Mapping[ir.DataType, float] = {
    ir.DataType.BFLOAT16: 1e-1,
    ir.DataType.FLOAT16: 2e-2,
    ir.DataType.FLOAT: 1e-4,
    ir.DataType.DOUBLE: 1e-10,
}
# A relative error of about a rounding in each of the types.
_EPSILON = {ir.DataType.BFLOAT16: 8e-3, ir.DataType.FLOAT16: 1e-3, ir.DataType.FLOAT: 1e-6, ir.DataType.DOUBLE: 1e-14}
# Sizes tried for dynamic axes other than the batch until the original takes them: even axes, odd axes.
_SIZES = ((32, 48), (32, 32), (64, 64), (64, 96), (224, 224), (16, 24), (8, 8), (4, 4), (2, 2), (1, 1))
_SMALL_FIRST = ((8, 8), (16, 24), *_SIZES)
_BATCHES = (2, 3)
_SEED = 20_160_329
# Where the original's answer is not finite: smaller inputs, this many times.
_SMALLER, _TIMES = 1 / 32, 3
_SETTINGS = 2
# By so many times as much as the original moves may the result differ: three draws do not find the largest movement.
_EXCUSED = 5
# An input of more elements is not drawn where its size is free, nor two whose product has more: were one the kernel of
# a convolution of the other, that is about its work. No further sizes are tried after so many seconds.
_MAX_ELEMENTS, _MAX_PRODUCT, _PATIENCE_S = 1 << 20, 1 << 28, 20.0


@dataclass(frozen=True)
class Equivalence:
    """``difference`` is the largest of any output, relative to its largest value; at most ``limit``.

    ``inputs`` lists the sizes of each comparison, by input. ``skipped`` says why nothing was compared, empty where it
    was; then ``runtime`` is empty and ``difference`` None.
    """

    runtime: str = ""
    inputs: tuple[Mapping[str, tuple[int, ...]], ...] = ()
    difference: float | None = None
    limit: float | None = None
    seconds: float = 0.0
    skipped: str = ""

    def to_dict(self) -> dict[str, object]:
        return {
            "runtime": self.runtime,
            "inputs": [{name: list(shape) for name, shape in sizes.items()} for sizes in self.inputs],
            "difference": self.difference,
            "limit": self.limit,
            "seconds": self.seconds,
            "skipped": self.skipped,
        }

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Equivalence:
        """What `to_dict` gave."""
        inputs = tuple({name: tuple(shape) for name, shape in sizes.items()} for sizes in data["inputs"])
        return Equivalence(**{**data, "inputs": inputs})


class DifferenceError(Exception):
    """The two graphs differ; the message says where and by how much."""


def compare_here(
    original: Graph, result: Graph, limit: float | None, on_original: Callable[[], object] = lambda: None
) -> Equivalence:
    """The comparison in this process; ``on_original`` is called once the original has run.

    Raises:
        DifferenceError: they differ.
        NotRunError: nothing runs the original.
    """
    types = _coarsest_types(original.model)
    limits = {name: LIMITS[dtype] if limit is None else limit for name, dtype in types.items()}
    runtime, reference, runs = _runs_of(original)
    on_original()
    answers = _answers_of(result, [feeds for feeds, _ in runs], reference)
    worst = 0.0
    for (feeds, expected), answer in zip(runs, answers, strict=True):
        for name, left, right in zip(original.outputs, expected, answer, strict=True):
            difference = _difference(left, right, limits[name])
            if difference.is_over:
                exact, moved = _again(original, feeds, name, types[name], reference)
                if _difference(left, exact, limits[name]).is_over:
                    raise NotRunError("its answers are random")
                if _is_as_unsteady(exact, moved, difference):
                    continue
                raise DifferenceError(f"its output '{name}' {difference.words} for {_sizes_of(feeds)}")
            worst = max(worst, difference.relative)
    sizes = tuple({name: array.shape for name, array in feeds.items()} for feeds, _ in runs)
    return Equivalence(runtime, sizes, worst, max(limits.values(), default=limit))


def compare_rows(original: Graph, result: Graph, size: int) -> None:
    """Hold ``result`` in batches of 1 and of ``size`` + 1 against the ``original``, which takes ``size`` images only.

    Raises:
        DifferenceError: an image is answered otherwise, or a batch is not taken.
        NotRunError: nothing runs the original.
    """
    limits = {name: LIMITS[dtype] for name, dtype in _coarsest_types(original.model).items()}
    (given,) = original.inputs
    shape = tuple(axis if isinstance(axis, int) else 32 for axis in given.dims[1:])
    images = _draw(given, (2 * size, *shape), 0, 1.0)
    with open_evaluator(original) as evaluator:
        try:
            halves = [evaluator.run({given.name: part}) for part in (images[:size], images[size:])]
        except Exception as error:  # each runtime has its own: other sizes than these would do
            raise NotRunError(first_line(error)) from error
    expected = [np.concatenate(pair) for pair in zip(*halves, strict=True)]
    for count in (1, size + 1):
        feeds = {given.name: images[:count]}
        (answer,) = _answers_of(result, [feeds], False)
        for name, left, right in zip(original.outputs, expected, answer, strict=True):
            difference = _difference(left[:count], right, limits[name])
            if difference.is_over:
                raise DifferenceError(f"its output '{name}' {difference.words} for {_sizes_of(feeds)}")


def check_interface(original: Graph, result: Graph) -> None:
    """Raises DifferenceError where the two have not the same inputs and outputs."""
    for kind, before, after in (
        ("inputs", [value.name for value in original.inputs], [value.name for value in result.inputs]),
        ("outputs", original.outputs, result.outputs),
    ):
        if list(before) != list(after):
            raise DifferenceError(f"its {kind} are {', '.join(after)}, not {', '.join(before)}")


def _coarsest_types(model: ir.Model) -> dict[str, ir.DataType]:
    """By output: the float type with the fewest digits that it is computed through, float32 where there is none."""
    reached: dict[ir.Value, frozenset[ir.DataType]] = {}
    for node in model.graph:
        inner = [one for attribute in node.attributes.values() for one in _inner_nodes(attribute)]
        values = [value for one in (node, *inner) for value in (*one.inputs, *one.outputs) if value is not None]
        types = {value.dtype for value in values if value.dtype is not None}
        types |= {ir.DataType(one.attributes.get_int("to", 0)) for one in (node, *inner) if one.op_type == "Cast"}
        found = frozenset(types).union(*(reached.get(value, frozenset()) for value in values))
        reached.update((value, found & LIMITS.keys()) for value in node.outputs)
    types_of = {str(value.name): reached.get(value, frozenset({value.dtype})) for value in model.graph.outputs}
    return {
        name: next((dtype for dtype in LIMITS if dtype in found), ir.DataType.FLOAT) for name, found in types_of.items()
    }


def _inner_nodes(attribute: ir.Attr) -> list[ir.Node]:
    if attribute.type == ir.AttributeType.GRAPH:
        return list(attribute.as_graph().all_nodes())
    if attribute.type == ir.AttributeType.GRAPHS:
        return [node for graph in attribute.as_graphs() for node in graph.all_nodes()]
    return []


def _runs_of(original: Graph) -> tuple[str, bool, list[tuple[Feeds, Sequence[Any]]]]:
    """The runtime that runs the original, whether it is onnx's reference, and the inputs tried with their answers.

    Raises:
        NotRunError: none runs it, at any of the sizes tried.
    """
    reasons: list[str] = []
    for reference in (False, True):
        try:
            with open_evaluator(original, reference=reference) as evaluator:
                return evaluator.name, reference, _runs(original.inputs, evaluator)
        except NotRunError as error:
            reasons.append(str(error))
    raise NotRunError("; ".join(reasons))


def _runs(inputs: Sequence[GraphInput], evaluator: Evaluator) -> list[tuple[Feeds, Sequence[Any]]]:
    """Answers at `_SETTINGS` choices of sizes, and at those with a size of 1 that the original takes."""
    runs: list[tuple[Feeds, Sequence[Any]]] = []
    failure, started = "its inputs are too large to try", time.perf_counter()
    for sizes in _settings(inputs, evaluator.is_reference):
        if len(runs) == _SETTINGS or time.perf_counter() - started > _PATIENCE_S:
            break
        try:
            runs.append(_finite_run(inputs, sizes, len(runs), evaluator))
        except Exception as error:  # of the runtime: the graph does not take these sizes
            failure = first_line(error)
    if not runs:
        raise NotRunError(f"{evaluator.name} runs it at none of the sizes tried: {failure}")
    sizes = {name: array.shape for name, array in runs[0][0].items()}
    for single in _broadcast_settings(inputs, sizes):
        try:
            runs.append(_finite_run(inputs, single, len(runs), evaluator))
        except Exception:  # nothing is broadcast there
            continue
    return runs


def _settings(inputs: Sequence[GraphInput], reference: bool) -> Iterator[dict[str, tuple[int, ...]]]:
    """Sizes by input, the likeliest first; the second of a choice is odd, or has its axes exchanged.

    The reference takes its time: it begins with small sizes, and draws inputs of fixed sizes once.
    """
    if all(isinstance(size, int) for value in inputs for size in value.dims):
        fixed = {value.name: tuple(map(int, _known(value))) for value in inputs}
        yield from itertools.repeat(fixed, 1 if reference else _SETTINGS)
        return
    free = [value.name for value in inputs if any(not isinstance(size, int) for size in value.dims[1:])]
    for sizes, batches in itertools.product(_SMALL_FIRST if reference else _SIZES, (_BATCHES, (1, 1))):
        for batch, pair in ((batches[0], sizes), (batches[1], _odd(sizes)), (batches[1], sizes[::-1])):
            chosen = {value.name: _chosen(value, batch, pair) for value in inputs}
            largest = sorted(prod(chosen[name]) for name in free)[-2:]
            if not free or (largest[-1] <= _MAX_ELEMENTS and (len(free) < 2 or prod(largest) <= _MAX_PRODUCT)):
                yield chosen


def _odd(sizes: tuple[int, int]) -> tuple[int, int]:
    """Odd sizes near these: at an even size a stride hides how a window's last place is rounded."""
    return sizes[0] + 11 - sizes[0] % 2, sizes[1] + 11 - sizes[1] % 2


def _known(value: GraphInput) -> list[int]:
    return [size for size in value.dims if isinstance(size, int)]


def _chosen(value: GraphInput, batch: int, pair: tuple[int, int]) -> tuple[int, ...]:
    return tuple(
        size if isinstance(size, int) else batch if axis == 0 else pair[axis % 2]
        for axis, size in enumerate(value.dims)
    )


def _broadcast_settings(
    inputs: Sequence[GraphInput], sizes: Mapping[str, tuple[int, ...]]
) -> Iterator[dict[str, tuple[int, ...]]]:
    """Each dynamic size that one input has for itself, at 1."""
    for value in inputs:
        for axis, size in enumerate(value.dims):
            elsewhere = [other for other in inputs if other is not value]
            shared = isinstance(size, str) and any(size in other.dims for other in elsewhere)
            if elsewhere and not isinstance(size, int) and not shared and sizes[value.name][axis] != 1:
                shape = list(sizes[value.name])
                shape[axis] = 1
                yield {**sizes, value.name: tuple(shape)}


def _finite_run(
    inputs: Sequence[GraphInput], sizes: Mapping[str, tuple[int, ...]], number: int, evaluator: Evaluator
) -> tuple[Feeds, Sequence[Any]]:
    """Inputs and answers; on smaller inputs where the answers of larger ones are not all finite."""
    scale, kept = 1.0, None
    for _ in range(_TIMES):
        feeds = {value.name: _draw(value, sizes[value.name], number, scale) for value in inputs}
        outputs = evaluator.run(feeds)
        if all(_is_finite(output) for output in outputs):
            return feeds, outputs
        kept, scale = kept or (feeds, outputs), scale * _SMALLER
    assert kept is not None
    return kept


def _draw(value: GraphInput, shape: tuple[int, ...], number: int, scale: float) -> NDArray[np.generic]:
    """Normal numbers for the first choice of sizes, numbers from 0 to 1 as pixels have for the next, in turns."""
    random = np.random.default_rng([_SEED, number, *value.name.encode()])
    dtype = value.dtype
    if dtype == ir.DataType.STRING:
        return random.choice(np.array(["a", "b", "c"], dtype=object), shape)
    numpy_dtype = dtype.numpy()
    if dtype.is_floating_point():
        drawn = random.standard_normal(shape) if number % 2 == 0 else random.uniform(0, 1, shape)
        return np.asarray(drawn * scale).astype(numpy_dtype)
    if dtype == ir.DataType.BOOL:
        return random.integers(0, 2, shape).astype(bool)
    if dtype in (ir.DataType.UINT8, ir.DataType.INT8):
        limits = np.iinfo(numpy_dtype)
        return random.integers(limits.min, limits.max + 1, shape).astype(numpy_dtype)
    return random.integers(1, 3, shape).astype(numpy_dtype)  # indices and sizes; a zero may be divided by


def _answers_of(result: Graph, feeds: Sequence[Feeds], reference: bool) -> list[Sequence[Any]]:
    try:
        with open_evaluator(result, reference=reference) as evaluator:
            return [_answer(evaluator, given) for given in feeds]
    except NotRunError as error:
        raise DifferenceError(f"it no longer loads ({error})") from error


def _answer(evaluator: Evaluator, feeds: Feeds) -> Sequence[Any]:
    try:
        return evaluator.run(feeds)
    except Exception as error:  # each runtime has its own
        raise DifferenceError(f"it no longer runs for {_sizes_of(feeds)} ({first_line(error)})") from error


@dataclass(frozen=True)
class _Difference:
    """``largest`` in the output's own units, ``over`` the number of elements over the limit."""

    largest: float = 0.0
    relative: float = 0.0
    over: int = 0
    reason: str = ""
    limit: float = 0.0

    @property
    def is_over(self) -> bool:
        return bool(self.reason) or self.over > 0

    @property
    def words(self) -> str:
        if self.reason:
            return self.reason
        return f"differs by {self.relative:.2g} of its largest value (limit {self.limit:.0e})"


def _difference(left: Any, right: Any, limit: float) -> _Difference:
    """Of two answers for one output: arrays, or lists of them."""
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        if len(left) != len(right):
            return _Difference(reason=f"has {len(right)} elements, not {len(left)}")
        parts = [_difference(one, other, limit) for one, other in zip(left, right, strict=True)]
        return max(parts, key=lambda part: (bool(part.reason), part.relative), default=_Difference())
    before, after = np.asarray(left), np.asarray(right)
    if before.dtype != after.dtype:
        return _Difference(reason=f"has the type {after.dtype}, not {before.dtype}")
    if before.shape != after.shape:
        return _Difference(reason=f"has the shape {_shape(after.shape)}, not {_shape(before.shape)}")
    if not _is_number(before):
        return _Difference(reason="" if bool((before == after).all()) else "holds other values")
    return _distance(before.astype(np.float64), after.astype(np.float64), limit)


def _distance(before: NDArray[np.float64], after: NDArray[np.float64], limit: float) -> _Difference:
    finite = np.isfinite(before)
    if not (np.array_equal(finite, np.isfinite(after)) and np.array_equal(before[~finite], after[~finite], True)):
        return _Difference(reason="has NaN or infinities in other places")
    distance = np.abs(before[finite] - after[finite])
    largest = float(distance.max(initial=0.0))
    scale = float(np.abs(before[finite]).max(initial=0.0))
    over = int((distance > limit * scale).sum())
    relative = largest / scale if scale else float(largest > 0)
    return _Difference(largest, relative, over, limit=limit)


def _is_number(array: NDArray[Any]) -> bool:
    return array.dtype.kind in "fiub" or array.dtype.name in ("bfloat16", "float8_e4m3fn", "float8_e5m2")


def _is_finite(output: Any) -> bool:
    if isinstance(output, list | tuple):
        return all(_is_finite(part) for part in output)
    array = np.asarray(output)
    return not _is_number(array) or bool(np.isfinite(array.astype(np.float64)).all())


def _again(original: Graph, feeds: Feeds, name: str, coarsest: ir.DataType, reference: bool) -> tuple[Any, list[Any]]:
    """An output of the original once more, and with inputs and weights moved by a rounding error."""
    index = original.outputs.index(name)
    with open_evaluator(original, reference=reference) as evaluator:
        evaluator.run(feeds)  # where answers are random, the second differs from the first of a session
        exact = evaluator.run(feeds)[index]
    moved = []
    for number in range(_TIMES):
        with open_evaluator(_with_moved_weights(original, coarsest, number), reference=reference) as evaluator:
            moved.append(evaluator.run({key: _moved(array, coarsest, number) for key, array in feeds.items()})[index])
    return exact, moved


def _with_moved_weights(graph: Graph, coarsest: ir.DataType, number: int) -> Graph:
    """Of what layers read; sizes, bounds and scales of a Resize stay as they are."""
    model = LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(graph.model.clone()).model
    for value in model.graph.initializers.values():
        if value.const_value is not None and is_weight(value):
            array = _moved(value.const_value.numpy(), coarsest, number)
            value.const_value = ir.tensor(array, dtype=value.const_value.dtype, name=value.name)
    return Graph(model)


def _moved(array: NDArray[np.generic], coarsest: ir.DataType, number: int) -> NDArray[np.generic]:
    """Floats times one and about a rounding error; anything else as it is."""
    if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
        return array
    noise = 1 + _EPSILON[coarsest] * np.random.default_rng([_SEED, number]).standard_normal(array.shape)
    moved: NDArray[np.generic] = (array.astype(np.float64) * noise).astype(array.dtype)
    return moved


def _is_as_unsteady(exact: Any, moved: Sequence[Any], difference: _Difference) -> bool:
    """Whether the original moves about as far, at about as many places, as the result differs, or changes its shape."""
    own = [_difference(exact, other, difference.limit) for other in moved]
    if any(part.reason for part in own):
        return True
    if difference.reason:
        return False
    largest, over = max(part.largest for part in own), max(part.over for part in own)
    return difference.largest <= _EXCUSED * largest and difference.over <= _EXCUSED * over


def _sizes_of(feeds: Feeds) -> str:
    return ", ".join(f"{name} {_shape(array.shape)}" for name, array in feeds.items()) or "no inputs"


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"
