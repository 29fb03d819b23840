"""Train a network of the family; killed at any moment, it continues to the same bytes.

The same options give the same weights on the same machine; `TrainOptions.threads` says of how many threads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from rir_deploy.artifacts import check_output
from rir_deploy.errors import UsageError
from rir_deploy.models.checkpoint import CheckpointRecord, save_checkpoint
from rir_deploy.models.config import RiRConfig
from rir_deploy.models.devices import choose_device, has_bf16, own_random_numbers, own_threads
from rir_deploy.models.rir import RiR
from rir_deploy.models.schedule import learning_rate_at
from rir_deploy.models.train_data import (
    Batch,
    TrainData,
    check_data,
    count_steps,
    fingerprint,
    ordered_batches,
    shuffled_batches,
)
from rir_deploy.models.train_options import TrainOptions
from rir_deploy.models.train_state import EpochRecord, restore_state, save_state

__all__ = ["EpochRecord", "Progress", "TrainData", "TrainOptions", "TrainResult", "train"]

MODEL_FILE, STATE_FILE = "model.safetensors", "training.safetensors"
_TEST_BATCH = 500


@dataclass(frozen=True)
class Progress:
    """After a step. ``epoch``, ``step`` count from 1; loss and accuracy are means over the epoch so far."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    accuracy: float
    learning_rate: float


@dataclass(frozen=True)
class TrainResult:
    """A finished training: its checkpoint, top-1 (a fraction) on ``test_images`` images, and every epoch."""

    checkpoint: Path
    top1: float
    test_images: int
    history: tuple[EpochRecord, ...]
    resumed_epochs: int


OnStep = Callable[[Progress], None]


def train(
    config: RiRConfig,
    data: TrainData,
    options: TrainOptions,
    *,
    folder: Path,
    on_step: OnStep | None = None,
) -> TrainResult:
    """Train the network of ``config`` and write ``folder/model.safetensors``.

    After every epoch ``folder/training.safetensors`` takes the state; the same call continues from it.
    ``on_step`` is called after every batch. SGD with He initialisation, as Targ et al. 2016 (`TrainOptions`).

    Raises:
        InputError: ``data`` does not suit ``config``, or the state is damaged.
        UsageError: ``folder`` holds another training or cannot be written, or the loss diverges.
        BackendError: the device is not there.
    """
    check_data(data, config)
    if (folder / MODEL_FILE).exists() and not (folder / STATE_FILE).exists():
        raise UsageError(f"'{folder / MODEL_FILE}' is a model that was not trained here; choose another folder")
    check_output(folder / MODEL_FILE, force=True)
    device = choose_device(options.device)
    identity = {"config": config.to_dict(), "options": options.to_dict(), "data": fingerprint(data)}
    with own_random_numbers(device, options.seed), own_threads(options.threads):
        run = _Run(config, options, device)
        history = restore_state(folder / STATE_FILE, run.model, run.optimizer, identity)
        resumed = len(history)
        for epoch in range(resumed, options.epochs):
            history.append(run.epoch(epoch, data, on_step))
            save_state(folder / STATE_FILE, run.model, run.optimizer, identity, history)
        top1 = run.test(data)
    record = CheckpointRecord(
        accuracy={"top1": top1, "dataset": data.name, "n": len(data.test_images)},
        recipe=None if data.recipe is None else dict(data.recipe),
    )
    save_checkpoint(folder / MODEL_FILE, run.model, record=record, force=True)
    return TrainResult(folder / MODEL_FILE, top1, len(data.test_images), tuple(history), resumed)


class _Run:
    """A network with its optimizer on its device."""

    def __init__(self, config: RiRConfig, options: TrainOptions, device: torch.device) -> None:
        self.options, self.device = options, device
        self.model = RiR(config).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.bf16 = options.precision == "bf16" or (options.precision == "auto" and has_bf16(device))
        self.optimizer = torch.optim.SGD(
            self.model.parameters(),
            lr=options.learning_rate,
            momentum=options.momentum,
            nesterov=options.nesterov,
            weight_decay=options.weight_decay,
        )

    def epoch(self, epoch: int, data: TrainData, on_step: OnStep | None) -> EpochRecord:
        """One pass over the training images."""
        torch.manual_seed(_mix(self.options.seed, epoch))
        self.model.train()
        steps = count_steps(data, self.options)
        loss_sum = correct = seen = 0.0
        for step, batch in enumerate(shuffled_batches(data, self.options, epoch)):
            rate = learning_rate_at(self.options, epoch * steps + step, steps)
            loss, hits = self._step(batch, rate)
            loss_sum, correct, seen = loss_sum + loss * len(batch[1]), correct + hits, seen + len(batch[1])
            if not np.isfinite(loss):
                raise UsageError(f"the loss is {loss} in epoch {epoch + 1}; lower learning_rate and start over")
            if on_step is not None:
                means = loss_sum / seen, correct / seen
                on_step(Progress(epoch + 1, self.options.epochs, step + 1, steps, *means, rate))
        return EpochRecord(loss_sum / seen, correct / seen)

    def test(self, data: TrainData) -> float:
        """Top-1 on the test images in float32, as a fraction."""
        self.model.eval()
        correct = 0
        with torch.inference_mode():
            for batch in ordered_batches(data, _TEST_BATCH):
                images, labels = self._to_device(batch)
                correct += int((self.model(images).argmax(1) == labels).sum())
        return correct / len(data.test_images)

    def _step(self, batch: Batch, rate: float) -> tuple[float, int]:
        images, labels = self._to_device(batch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            logits = self.model(images)
        smoothing = self.options.label_smoothing
        loss = functional.cross_entropy(logits.float(), labels, label_smoothing=smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return float(loss.detach()), int((logits.detach().argmax(1) == labels).sum())

    def _to_device(self, batch: Batch) -> tuple[Tensor, Tensor]:
        images, labels = (torch.from_numpy(array).to(self.device) for array in batch)
        return images.contiguous(memory_format=torch.channels_last), labels


def _mix(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0])
