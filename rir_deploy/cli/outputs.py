"""What a command writes: the type of such a path, and the refusal of one that would replace what the command reads."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click

from rir_deploy.cli.messages import verbose_option
from rir_deploy.cli.parts import parts_of, source_path
from rir_deploy.errors import RirDeployError, UsageError
from rir_deploy.staging import data_files

Role = Literal["file", "report", "cache", "folder", "engine"]
# Options that name images or a recipe, by a path or by a name that is none.
_IMAGES = ("data", "test_data", "eval_data")
# Range tables: the rounded weights lie beside them.
_TABLES = ("ranges", "save_ranges")


class OutputPath(click.Path):
    """A path to write to. An empty one, as an unset variable of a shell leaves it, would mean the current folder.

    ``role``: a file; the report of a run, which may be the run's own; a cache, which is read too and may lie beside the
    files of an engine; a folder that is added to; the folder of an engine, which is replaced as a whole.
    """

    def __init__(self, role: Role = "file") -> None:
        super().__init__(path_type=Path)
        self.role = role

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("it is empty; name a file or folder", param, ctx)
        return super().convert(value, param, ctx)


class UnreadOutputError(Exception):
    """Whoever reads stdout has seen enough, as ``head`` has."""


class Command(click.Command):
    """A command that begins only where what it writes replaces nothing that it reads, and no one else writes it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(verbose_option())

    def invoke(self, ctx: click.Context) -> Any:
        protect(ctx)
        try:
            with _claims(ctx):
                return super().invoke(ctx)
        except BrokenPipeError as error:  # which click would make an exit code of 1
            raise UnreadOutputError from error


@contextmanager
def _claims(ctx: click.Context) -> Iterator[None]:
    """Hold every output for as long as the command works. Caches are shared: they are replaced one by one."""
    from rir_deploy.claim import claimed, claimed_folder

    with ExitStack() as stack:
        for param in ctx.command.params:
            path = ctx.params.get(param.name or "")
            if isinstance(param.type, OutputPath) and param.type.role != "cache" and isinstance(path, Path):
                stack.enter_context((claimed_folder if param.type.role == "folder" else claimed)(path))
        yield


@dataclass(frozen=True)
class _Named:
    """A path of the command line: as it was typed, and with its links followed; ``role`` None for one that is read."""

    option: str
    typed: Path
    real: Path
    role: Role | None

    def __str__(self) -> str:
        return f"{self.option} '{self.typed}'"


def protect(ctx: click.Context, read: Mapping[str, object] | None = None) -> None:
    """Refuse, whatever --force says, outputs that would replace an input, each other, or what a run is made of.

    ``read`` are further inputs, by the option that would name them: what a plan names, for one.

    Raises:
        UsageError: naming the file.
    """
    named = [one for param in ctx.command.params for one in _named(param, ctx.params.get(param.name or ""))]
    named += [_name(name, path) for name, value in (read or {}).items() for path in _paths(name, value)]
    for output in named:
        if output.role is not None:
            for other in named:
                _check_pair(output, other)
            _check_parts(output, named)
            if output.role in ("file", "report", "cache"):
                _check_folder(output, named)


def check_outputs(*paths: Path | None, force: bool) -> None:
    """Refuse, before any work is done, files that cannot be written.

    Raises:
        UsageError: naming the file.
    """
    from rir_deploy.artifacts import check_output

    for path in paths:
        if path is not None:
            check_output(path, force=force)


def _named(param: click.Parameter, value: object) -> Iterator[_Named]:
    role = param.type.role if isinstance(param.type, OutputPath) else None
    for path in _paths(param.name or "", value):
        yield _name(param.opts[0], path, role)


def _name(option: str, path: Path, role: Role | None = None) -> _Named:
    return _Named(option, path, Path(os.path.realpath(path)), role)


def _paths(name: str, value: object) -> Iterator[Path]:
    """The paths in what an option was given, by the option's name."""
    if isinstance(value, tuple):
        for one in value:
            yield from _paths(name, one)
    elif isinstance(value, Path):
        yield value
        if name in _TABLES and value.name:
            yield value.with_suffix(".safetensors")
    elif isinstance(value, str) and value:
        if name in _IMAGES:
            path = source_path(value)
            yield from [] if path is None else [path]
        elif name == "recipe" and (value.endswith(".toml") or os.sep in value):
            yield Path(value)


def _runs(named: list[_Named]) -> dict[Path, Path]:
    """The runs that are named, by folder or record, and the folder that a run goes to; as they were typed."""
    from rir_deploy.pipeline.steps import RUN_NAME

    found = {}
    for one in named:
        if one.role == "folder" or os.path.isfile(one.real / RUN_NAME):
            found[one.real] = one.typed
        elif one.role is None and one.real.name == RUN_NAME:
            found[one.real.parent] = one.typed.parent
    return found


def _check_pair(output: _Named, other: _Named) -> None:
    if other.role is None and (other.real == output.real or _is_one(output.real, other.real)):
        raise UsageError(f"{output} would replace the input '{other.typed}'; choose another output")
    if other.real == output.real and other.option != output.option:
        raise UsageError(f"{output.option} and {other.option} name one file; name one for each")
    if output.real in other.real.parents and output.role != "folder":
        raise UsageError(f"{output} would replace '{other.typed}', which lies in it; choose another output")


def _check_parts(output: _Named, named: list[_Named]) -> None:
    """An output that is there already may be a part of an input under another name: data of a model, the end of a link
    or another name of a file in a folder. What lies in a folder that is an input is looked at by `_check_folder`.
    """
    replaced = [path for path in (output.real, *data_files(output.real)) if os.path.lexists(path)]
    if output.role == "folder" or not replaced:
        return
    for other in named:
        if other.role is not None:
            continue
        for part in parts_of(other.real if other.real.is_dir() else other.typed):
            real = Path(os.path.realpath(part))
            inside = other.real in output.real.parents
            if not inside and (output.real in real.parents or any(_is_one(one, real) for one in replaced)):
                raise UsageError(
                    f"{output} would replace '{part}', which the input '{other.typed}' reads; choose another output"
                )


def _is_one(one: Path, other: Path) -> bool:
    """Whether two names are of one file: through links, or in a file system that tells no case."""
    try:
        return one == other or os.path.samefile(one, other)
    except (OSError, ValueError):  # one of them is not there
        return False


def _check_folder(output: _Named, named: list[_Named]) -> None:
    """The closest folder that is a run or an input decides: a run keeps its own files, an input all that it holds."""
    from rir_deploy.pipeline.steps import RECORD_NAME, REPORT_NAME, is_own

    runs = _runs(named)
    read = {one.real: one.typed for one in named if one.role is None}
    for folder in output.real.parents:
        if folder in runs or os.path.isfile(folder / RECORD_NAME):
            page = output.role == "report" and folder in runs and output.real == folder / REPORT_NAME
            if is_own(output.real.relative_to(folder)) and not page:
                raise UsageError(
                    f"{output} would replace a file of the run '{runs.get(folder, folder)}'; choose another output"
                )
            return
        if folder in read and os.path.isfile(output.real):
            if output.role == "cache" and _is_strange(folder, output.real.name):
                return
            raise UsageError(f"{output} would replace a file of the input '{read[folder]}'; choose another output")


def _is_strange(engine: Path, name: str) -> bool:
    """Whether a file in the folder of an engine is none of the engine's own."""
    from rir_deploy.engines.manifest import MANIFEST_NAME, read_manifest

    try:
        manifest = read_manifest(engine)
    except RirDeployError:
        return False
    return name not in {MANIFEST_NAME, *(record.name for record in manifest.files)}
