"""What all commands share: options, output, and how errors become exit codes."""

from __future__ import annotations

import json
import os
import shlex
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from rir_deploy.cli.messages import messages_hidden
from rir_deploy.cli.outputs import OutputPath, Role, UnreadOutputError
from rir_deploy.cli.signals import interruptible, signal_of
from rir_deploy.errors import InputError, RirDeployError, UsageError, unknown_name
from rir_deploy.file_system import system_error, writing_to
from rir_deploy.notices import Notice
from rir_deploy.plain_text import printable, whole_number

if TYPE_CHECKING:
    from rir_deploy.engines.base import BatchRange
    from rir_deploy.pipeline.progress import Progress

Function = TypeVar("Function", bound=Callable[..., Any])

# Characters of an error, however long the names in it are.
MAX_MESSAGE = 1000
_NOTICES = "rir_deploy.notices"


def _batches(_ctx: click.Context, _param: click.Parameter, value: str) -> tuple[int, ...]:
    sizes = [size for part in value.split(",") if (size := whole_number(part)) is not None]
    if len(sizes) != value.count(",") + 1:
        raise click.BadParameter(f"'{value}' is not a list of batch sizes; write for example 1,8,32")
    return tuple(sizes)


batches_option = click.option(
    "--batch", "batches", default="1", show_default=True, metavar="N,...", callback=_batches, help="Batch sizes."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
force_option = click.option("--force", is_flag=True, help="Replace the output if it exists.")
recipe_option = click.option(
    "--recipe", metavar="NAME|FILE", help="Preprocessing recipe: digits, cifar10, cifar100 or a .toml file."
)
model_option = click.option(
    "--model",
    "factory",
    metavar="PKG.MOD:FACTORY",
    help="Build the network by calling this function. Runs that code; nothing else does.",
)
weights_option = click.option(
    "--weights",
    metavar="ema|model|KEY",
    help="Which weights of a checkpoint that holds several: averaged, not averaged, or those under a key.",
)
trust_option = click.option(
    "--trust",
    is_flag=True,
    help="Load engines that are not what their manifests say. They are native code: know whose.",
)
data_option = click.option(
    "--data",
    metavar="SOURCE",
    help="Images: a folder or zip of class folders, an .npz file, a CIFAR binary folder, or digits.",
)


markdown_option = click.option(
    "--markdown", type=OutputPath(), metavar="FILE", help="Write it as GitHub-flavoured Markdown."
)
junit_option = click.option("--junit", type=OutputPath(), metavar="FILE", help="Write it as JUnit XML, for CI systems.")


def output_option(what: str, role: Role = "file") -> Callable[[Function], Function]:
    return click.option("-o", "--output", required=True, type=OutputPath(role), help=what)


@contextmanager
def progress(as_json: bool) -> Iterator[Progress]:
    """Progress bars on a terminal; nothing where a program is listening."""
    from rir_deploy.pipeline.progress import silent
    from rir_deploy.report.console import progress_bars

    if as_json:
        yield silent
    else:
        with progress_bars() as bars:
            yield bars


def print_json(data: object) -> None:
    """One object on stdout, in ASCII without control characters. NaN is not JSON: it is printed as null.

    Notices of the command are its "notices".

    Raises:
        UsageError: stdout is closed, or what it goes to is full.
    """
    if sys.stdout is None:
        raise UsageError("cannot write the JSON: stdout is closed; send it to a file or a pipe")
    context = click.get_current_context(silent=True)
    said = [] if context is None else context.find_root().meta.get(_NOTICES, [])
    data = {**data, "notices": said} if said and isinstance(data, dict) else data
    text = json.dumps(_finite(data), indent=2, allow_nan=False)
    with _to_stdout():
        click.echo(text.replace("\x7f", "\\u007f"))  # the one control character that JSON leaves as it is


def _to_stdout() -> AbstractContextManager[None]:
    return writing_to("to stdout", "send it elsewhere")


@contextmanager
def notices() -> Iterator[None]:
    """Print every `Notice` once, and keep it for `print_json`."""
    context, others = click.get_current_context().find_root(), warnings.showwarning
    said = context.meta.setdefault(_NOTICES, [])

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if not issubclass(category, Notice):
            others(message, category, *where, **more)
        elif (text := printable(str(message))) not in said:
            said.append(text)
            warn(text)

    with warnings.catch_warnings():
        warnings.simplefilter("always", Notice)
        warnings.showwarning = show
        yield


def _finite(data: object) -> object:
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    if isinstance(data, float) and (data != data or data in (float("inf"), float("-inf"))):
        return None
    return data


def say(text: str) -> None:
    """A line for people, on stdout."""
    with _to_stdout():
        click.echo(printable(text))


def warn(text: str) -> None:
    """A line for people, on stderr."""
    complain(f"warning: {text}")


def complain(text: str) -> None:
    """A line on stderr: what is wrong with the result."""
    click.echo(printable(f"rir-deploy: {text}"), err=True)


def command_line() -> str:
    """The command being run, as it could be typed again."""
    return shlex.join(["rir-deploy", *click.get_current_context().find_root().obj])


def image_size(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """Parse 32 or 32x48 (height x width)."""
    if value is None:
        return None
    sides = [side for part in value.lower().split("x") if (side := whole_number(part))]
    if len(sides) not in (1, 2) or len(sides) != value.lower().count("x") + 1:
        raise click.BadParameter(f"'{value}' is not a size; write 32 or 32x48 (height x width)")
    return sides[0], sides[-1]


def batch_range(text: str) -> BatchRange:
    """Parse MIN,OPT,MAX."""
    from rir_deploy.engines.base import BatchRange

    sizes = [size for part in text.split(",") if (size := whole_number(part)) is not None]
    if len(sizes) != 3 or text.count(",") != 2:
        raise UsageError(f"--batch '{text}' is not MIN,OPT,MAX; write for example 1,1,32")
    return BatchRange(*sizes)


def run_command(command: click.Command, arguments: list[str] | None = None) -> int:
    """Run a command and turn whatever happens into an exit code and one sentence on stderr."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        with interruptible(), messages_hidden():
            return _run(command, arguments)
    except KeyboardInterrupt as error:  # while what went before was told of
        return 128 + signal_of(error)


def _run(command: click.Command, arguments: list[str]) -> int:
    try:
        result = command.main(args=arguments, prog_name="rir-deploy", obj=arguments, standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx is not None else error.format_message(), err=True)
        return UsageError.exit_code
    except (click.Abort, KeyboardInterrupt) as error:
        return _told("interrupted", 128 + signal_of(error), arguments)
    except UnreadOutputError:
        _close_stdout()
        return 0
    except Exception as error:
        refusal = _as_refusal(error)
        if refusal is None:  # a bug: show it whole
            _print_trace()
            return _told("unexpected error, please report it with the lines above", 1, arguments)
        return _told(f"error: {refusal}", refusal.exit_code, arguments)


def _as_refusal(error: Exception) -> RirDeployError | None:
    """What a user can do something about, as one of our errors; None for a bug."""
    if isinstance(error, RirDeployError):
        return error
    if isinstance(error, click.UsageError) and not isinstance(error, click.NoSuchOption):
        return _usage(error)
    if isinstance(error, click.ClickException):
        return UsageError(error.format_message())
    if isinstance(error, OSError):
        return system_error(error)
    if isinstance(error, MemoryError):
        return InputError("the input does not fit in memory; use a smaller model or batch")
    if isinstance(error, RecursionError):
        return InputError("the input is nested too deeply, or a chain too long; export it again")
    return None


def _print_trace() -> None:
    for line in traceback.format_exc().splitlines():
        click.echo(printable(line), err=True)


def _told(sentence: str, exit_code: int, arguments: list[str]) -> int:
    """Say why a command ends: on stderr, and with --json as an object on stdout too."""
    sentence = _shortened(printable(sentence))
    click.echo(f"rir-deploy: {sentence}", err=True)
    if "--json" in arguments:
        try:
            print_json({"error": {"message": sentence.removeprefix("error: "), "exit_code": exit_code}})
        except (UsageError, OSError):  # stdout itself may be what fails
            _close_stdout()
    return exit_code


def _close_stdout() -> None:
    """Nothing reaches it any more: without this Python would try once more at its end, and complain."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    except (OSError, ValueError, AttributeError):  # it is no file of the system
        pass


def _usage(error: click.UsageError) -> UsageError:
    """Click's own message, with the closest name where a command is misspelt."""
    from rir_deploy.cli import COMMANDS

    message = error.format_message()
    if message.startswith("No such command"):
        return unknown_name("command", message.split("'")[1], COMMANDS)
    help_line = "" if error.ctx is None else f" (see: {error.ctx.command_path} --help)"
    return UsageError(message.rstrip(".") + help_line)


def _shortened(message: str) -> str:
    """Of bearable length, however long the names in it are."""
    half = MAX_MESSAGE // 2
    return message if len(message) <= MAX_MESSAGE else f"{message[:half]} ... {message[-half:]}"
