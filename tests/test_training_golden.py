"""The same seed gives the same losses: bit for bit here, to 1e-5 with other threads and beside what is kept."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from golden import CASES, SETTINGS, STEPS, losses

KEPT = json.loads(Path(__file__).with_name("golden_losses.json").read_text())


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_first_losses_are_those_that_are_kept(name):
    """On any number of threads, and the same bits twice."""
    once = losses(name)
    assert len(once) == len(KEPT[name]) == STEPS
    assert once == pytest.approx(KEPT[name], rel=1e-5)
    assert once[-1] < once[0]
    assert losses(name) == once
    assert losses(name, replace(SETTINGS, threads=3)) == pytest.approx(KEPT[name], rel=1e-5)


def test_another_seed_gives_other_losses():
    assert losses("gpt", replace(SETTINGS, seed=1)) != pytest.approx(KEPT["gpt"], rel=1e-5)
