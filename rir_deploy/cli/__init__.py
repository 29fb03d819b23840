"""The command line: parse, call the pipeline, print. One file a command; a command's file is loaded when it is used."""

from __future__ import annotations

import importlib
import io
import os
import sys
from typing import Any, cast

import click

from rir_deploy import __version__
from rir_deploy.cli.common import notices, run_command
from rir_deploy.cli.messages import verbose_option

# In the order of a deployment. A command not listed here does not exist.
COMMANDS: dict[str, str] = {
    "export": "rir_deploy.cli.export",
    "fold": "rir_deploy.cli.fold",
    "quantize": "rir_deploy.cli.quantize",
    "build-engine": "rir_deploy.cli.build_engine",
    "verify": "rir_deploy.cli.verify",
    "bench": "rir_deploy.cli.bench",
    "roofline": "rir_deploy.cli.roofline",
    "report": "rir_deploy.cli.report",
    "compare": "rir_deploy.cli.compare",
    "run": "rir_deploy.cli.run",
    "bundle": "rir_deploy.cli.bundle",
    "inspect": "rir_deploy.cli.inspect",
    "doctor": "rir_deploy.cli.doctor",
    "train": "rir_deploy.cli.train",
    "demo": "rir_deploy.cli.demo",
}


class LazyGroup(click.Group):
    """A group whose commands are imported by name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        return cast(click.Command, importlib.import_module(COMMANDS[cmd_name]).command)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with notices():
                return super().invoke(ctx)
        except KeyboardInterrupt as error:  # click would begin with a blank line
            raise click.Abort from error


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="rir-deploy")
def cli() -> None:
    """Bring a trained PyTorch ResNet in ResNet (RiR) to NVIDIA edge hardware.

    \b
    checkpoint -export-> ONNX -fold-> ONNX -quantize-> Q/DQ ONNX -build-engine-> engine
    engine -verify-> parity -bench-> latency -report-> HTML            (run: all of it)

    Every command takes --json: one object on stdout, everything else on stderr.

    \b
    Exit codes:
      0  done
      1  unexpected error (a bug)
      2  usage: unknown name, unwritable or existing output
      3  a gate failed: parity, accuracy, a required fold
      4  a backend or hardware is not there
      5  bad input: malformed, unsupported or untrusted
      130, 143, 129  ended by Ctrl-C, SIGTERM, SIGHUP; nothing is left half-written
    """


cli.params.append(verbose_option())


def main() -> None:
    """The entry point of ``rir-deploy``."""
    for descriptor in range(3):  # where one is closed, a file that is opened later would take its place
        _open_if_closed(descriptor)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what it cannot say is spelled out
            stream.reconfigure(errors="backslashreplace")
    sys.exit(run_command(cli))


def _open_if_closed(descriptor: int) -> None:
    try:
        os.fstat(descriptor)
    except OSError:
        os.open(os.devnull, os.O_RDWR)
