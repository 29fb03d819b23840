"""rir-deploy doctor"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rir_deploy.cli import common
from rir_deploy.cli.outputs import Command
from rir_deploy.errors import BackendError

if TYPE_CHECKING:
    from rir_deploy.pipeline.doctor import Diagnosis


@click.command("doctor", cls=Command, short_help="Say what this machine can do.")
@common.json_option
def command(as_json: bool) -> int:
    """Say what this machine can do, by doing it: every backend builds and runs a tiny model, compared with numpy.

    "runs" says that it did; "builds" that an engine can be made here and run elsewhere; "no" why neither, and what to
    install. Exits with 0 where at least one backend runs, with 4 where none does.
    """
    from rir_deploy.pipeline.doctor import diagnose

    diagnosis = diagnose()
    if as_json:
        common.print_json(diagnosis.to_dict())
    else:
        print_diagnosis(diagnosis)
    return 0 if diagnosis.runs else BackendError.exit_code


def print_diagnosis(diagnosis: Diagnosis) -> None:
    from rir_deploy.report.console import print_table

    machine = diagnosis.machine
    rows: list[tuple[object, object]] = [
        ("rir-deploy", diagnosis.tool.split()[-1]),
        ("Python", machine.python),
        ("system", machine.system),
        ("CPU", f"{machine.cpu}, {machine.cores} cores"),
        ("CPU features", ", ".join(machine.features) or "-"),
        ("memory", "-" if machine.memory_gb is None else f"{machine.memory_gb} GB"),
        *([("Jetson Linux", diagnosis.tegra)] if diagnosis.tegra else []),
        ("GPU", diagnosis.gpu),
        ("NVIDIA driver", machine.driver or ("there" if diagnosis.cuda else "none")),
        ("CUDA of the driver", diagnosis.cuda or "none"),
        *((one.name, one.version or f"not installed: {one.install}") for one in diagnosis.libraries),
    ]
    print_table("machine", ("", ""), rows)
    print_table(
        "backends",
        ("backend", "version", "works", "detail"),
        [(one.backend, one.version or "-", one.works, one.detail) for one in diagnosis.backends],
    )
    for note in diagnosis.notes:
        common.say(f"note: {note}")
