"""The record of a run: what is refused, and in which words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest

from rir_deploy.errors import InputError
from rir_deploy.report.reader import Bounds, read_record
from rir_deploy.report.schema import Run, read_run
from tests.report.sample import sample
from tests.report.sample_losses import PICTURE


def refusal(change: Callable[[dict[str, Any]], object]) -> str:
    run = sample()
    change(run)
    with pytest.raises(InputError) as caught:
        read_run(run, "some/run.json")
    message = str(caught.value)
    assert message.startswith("'some/run.json'")
    assert "\n" not in message
    return message


def test_the_sample_is_a_run() -> None:
    run = read_run(sample())
    assert isinstance(run, Run)
    assert run.engines[1].verify is not None
    assert run.engines[1].verify.top1_drop == 0.28
    assert run.machine.features == ("AVX2", "AVX512-VNNI")
    assert run.export.fold is not None
    assert run.export.fold.ops.after == {"Conv": 6, "Relu": 5}


def test_keys_that_nobody_knows_are_passed_over() -> None:
    run = sample() | {"extra": object()}
    run["engines"][0]["extra"] = [1]
    assert read_run(run) == read_run(sample())


CASES: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda run: run.pop("engines"), "it has no 'engines'"),
    (lambda run: run["engines"][1].pop("size_bytes"), "it has no 'engines[1].size_bytes'"),
    (lambda run: run["engines"][0]["verify"]["gate"].pop("atol"), "it has no 'engines[0].verify.gate.atol'"),
    (lambda run: run.update(passed="yes"), "'passed' must be true or false, not 'yes'"),
    (lambda run: run.update(passed=1), "'passed' must be true or false, not 1"),
    (lambda run: run.update(created=None), "'created' must be text, not null"),
    (lambda run: run.update(graphs={}), "'graphs' must be a list, not an object"),
    (lambda run: run.update(machine=[]), "'machine' must be an object, not []"),
    (lambda run: run["model"].update(parameters=1.5), "'model.parameters' must be a whole number, not 1.5"),
    (lambda run: run["model"].update(parameters=True), "'model.parameters' must be a whole number, not True"),
    (lambda run: run["model"].update(parameters=-1), "'model.parameters' must be at least 0, not -1"),
    (lambda run: run["model"].update(parameters=10**400), "'model.parameters' must be a whole number, not 1000"),
    (lambda run: run["model"].update(recorded_top1=99.1), "'model.recorded_top1' must be 0 to 1, not 99.1"),
    (lambda run: run["export"].update(seconds=float("nan")), "'export.seconds' must be a finite number, not nan"),
    (
        lambda run: run["export"]["fold"]["ops"]["after"].update(Conv="6"),
        "'export.fold.ops.after.Conv' must be a whole number, not '6'",
    ),
    (
        lambda run: run["engines"][2].update(status="lost"),
        "'engines[2].status' must be 'verified' or 'failed' or 'built, not run' or 'not built', not 'lost'",
    ),
    (lambda run: run["engines"][2].update(status=[]), "'engines[2].status' must be 'verified'"),
    (lambda run: run["engines"][0].update(verify=None), "no 'engines[0].verify' for an engine that is verified"),
    (lambda run: run["bench"]["results"][0].update(batch=0), "'bench.results[0].batch' must be at least 1, not 0"),
    (lambda run: run["files"][0].update(parents=[3]), "'files[0].parents[0]' must be text, not 3"),
    (lambda run: run.pop("schema"), "it has no 'schema'"),
    (lambda run: run.update(schema="1"), "'schema' must be a whole number, not '1'"),
    (lambda run: run.update(schema=True), "'schema' must be a whole number, not True"),
    (lambda run: run.update(schema=4), "has schema 4, and this version reads schema 3; update rir-deploy"),
    (lambda run: run.update(schema=2), "has schema 2, and this version reads schema 3; repeat the run, which keeps"),
    (lambda run: run.update(schema=1), "has schema 1, and this version reads schema 3; repeat the run, which keeps"),
    (
        lambda run: run["pictures"].update({"41": "PHN2Zz4="}),
        "'pictures.41' must be a PNG image in base64, not 'PHN2Zz",
    ),
    (
        lambda run: run["pictures"].update({"41": 'iVBORw0KGgo" onerror="x'}),
        "'pictures.41' must be a PNG image in base64, not 'iVBORw0KGgo\" onerror=\"x'",
    ),
    (lambda run: run["pictures"].update({"x": PICTURE}), "'pictures' must be a number, not 'x'"),
    (
        lambda run: run["engines"][1]["verify"]["drop"].update(interval=[0.1]),
        "'engines[1].verify.drop.interval' must be a list of 2, not [0.1]",
    ),
    (
        lambda run: run["engines"][1]["verify"]["drop"].update(verdict="fine"),
        "'engines[1].verify.drop.verdict' must be 'non-inferior' or 'inferior' or 'undecided' or 'cannot be judged', "
        "not 'fine'",
    ),
    (
        lambda run: run["layers"][0]["rows"][0].update(verdict="lost"),
        "'layers[0].rows[0].verdict' must be 'ok' or 'follows' or 'differs' or 'diverges', not 'lost'",
    ),
    (lambda run: run["stages"]["rows"][1].update(top1=2), "'stages.rows[1].top1' must be 0 to 1, not 2"),
    (lambda run: run["block"]["after"][0].update(inputs="x"), "'block.after[0].inputs' must be a list, not 'x'"),
    (
        lambda run: run["graphs"][1]["sensitivity"]["layers"][2].update(kept="no"),
        "'graphs[1].sensitivity.layers[2].kept' must be true or false, not 'no'",
    ),
    (
        lambda run: run["graphs"][1]["calibration"]["candidates"][0].update(sqnr_db="good"),
        "'graphs[1].calibration.candidates[0].sqnr_db' must be a finite number, not 'good'",
    ),
    (lambda run: run.update(unfolded=[]), "'unfolded' must be an object, not []"),
]


@pytest.mark.parametrize(("change", "words"), CASES, ids=[words for _, words in CASES])
def test_one_sentence_names_the_key(change: Callable[[dict[str, Any]], object], words: str) -> None:
    assert words in refusal(change)


@pytest.mark.parametrize("data", [None, [], "run", 3, True])
def test_what_is_no_object_at_all(data: object) -> None:
    with pytest.raises(InputError, match="it must be an object, not"):
        read_run(data)


def _required(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The places of every key in the record, except inside what is free in form."""
    if isinstance(data, list):
        return [place for index, value in enumerate(data) for place in _required(value, (*path, index))]
    if not isinstance(data, dict) or (path and path[-1] in ("work", "realized", "settings", "ops", "pictures")):
        return []
    return [place for key, value in data.items() for place in [(*path, key), *_required(value, (*path, key))]]


OPTIONAL = {"notes", "status", "reason", "speedup", "warnings", "work", "max", "load_ms"}
# What records of before do not have.
OPTIONAL |= {"distinct_images", "doubts", "classes", "worst_class"}
PLACES = [
    place
    for place in _required(sample())
    if place[-1] not in OPTIONAL or (place[0], place[-1]) == ("engines", "status")
]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: ".".join(map(str, place)))
def test_every_key_is_needed(place: tuple[Any, ...]) -> None:
    def remove(run: Any) -> None:
        for key in place[:-1]:
            run = run[key]
        del run[place[-1]]

    assert str(place[-1]) in refusal(remove)


@dataclass(frozen=True)
class Small:
    share: Annotated[float, Bounds(0, 1)] | None
    word: Literal["a", "b"] = "a"
    pairs: dict[str, tuple[int, ...]] | None = None


@pytest.mark.parametrize(
    ("data", "record"),
    [
        ({"share": 1}, Small(1.0)),
        ({"share": None}, Small(None)),
        ({"share": float("inf")}, Small(None)),
        ({"share": 0.5, "word": "b", "pairs": {"x\x07": [1, 2]}}, Small(0.5, "b", {"x\ufffd": (1, 2)})),
    ],
)
def test_a_record_is_read_by_its_annotations(data: object, record: Small) -> None:
    assert read_record(Small, data, "file") == record
