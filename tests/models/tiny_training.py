"""A training of a second, run by the tests in this process and in one that is killed."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rir_deploy.models import RiRConfig, Stage, train_state
from rir_deploy.models.train import Progress, TrainData, TrainOptions, train

# Dropout, both streams, momentum: everything whose random numbers or state could be lost.
CONFIG = RiRConfig(
    3, 1, (6, 6), (2, 2), (Stage(2, 2, 1), Stage(3, 3, 1, 2)), head="mlp", mlp_widths=(3, 8), shortcut="zero-pad"
)
OPTIONS = TrainOptions(epochs=4, batch_size=8, learning_rate=0.05, crop_padding=1, schedule="onecycle", seed=5)


def normalize(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return images.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1


def noise(seed: int = 0) -> TrainData:
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (34, 6, 6, 1), np.uint8)
    labels = random.integers(0, 3, 34)
    return TrainData("noise", images[:24], labels[:24], images[24:], labels[24:], normalize, {"mean": [0.5]})


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_third_epoch(progress: Progress) -> None:
    if (progress.epoch, progress.step) == (3, 2):
        die()


def die_while_writing_the_third_state() -> None:
    calls = []

    def save_half(tensors: Any, path: Path, metadata: Any) -> None:
        calls.append(path)
        if len(calls) == 3:
            path.write_bytes(b"half")
            die()
        original(tensors, path, metadata=metadata)

    original, train_state.save_file = train_state.save_file, save_half


def main(folder: str, threads: str, moment: str) -> None:
    torch.set_num_threads(int(threads))
    if moment == "while writing":
        die_while_writing_the_third_state()
    train(
        CONFIG, noise(), OPTIONS, folder=Path(folder), on_step=die_in_third_epoch if moment == "in an epoch" else None
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
