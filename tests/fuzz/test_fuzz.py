"""Whatever is given to a command: a sentence and exit code 5, or the right result."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import Bundled, Made
from tests.fuzz.campaign import MAX_SECONDS, Campaign, chosen
from tests.fuzz.pool import Worker
from tests.fuzz.seeds import make_seeds
from tests.fuzz.targets import TARGETS

COUNT = 240


def test_mutants_of_every_kind_of_file(made: Made, bundled: Bundled, tmp_path: Path) -> None:
    """Those of another seed than the benchmark's."""
    seeds = make_seeds(tmp_path / "seeds", bundled.run, made.checkpoint, bundled.file)
    with Worker(tmp_path) as worker:
        campaign = Campaign(tmp_path, seeds, worker)
        for target, seed in chosen(COUNT, seed=1):
            campaign.try_one(target, seed)
    tally = campaign.tally
    assert tally.failures == []
    assert tally.mutants >= 200
    assert tally.longest_seconds < MAX_SECONDS
    assert tally.outcomes.keys() == TARGETS.keys()
    # Neither is all refused nor all taken: what is asked of each is asked.
    for counts in tally.outcomes.values():
        assert any(outcome.startswith("exit code") for outcome in counts)
    assert sum(counts["taken"] for counts in tally.outcomes.values()) > 20
