"""Bundles that were tampered with: every one has to be refused, with one sentence, and nothing may be left behind.

    rir-deploy demo -o run && rir-deploy bundle run -o model.zip --no-engines
    python benchmarks/tamper_bundle.py model.zip --seed 0 -o benchmarks/results/tamper_bundle.json

Of a bundle of four kilobytes every bit of every byte is flipped, and every length is cut. Of the one that is named,
bytes are flipped in every region (member data, index, headers, the directory at the end, its comment), pieces are cut,
inserted, deleted and swapped, and members change places. Then forged bundles, in which every hash and size is right.
Exits 1 if anything is accepted, raises anything but InputError, says more than one sentence, leaves a file behind, or
takes more than ten seconds.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rir_deploy.bench.machine import read_machine
from rir_deploy.bundle import open_bundle
from rir_deploy.errors import InputError
from tests.bundle.forge import Forgery, tiny_bundle
from tests.bundle.forgeries import INDEX_FORGERIES, NAMES, ZIP_FORGERIES

MAX_SECONDS = 10.0
Mutant = tuple[str, bytes]


@dataclass
class Tally:
    """What has become of the mutants so far."""

    folder: Path
    tried: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, Any]] = field(default_factory=list)
    longest_seconds: float = 0.0

    def add(self, kind: str, data: bytes) -> None:
        path = self.folder / "tampered.zip"
        path.write_bytes(data)
        before = time.perf_counter()
        outcome = self._outcome(path)
        seconds = time.perf_counter() - before
        self.longest_seconds = max(self.longest_seconds, seconds)
        self.tried[kind] += 1
        left = [name.name for name in self.folder.iterdir() if name != path]
        if outcome or left or seconds > MAX_SECONDS:
            self.failures.append({"kind": kind, "outcome": outcome, "left": left, "seconds": seconds})

    def _outcome(self, path: Path) -> str:
        """Empty where it is refused as it should be."""
        try:
            with open_bundle(path):
                return "accepted"
        except InputError as error:
            return "" if len(str(error).splitlines()) == 1 else f"not one sentence: {error}"
        except Exception as error:  # that is what is looked for
            return repr(error)


def every_flip_and_cut(whole: bytes) -> Iterator[Mutant]:
    for position in range(len(whole)):
        for bit in range(8):
            yield "every bit flipped", flipped(whole, position, 1 << bit)
        yield "every length", whole[:position]


def flipped(whole: bytes, position: int, mask: int) -> bytes:
    return whole[:position] + bytes([whole[position] ^ mask]) + whole[position + 1 :]


def regions(path: Path) -> dict[str, list[range]]:
    """Where in the file is what, as zipfile sees it."""
    with zipfile.ZipFile(path) as archive:
        infos, start = archive.infolist(), archive.start_dir
        comment = len(archive.comment)
    size = path.stat().st_size
    data = {info.filename: info.header_offset + 30 + len(info.filename) for info in infos}
    return {
        "index": [range(data["index.json"], data["index.json"] + infos[0].file_size)],
        "member data": [range(data[i.filename], data[i.filename] + i.file_size) for i in infos[1:] if i.file_size],
        "headers": [range(info.header_offset, data[info.filename]) for info in infos],
        "directory": [range(start, size - comment)],
        "comment": [range(size - comment, size)],
    }


def samples(path: Path, each: int, seed: int) -> Iterator[Mutant]:
    whole, chance = path.read_bytes(), random.Random(seed)
    for name, found in regions(path).items():
        for _ in range(each):
            place = chance.choice(found)
            yield f"byte flipped: {name}", flipped(whole, chance.choice(place), chance.randrange(1, 256))
    for _ in range(each):
        start, end = sorted(chance.sample(range(len(whole) + 1), 2))
        end = min(end, start + 4096)
        noise = chance.randbytes(chance.randrange(1, 64))
        yield "cut", whole[:start]
        yield "inserted", whole[:start] + noise + whole[start:]
        yield "deleted", whole[:start] + whole[end:]
        yield "repeated", whole[:end] + whole[start:]
        half = (start + end) // 2
        exchanged = whole[:start] + whole[half:end] + whole[start:half] + whole[end:]
        if exchanged != whole:
            yield "pieces exchanged", exchanged
    yield from (("appended", whole + chance.randbytes(chance.randrange(1, 4096))) for _ in range(each))


def member_swaps(path: Path, folder: Path) -> Iterator[Mutant]:
    """Every pair of members with each other's content, the index left as it is."""
    names = sorted(Forgery.of(path).files)
    for position, one in enumerate(names):
        for other in names[position + 1 :]:
            forged = Forgery.of(path)
            if forged.files[one] != forged.files[other]:
                forged.files[one], forged.files[other] = forged.files[other], forged.files[one]
                yield "members exchanged", written(forged, folder)


def forgeries(path: Path, folder: Path) -> Iterator[Mutant]:
    """By a forger who gets every hash right."""
    for name in NAMES:
        forged = Forgery.of(path).relist()
        forged.rename("graphs/fp32.onnx", name)
        yield "forged: a name that leaves the folder", written(forged, folder)
    for change in (*ZIP_FORGERIES, *INDEX_FORGERIES):
        forged = Forgery.of(path).relist()
        change(forged)
        yield f"forged: {change.__name__.replace('_', ' ')}", written(forged, folder)


def written(forged: Forgery, folder: Path) -> bytes:
    return forged.write(folder / "forged.zip").read_bytes()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--each", type=int, default=800, help="mutants of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for folder in ("unpacked", "forged", "tiny"):
            (root / folder).mkdir()
        tempfile.tempdir = str(root / "unpacked")
        tally = Tally(root / "unpacked")
        tiny = tiny_bundle(root / "tiny")
        for whole in (tiny, arguments.bundle):
            with open_bundle(whole):  # as they are, both are taken
                pass
        kinds = (
            every_flip_and_cut(tiny.read_bytes()),
            samples(arguments.bundle, arguments.each, arguments.seed),
            member_swaps(arguments.bundle, root / "forged"),
            forgeries(tiny, root / "forged"),
        )
        for mutants in kinds:
            for kind, data in mutants:
                tally.add(kind, data)
        sizes = {"tiny": tiny.stat().st_size, "bundle": arguments.bundle.stat().st_size}
        tempfile.tempdir = None
    result = {
        "machine": read_machine().to_dict(),
        "seed": arguments.seed,
        "size_bytes": sizes,
        "mutants": sum(tally.tried.values()),
        "by_kind": dict(tally.tried),
        "failures": tally.failures,
        "longest_seconds": round(tally.longest_seconds, 3),
        "seconds": round(time.perf_counter() - started, 1),
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"{result['mutants']} mutants, {len(tally.failures)} not refused as they should be, {result['seconds']} s")
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())
