"""What a forger would try: each changes a bundle whose hashes and sizes are then made right again."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from typing import Any

from tests.bundle.forge import Forgery, member

Change = Callable[[Forgery], Any]
GRAPH, ENGINE = "graphs/fp32.onnx", "engines/any-fp32/engine.bin"
NAMES = [
    "../evil.txt",
    "graphs/../../evil.txt",
    "/evil.txt",
    "..\\evil.txt",
    "C:/evil.txt",
    ".evil",
    "a//b",
    "a/",
    "a b",
]


def compressed(forged: Forgery) -> None:
    forged.changes[GRAPH] = {"compress_type": zipfile.ZIP_DEFLATED}


def linked(forged: Forgery) -> None:
    forged.files[GRAPH] = b"/etc/passwd"
    forged.changes[GRAPH] = {"external_attr": 0o120777 << 16}


def dated(forged: Forgery) -> None:
    forged.changes[GRAPH] = {"date_time": (2024, 2, 29, 12, 0, 0)}


def with_extra_field(forged: Forgery) -> None:
    forged.changes[GRAPH] = {"extra": b"UT\5\0\1\0\0\0\0"}


def with_a_comment(forged: Forgery) -> None:
    forged.changes[GRAPH] = {"comment": b"x"}


def bomb(forged: Forgery) -> None:
    forged.files[GRAPH] = bytes(50_000_000)
    compressed(forged)


def more_than_the_index_lists(forged: Forgery) -> None:
    forged.extra.append(("graphs/more.onnx", b"more"))


def twice_in_the_zip(forged: Forgery) -> None:
    forged.extra.append((GRAPH, b"another"))


# The zip holds more, or other, than the index says.
ZIP_FORGERIES: tuple[Change, ...] = (
    compressed,
    linked,
    dated,
    with_extra_field,
    with_a_comment,
    bomb,
    more_than_the_index_lists,
    twice_in_the_zip,
)


def listing(forged: Forgery) -> list[dict[str, Any]]:
    """The list of members, written out so that a test can bend it."""
    listed = [vars(member(name, data)) for name, data in sorted(forged.files.items())]
    forged.index["members"] = listed
    return listed


def a_member_is_missing(forged: Forgery) -> None:
    listing(forged)
    del forged.files[ENGINE]


def the_index_forgets_one(forged: Forgery) -> None:
    listed = listing(forged)
    del listed[0]


def a_graph_is_gone(forged: Forgery) -> None:
    del forged.files[GRAPH]


def the_manifest_is_gone(forged: Forgery) -> None:
    del forged.files["engines/any-fp32/manifest.json"]


def answers_are_gone(forged: Forgery) -> None:
    del forged.files["golden/fp32.npy"]


def images_are_gone(forged: Forgery) -> None:
    del forged.files["golden/images.npy"]


def a_stray(forged: Forgery) -> None:
    forged.files["setup.py"] = b"print('run me')"


def listed_twice(forged: Forgery) -> None:
    listed = listing(forged)
    listed.insert(0, dict(listed[0]))


def cases_differ(forged: Forgery) -> None:
    forged.files["engines/any-fp32/ENGINE.bin"] = b"other"


def file_and_folder(forged: Forgery) -> None:
    forged.files["engines/any-fp32/engine.bin/inside"] = b"other"


def a_hash_is_none(forged: Forgery) -> None:
    listing(forged)[0]["sha256"] = "0" * 63


def a_size_is_negative(forged: Forgery) -> None:
    listing(forged)[0]["size_bytes"] = -1


def a_size_is_huge(forged: Forgery) -> None:
    listing(forged)[0]["size_bytes"] = 10**30


def another_format(forged: Forgery) -> None:
    forged.index["format"] = 2


def an_unknown_key(forged: Forgery) -> None:
    forged.index["run"] = "setup.py"


def bounds_without_end(forged: Forgery) -> None:
    forged.index["bounds"]["fp32"]["min_agreement"] = -1.0


def no_bounds(forged: Forgery) -> None:
    forged.index["bounds"] = {}


def an_item_twice(forged: Forgery) -> None:
    forged.index["items"].append(dict(forged.index["items"][1]))


def items_are_text(forged: Forgery) -> None:
    forged.index["items"] = "fp32"


def not_canonical(forged: Forgery) -> None:
    listing(forged)
    forged.text = json.dumps(forged.index, sort_keys=True).encode()


def deeply_nested(forged: Forgery) -> None:
    forged.text = b"[" * 100_000


def not_text(forged: Forgery) -> None:
    forged.text = b"\xff\xfe\x00"


# The index does not hold: what it is refused with, as a regular expression.
INDEX_FORGERIES: dict[Change, str] = {
    a_member_is_missing: "its index describes",
    the_index_forgets_one: "'engines/any-fp32/engine.bin'|its index describes",
    a_graph_is_gone: "'graphs/fp32.onnx' is missing",
    the_manifest_is_gone: "manifest.json' is missing",
    answers_are_gone: "'golden/fp32.npy' is missing",
    images_are_gone: "'golden/images.npy' is missing",
    a_stray: "'setup.py' belongs to no",
    listed_twice: "twice",
    cases_differ: "twice",
    file_and_folder: "a file and a folder",
    a_hash_is_none: "64 hexadecimal",
    a_size_is_negative: "under 0",
    a_size_is_huge: "its index describes",
    another_format: "format 1",
    an_unknown_key: "unknown key 'run'",
    bounds_without_end: "bounds",
    no_bounds: "no bounds for fp32",
    an_item_twice: "twice",
    items_are_text: "must be a list",
    not_canonical: "not in the form",
    deeply_nested: "malformed|format",
    not_text: "not text",
}


def with_answers_of_shape(shape: str, size_bytes: int) -> Change:
    """Answers whose header gives a shape of its own."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    data = b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header.encode() + bytes(size_bytes)

    def change(forged: Forgery) -> None:
        forged.files["golden/fp32.npy"] = data

    return change


# A header of an array is Python, and what multiplies to the right size need be no shape.
ARRAY_FORGERIES: dict[str, Change] = {
    shape: with_answers_of_shape(shape, size_bytes)
    for shape, size_bytes in {"(-2, -3)": 24, "(True, 3)": 12, "(2, True)": 8, f"(0, {10**30})": 0}.items()
}
