"""The fold as one stage: model in, folded model and an account of what was done out."""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import onnx_ir as ir
from onnx_ir.passes import common

from rir_deploy.errors import GateError, InputError, RirDeployError
from rir_deploy.fold.affine import NormalForm, Refused
from rir_deploy.fold.atoms import Atom, Atoms
from rir_deploy.fold.branches import count_blocks
from rir_deploy.fold.budget import Plan, tighter
from rir_deploy.fold.constants import EvaluateConstants
from rir_deploy.fold.fault import find_fault
from rir_deploy.fold.join import partition
from rir_deploy.fold.live import drop_unread
from rir_deploy.fold.lower import Lowering
from rir_deploy.fold.nested import RemoveUnread, detach, names_in, values_read
from rir_deploy.fold.prune import prune
from rir_deploy.fold.rules import RULES
from rir_deploy.fold.shapes import InferShapes
from rir_deploy.fold.sizes import NameSizes, forget_names
from rir_deploy.fold.work import Work, measure_work_at
from rir_deploy.graph.domains import LONG_NAME, use_short_domain
from rir_deploy.graph.equivalence import Equivalence, require_equal
from rir_deploy.graph.evaluate import Graph
from rir_deploy.graph.opset import convert_opset

# Pads, slices and clips took attributes instead of inputs before this opset; older graphs are raised to it.
MIN_OPSET = 11

# Read aloud: functions become plain nodes, what nobody reads goes (it would look like a second reader of what it
# reads), constants and what follows from them become weights, sizes get names, shapes become known; then the fold; then
# what nobody reads any more goes.
PREPARE: tuple[Callable[[], ir.passes.PassBase], ...] = (
    common.InlinePass,
    RemoveUnread,
    EvaluateConstants,
    NameSizes,
    InferShapes,
)
FINISH: tuple[Callable[[], ir.passes.PassBase], ...] = (
    RemoveUnread,
    common.RemoveUnusedFunctionsPass,
    common.RemoveUnusedOpsetsPass,
    InferShapes,
)


@dataclass(frozen=True)
class FoldOptions:
    """``require``: raise where nothing folds. ``check``: run the result beside the model; raise where they differ."""

    require: bool = False
    check: bool = True


@dataclass(frozen=True)
class FoldResult:
    """``model`` is a new model; where ``modified`` is False it computes and costs what the given one does.

    ``dead_channels``: how many channels went that were zero for every input, or that nothing read.
    ``blocks``: how many convolutions do the work of several branches: of several convolutions, or of a convolution and
    an identity, a batch norm alone or an average pool beside it. A batch norm that a convolution took in is no branch.
    ``check``: how the two were compared on random inputs; None where it was not asked for.
    """

    model: ir.Model
    modified: bool
    before: Work
    after: Work
    refused: tuple[Refused, ...]
    dead_channels: int = 0
    blocks: int = 0
    check: Equivalence | None = None

    def to_dict(self) -> dict[str, object]:
        before, after = self.before.to_dict(), self.after.to_dict()
        counts = {key: {"before": before[key], "after": after[key]} for key in before}
        refused = [{"node": refusal.node, "reason": refusal.reason} for refusal in self.refused]
        done = {"modified": self.modified, "blocks": self.blocks, "dead_channels": self.dead_channels}
        check = None if self.check is None else self.check.to_dict()
        return {**done, **counts, "refused": refused, "check": check}


def fold(model: ir.Model, options: FoldOptions = FoldOptions()) -> FoldResult:
    """Fold every block whose branches are affine into one convolution.

    Args:
        model: any ONNX model; it is not changed.

    Returns:
        A model with the same inputs, outputs and function, with no more multiply-adds and no more weight bytes.

    Raises:
        InputError: the opset is older than `MIN_OPSET` and cannot be raised, or the graph is malformed.
        GateError: ``options.require`` is set and nothing folds; or the result does not compute what the model does.
    """
    model = _in_short_domain(model)
    with _collector_paused():
        try:
            result = _fold_within_budget(_raised(model))
        except (RirDeployError, MemoryError):
            raise
        except Exception as error:  # rules read what the standard says is there
            fault = find_fault(model)
            if fault is None:
                raise
            raise InputError(f"the model is not valid ONNX: {fault}; export it again") from error
    if not result.modified:
        result = replace(result, model=model.clone())
    if options.require and not result.modified:
        raise GateError("nothing in the graph folds (--require): " + _reasons(result.refused))
    return replace(result, check=check_fold(Graph(model), Graph(result.model))) if options.check else result


def check_fold(original: Graph, folded: Graph) -> Equivalence:
    """Both run on random inputs.

    Raises:
        GateError: they do not compute the same.
    """
    return require_equal(original, folded, "folding", "go on without folding")


def _raised(model: ir.Model) -> ir.Model:
    """Where nothing folds, the model is returned as it came, in its own opset."""
    if model.graph.opset_imports.get("", 0) >= MIN_OPSET:
        return model
    try:
        return convert_opset(model, MIN_OPSET)
    except InputError as error:
        raise InputError(f"{error}, or build it unfolded (--no-fold)") from error


def _in_short_domain(model: ir.Model) -> ir.Model:
    """The model itself, unless it calls ONNX's own domain by its long name."""
    if LONG_NAME not in model.graph.opset_imports:
        return model
    renamed = model.clone()
    use_short_domain(renamed)
    return renamed


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Graphs are full of cycles and all alive: looking for garbage among them costs more the larger they get."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _fold_within_budget(model: ir.Model) -> FoldResult:
    before, size = measure_work_at(model)
    plan: Plan | None = Plan()
    while plan is not None:
        folded, after, refused, dead = _fold_settled(model, before, size, plan)
        excess = after.weight_bytes - before.weight_bytes
        plan = tighter(plan, _prepared(model), excess) if excess > 0 else None
    grown = after.macs > before.macs or after.weight_bytes > before.weight_bytes
    if grown:
        reason = "the folded graph would have more multiply-adds or weights: kept as it was"
        refused = (*refused, Refused("graph", reason))
    if grown or not _is_better(before, after):
        return FoldResult(model.clone(), False, before, before, refused)
    forget_names(folded.graph)
    return FoldResult(folded, True, before, after, refused, dead, count_blocks(folded.graph))


def _is_better(before: Work, after: Work) -> bool:
    """Fewer convolutions, or as many and less of everything else."""
    return (after.convs, after.nodes, after.macs) < (before.convs, before.nodes, before.macs)


def _reasons(refused: tuple[Refused, ...]) -> str:
    if not refused:
        return "it has no convolution branches to join and no scale to absorb"
    return "; ".join(f"{refusal.node}: {refusal.reason}" for refusal in refused[:3])


def _prepared(model: ir.Model) -> ir.Model:
    prepared = model.clone()
    for make in PREPARE:
        prepared = make()(prepared).model
    return prepared


def _fold_settled(
    model: ir.Model, before: Work, size: int, plan: Plan
) -> tuple[ir.Model, Work, tuple[Refused, ...], int]:
    """The model folded until nothing folds further, its work, what was refused, and how many dead channels went.

    ``size`` is what dynamic sizes were taken to be for ``before``.

    Once channels are gone, or two readers of a tensor have become one, what is left may fold in ways that it did not
    before. Folding the result again therefore changes nothing.
    """
    folded, work = model, before
    again, refused, dead = _fold_graph(_prepared(model), plan)
    total = 0
    while _is_better(work, after := measure_work_at(again, size)[0]):
        folded, work, total = again, after, total + dead
        again, _, dead = _fold_graph(folded.clone(), plan)
    return folded, work, refused, total


def _fold_graph(prepared: ir.Model, plan: Plan) -> tuple[ir.Model, tuple[Refused, ...], int]:
    """One pass, in place: the folded model, what was refused, and how many dead channels went."""
    graph = prepared.graph
    nf = NormalForm(graph, RULES, plan.untouched)
    drop_unread(nf)
    dead = prune(nf)
    atoms = Atoms(nf)
    groups = partition(atoms, _wanted_orders(nf, atoms), _reads_outside(nf, atoms))
    lowering = Lowering(nf, atoms, groups, _names(nf, graph), plan.lean)
    _rewrite(graph, lowering, nf.kept)
    for make in FINISH:
        prepared = make()(prepared).model
    return prepared, tuple(nf.refused), dead


def _wanted_orders(nf: NormalForm, atoms: Atoms) -> list[tuple[Atom, ...]]:
    """The channel orders in which nodes outside the fold, and the graph's outputs, read joined tensors."""
    values = [value for node in nf.kept for value in node.inputs if value is not None] + nf.required
    orders = []
    for value in values:
        form = nf.form(value)
        if form is not None:
            parts = atoms.sequence(form)
            orders.append(tuple(atom for part in parts if isinstance(part, tuple) for atom in part))
    return orders


def _reads_outside(nf: NormalForm, atoms: Atoms) -> Iterator[tuple[int, Atom]]:
    """At which depth a node outside the fold reads which atoms."""
    for node in nf.kept:
        forms = [form for value in values_read(node) if (form := nf.form(value)) is not None]
        for part in (part for form in forms for part in atoms.sequence(form) if isinstance(part, tuple)):
            yield from ((atoms.depth_of(node), atom) for atom in part)


def _names(nf: NormalForm, graph: ir.Graph) -> set[str]:
    """Names that new values must not take: those of everything that stays."""
    names = {str(value.name) for node in nf.kept for value in node.outputs} | names_in(graph)
    return names | {str(value.name) for value in (*graph.inputs, *graph.outputs)} | set(graph.initializers)


def _rewrite(graph: ir.Graph, lowering: Lowering, kept: Sequence[ir.Node]) -> None:
    """Put the lowered nodes in the place of the old ones; graph inputs, outputs and their names stay."""
    staying = set(kept)
    outputs = list(graph.outputs)
    graph.outputs.clear()
    for node in reversed(list(graph)):
        if node in staying:
            graph.remove(node)
            continue
        for value in node.outputs:
            if (new := lowering.replaced.get(value, value)) is not value:
                value.replace_all_uses_with(new)
        detach(node)
        graph.remove(node, safe=True)
    final: dict[ir.Value, ir.Value] = {}
    for value in outputs:
        if value not in final:  # a graph may give one tensor twice
            final[value] = _output(value, lowering, staying, final.values())
    graph.extend(lowering.writer.nodes)
    graph.outputs.extend(final[value] for value in outputs)
    for initializer in lowering.writer.initializers:
        graph.register_initializer(initializer)
    for name, initializer in list(graph.initializers.items()):
        if not initializer.uses() and initializer not in final.values() and not initializer.is_graph_input():
            del graph.initializers[name]


def _output(value: ir.Value, lowering: Lowering, kept: set[ir.Node], taken: Collection[ir.Value]) -> ir.Value:
    """The tensor that is the graph output ``value`` from now on, under its old name."""
    new = lowering.replaced.get(value, value)
    if new is value:
        return value
    producer, name = new.producer(), value.name
    if producer is None or producer in kept or new in taken:  # it has a name of its own to keep
        copy = ir.Value(type=value.type)
        lowering.writer.nodes.append(ir.Node("", "Identity", [new], outputs=[copy], name=f"{name}/Identity"))
        new = copy
    value.name = None
    new.name, new.type, new.shape = name, value.type, value.shape
    return new
