"""What all commands share: options, output, and how errors become exit codes."""

from __future__ import annotations

import json
import shlex
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from rir_deploy.cli.outputs import OutputPath, Role
from rir_deploy.errors import InputError, RirDeployError, UsageError, unknown_name
from rir_deploy.notices import Notice

if TYPE_CHECKING:
    from rir_deploy.engines.base import BatchRange
    from rir_deploy.pipeline.progress import Progress

Function = TypeVar("Function", bound=Callable[..., Any])

# Characters of an error, however long the names in it are.
MAX_MESSAGE = 1000
_NOTICES = "rir_deploy.notices"


def _batches(_ctx: click.Context, _param: click.Parameter, value: str) -> tuple[int, ...]:
    parts = [part.strip() for part in value.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise click.BadParameter(f"'{value}' is not a list of batch sizes; write for example 1,8,32")
    return tuple(int(part) for part in parts)


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
    """One object on stdout. NaN is not JSON: it is printed as null. Notices of the command are its "notices"."""
    context = click.get_current_context(silent=True)
    said = [] if context is None else context.find_root().meta.get(_NOTICES, [])
    data = {**data, "notices": said} if said and isinstance(data, dict) else data
    click.echo(json.dumps(_finite(data), indent=2, allow_nan=False))


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
    click.echo(text)


def warn(text: str) -> None:
    """A line for people, on stderr."""
    click.echo(f"rir-deploy: warning: {text}", err=True)


def command_line() -> str:
    """The command being run, as it could be typed again."""
    return shlex.join(["rir-deploy", *click.get_current_context().find_root().obj])


def image_size(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """Parse 32 or 32x48 (height x width)."""
    if value is None:
        return None
    parts = value.lower().split("x")
    if len(parts) not in (1, 2) or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise click.BadParameter(f"'{value}' is not a size; write 32 or 32x48 (height x width)")
    return int(parts[0]), int(parts[-1])


def batch_range(text: str) -> BatchRange:
    """Parse MIN,OPT,MAX."""
    from rir_deploy.engines.base import BatchRange

    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() for part in parts):
        raise UsageError(f"--batch '{text}' is not MIN,OPT,MAX; write for example 1,1,32")
    low, opt, high = (int(part) for part in parts)
    return BatchRange(low, opt, high)


def run_command(command: click.Command, arguments: list[str] | None = None) -> int:
    """Run a command and turn whatever happens into an exit code and one sentence on stderr."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        result = command.main(args=arguments, prog_name="rir-deploy", obj=arguments, standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx is not None else error.format_message(), err=True)
        return UsageError.exit_code
    except click.exceptions.NoSuchOption as error:
        return _fail(UsageError(error.format_message()), arguments)
    except click.UsageError as error:
        return _fail(_usage(error), arguments)
    except click.ClickException as error:
        return _fail(UsageError(error.format_message()), arguments)
    except (click.Abort, KeyboardInterrupt):
        click.echo("rir-deploy: interrupted", err=True)
        return 130
    except RirDeployError as error:
        return _fail(error, arguments)
    except (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError) as error:
        return _fail(UsageError(f"'{error.filename}': {error.strerror}; check the path and its permissions"), arguments)
    except BrokenPipeError:
        return 0
    except MemoryError:
        return _fail(InputError("the input does not fit in memory; use a smaller model or batch"), arguments)
    except RecursionError:
        return _fail(InputError("the input is nested too deeply, or a chain too long; export it again"), arguments)
    except Exception:  # a bug: show it whole
        traceback.print_exc()
        click.echo("rir-deploy: unexpected error, please report it with the lines above", err=True)
        return 1


def _usage(error: click.UsageError) -> UsageError:
    """Click's own message, with the closest name where a command is misspelt."""
    from rir_deploy.cli import COMMANDS

    message = error.format_message()
    if message.startswith("No such command"):
        return unknown_name("command", message.split("'")[1], COMMANDS)
    help_line = "" if error.ctx is None else f" (see: {error.ctx.command_path} --help)"
    return UsageError(message.rstrip(".") + help_line)


def _fail(error: RirDeployError, arguments: list[str]) -> int:
    message = printable(str(error))
    click.echo(f"rir-deploy: error: {message}", err=True)
    if "--json" in arguments:
        print_json({"error": {"message": message, "exit_code": error.exit_code}})
    return error.exit_code


def printable(message: str) -> str:
    """One line of bearable length. Names in it come out of files: a terminal obeys what is not printable."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in message)
    half = MAX_MESSAGE // 2
    return text if len(text) <= MAX_MESSAGE else f"{text[:half]} ... {text[-half:]}"
