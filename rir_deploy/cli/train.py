"""rir-deploy train"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rir_deploy.cli import common
from rir_deploy.cli.outputs import Command

if TYPE_CHECKING:
    from rir_deploy.models.train import OnStep, Progress


@click.command("train", cls=Command, short_help="Train a RiR by a recipe; resumes where it stopped.")
@click.argument("recipe", metavar="RECIPE")
@common.output_option("Folder for the checkpoint and the state of the training.", "folder")
@common.data_option
@click.option("--test-data", metavar="SOURCE", help="Images that the accuracy is measured on.")
@click.option("--epochs", type=click.IntRange(1, 100_000), help="Epochs, instead of the recipe's.")
@click.option("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N.")
@common.json_option
def command(
    recipe: str,
    output: Path,
    data: str | None,
    test_data: str | None,
    epochs: int | None,
    device: str | None,
    as_json: bool,
) -> None:
    """Train the network of RECIPE (a name or a .toml file) and write OUTPUT/model.safetensors.

    The state is written after every epoch: the same command continues an interrupted training, to the same result.
    """
    from rir_deploy.pipeline.train import TrainRequest, train_recipe

    request = TrainRequest(recipe, output, data, test_data, epochs, device)
    with common.progress(as_json) as progress, training_bar(as_json) as on_step:
        result = train_recipe(request, on_step, progress)
    if as_json:
        common.print_json(
            {
                "checkpoint": str(result.checkpoint),
                "top1": result.top1,
                "test_images": result.test_images,
                "epochs": len(result.history),
                "resumed_epochs": result.resumed_epochs,
                "history": [{"loss": epoch.loss, "accuracy": epoch.accuracy} for epoch in result.history],
            }
        )
        return
    common.say(f"wrote {result.checkpoint}: top-1 {result.top1:.2%} on {result.test_images} test images")


@contextmanager
def training_bar(as_json: bool) -> Iterator[OnStep]:
    """A bar with loss and accuracy; off a terminal, a line an epoch."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    drawn = console.is_terminal and not as_json
    columns = (
        TextColumn("epoch {task.fields[epoch]}"),
        BarColumn(),
        TextColumn("loss {task.fields[loss]:.4f}  accuracy {task.fields[accuracy]:.2%}"),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console, disable=not drawn) as bars:
        task = bars.add_task("training", epoch="", loss=0.0, accuracy=0.0, visible=False)

        def on_step(step: Progress) -> None:
            done, total = (step.epoch - 1) * step.steps + step.step, step.epochs * step.steps
            epoch = f"{step.epoch}/{step.epochs}"
            bars.update(
                task, completed=done, total=total, epoch=epoch, loss=step.loss, accuracy=step.accuracy, visible=True
            )
            if not drawn and step.step == step.steps:
                click.echo(f"epoch {epoch}: loss {step.loss:.4f}, accuracy {step.accuracy:.2%}", err=True)

        yield on_step
