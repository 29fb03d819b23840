"""Source: the binary version of CIFAR-10 and CIFAR-100 (https://www.cs.toronto.edu/~kriz/cifar.html).

A record is one label byte (CIFAR-100: two, coarse and fine) and 3072 pixel bytes: channels of rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rir_deploy.artifacts import sha256_file
from rir_deploy.data.preprocess import Uint8Array
from rir_deploy.errors import InputError

_PIXELS = 3072


@dataclass(frozen=True)
class _Variant:
    name: str
    class_count: int
    label_bytes: int
    names_file: str
    train: tuple[str, ...]
    test: tuple[str, ...]

    @property
    def record_bytes(self) -> int:
        return self.label_bytes + _PIXELS


_VARIANTS = (
    _Variant(
        name="CIFAR-10",
        class_count=10,
        label_bytes=1,
        names_file="batches.meta.txt",
        train=tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
        test=("test_batch.bin",),
    ),
    _Variant(
        name="CIFAR-100",
        class_count=100,
        label_bytes=2,
        names_file="fine_label_names.txt",
        train=("train.bin",),
        test=("test.bin",),
    ),
)


class CifarSource:
    """Records of one or several files, mapped into memory and read when asked for; labels are the fine ones.

    Raises:
        InputError: a file missing, empty, truncated or with a label out of range.
    """

    within: tuple[str | None, str | None] = (None, None)
    note: str | None = None

    def __init__(self, name: str, variant: _Variant, paths: Sequence[Path]) -> None:
        self.name = name
        self._paths = tuple(paths)
        self._variant = variant
        self._records = [_map_records(path, variant) for path in paths]
        self._starts = np.cumsum([0, *(len(records) for records in self._records)])
        self.labels = np.concatenate([_read_labels(*pair, variant) for pair in zip(paths, self._records, strict=True)])
        self.classes = _read_classes(paths[0].parent / variant.names_file, variant)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def describe(self, index: int) -> str:
        """The file and the number of the record in it."""
        file, record = self._locate(index)
        return f"{self._paths[file]}[{record}]"

    def image(self, index: int) -> Uint8Array:
        """(32, 32, 3) uint8."""
        file, record = self._locate(index)
        pixels = np.array(self._records[file][record, self._variant.label_bytes :])
        return np.ascontiguousarray(pixels.reshape(3, 32, 32).transpose(1, 2, 0))

    def fingerprint(self) -> str:
        """Hex sha256 of the names and hashes of the files."""
        lines = [f"{path.name} {sha256_file(path)}\n" for path in self._paths]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def _locate(self, index: int) -> tuple[int, int]:
        file = int(np.searchsorted(self._starts, index, side="right")) - 1
        return file, index - int(self._starts[file])


def is_cifar_folder(folder: Path) -> bool:
    """Whether a file of either variant lies in ``folder``."""
    return any((folder / name).is_file() for variant in _VARIANTS for name in variant.train + variant.test)


def open_cifar_folder(folder: Path, split: str) -> CifarSource:
    """The "train" or "test" files of a folder.

    Raises:
        InputError: files of both variants, or one of the split's files missing.
    """
    found = [v for v in _VARIANTS if any((folder / name).is_file() for name in v.train + v.test)]
    if len(found) != 1:
        raise InputError(f"'{folder}' mixes files of CIFAR-10 and CIFAR-100; keep one of them in a folder")
    names = found[0].train if split == "train" else found[0].test
    for name in names:
        if not (folder / name).is_file():
            raise InputError(
                f"'{folder}' lacks '{name}', which the {split} part of {found[0].name}'s binary version has; "
                "unpack the download again"
            )
    return CifarSource(f"{folder}:{split}", found[0], [folder / name for name in names])


def open_cifar_file(path: Path) -> CifarSource:
    """One file; the variant is read off its usual name, else off its size.

    Raises:
        InputError: a size that fits neither variant, or both.
    """
    named = [v for v in _VARIANTS if path.name in v.train + v.test]
    size = path.stat().st_size
    fitting = named or [v for v in _VARIANTS if size and size % v.record_bytes == 0]
    if len(fitting) != 1:
        raise InputError(
            f"'{path}' has {size} bytes, which does not tell CIFAR-10 (records of 3073 bytes) from CIFAR-100 "
            "(3074); give the file of the binary version whole and under its own name"
        )
    return CifarSource(str(path), fitting[0], [path])


def _map_records(path: Path, variant: _Variant) -> Uint8Array:
    size = path.stat().st_size
    if size == 0 or size % variant.record_bytes:
        raise InputError(
            f"'{path}' is empty or truncated: its {size} bytes are not records of {variant.record_bytes} "
            f"bytes, as {variant.name}'s binary version has"
        )
    try:
        return np.memmap(path, dtype=np.uint8, mode="r").reshape(-1, variant.record_bytes)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read '{path}': {error}") from error


def _read_labels(path: Path, records: Uint8Array, variant: _Variant) -> npt.NDArray[np.int64]:
    labels = np.array(records[:, variant.label_bytes - 1], dtype=np.int64)
    bad = np.flatnonzero(labels >= variant.class_count)
    if bad.size:
        raise InputError(
            f"'{path}' is malformed: record {bad[0]} has the label {labels[bad[0]]}, but {variant.name} has "
            f"{variant.class_count} classes"
        )
    return labels


def _read_classes(path: Path, variant: _Variant) -> tuple[str, ...] | None:
    if not path.is_file():
        return None
    try:
        names = tuple(line.strip() for line in path.read_text("utf-8").splitlines() if line.strip())
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the class names in '{path}': {error}") from error
    if len(set(names)) != variant.class_count or len(names) != variant.class_count:
        raise InputError(f"'{path}' must hold {variant.class_count} different class names, one a line")
    return names
