"""rir-deploy doctor"""

from __future__ import annotations

import click

from rir_deploy.cli import common
from rir_deploy.errors import BackendError


@click.command("doctor", short_help="Say what this machine can do.")
@common.json_option
def command(as_json: bool) -> int:
    """Say what this machine can do: every backend builds and runs a tiny model. Exits with 4 where none runs."""
    from rir_deploy.pipeline.doctor import diagnose

    diagnosis = diagnose()
    if as_json:
        common.print_json(diagnosis.to_dict())
    else:
        from rir_deploy.report.console import print_table

        machine = diagnosis.machine
        rows: list[tuple[object, object]] = [
            ("rir-deploy", diagnosis.tool.split()[-1]),
            ("Python", machine.python),
            ("system", machine.system),
            ("CPU", f"{machine.cpu}, {machine.cores} cores"),
            ("CPU features", ", ".join(machine.features) or "-"),
            ("memory", "-" if machine.memory_gb is None else f"{machine.memory_gb} GB"),
            ("GPU", ", ".join(machine.gpus) or "none"),
            ("NVIDIA driver", machine.driver or "none"),
            *((name, version or "not installed") for name, version in diagnosis.libraries.items()),
        ]
        print_table("machine", ("", ""), rows)
        backends = [
            (b.backend, b.version or "-", b.works, b.detail if b.works != "no" else b.install)
            for b in diagnosis.backends
        ]
        print_table("backends", ("backend", "version", "works", "detail"), backends)
        for note in diagnosis.notes:
            common.say(f"note: {note}")
    works = any(backend.works == "runs" for backend in diagnosis.backends)
    return 0 if works else BackendError.exit_code
