"""What of a normal form is still needed: rules that see through several nodes leave them behind unread."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from rir_deploy.fold.affine import NormalForm
from rir_deploy.fold.forms import Segment, Source
from rir_deploy.fold.nested import values_read


def drop_unread(nf: NormalForm) -> None:
    """Forget the kept nodes and the sources that no graph output depends on."""
    live: dict[ir.Value | Source, None] = {}
    pending: list[ir.Value | Source] = list(nf.required)
    while pending:
        item = pending.pop()
        if item not in live:
            live[item] = None
            pending.extend(_read_by(nf, item))
    nodes = {_maker(nf, item) for item in live}
    nf.kept[:] = [node for node in nf.kept if node in nodes]
    nf.sources[:] = [source for source in nf.sources if source in live]


def _maker(nf: NormalForm, item: ir.Value | Source) -> ir.Node | None:
    """The kept node that makes a value or a source; None where the algebra does."""
    if isinstance(item, Source):
        return item.origin.producer() if item.is_kept else None
    return item.producer() if nf.form(item) is None else None


def _read_by(nf: NormalForm, item: ir.Value | Source) -> list[ir.Value | Source]:
    """What a value or a source is directly made of."""
    node = _maker(nf, item)
    if node is not None:
        return [*values_read(node)]
    if isinstance(item, Source):
        return _sources([] if item.operand is None else [item.operand])
    form = nf.form(item)
    return [] if form is None else _sources(form.segments)


def _sources(segments: Iterable[Segment]) -> list[ir.Value | Source]:
    return [term.source for segment in segments for term in segment.terms]
