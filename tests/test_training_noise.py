"""Label smoothing and wrongly shown tokens: what they change, and that it hangs on seed, epoch and row alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from qualm.corpus.packing import Packed
from qualm.errors import Stopped, UsageError
from qualm.training.data import TokenRows
from qualm.training.loop import Hooks
from qualm.training.losses import causal
from qualm.training.noise import ShakenRows
from qualm.training.recipe import Recipe
from qualm.training.run import train
from qualm.training.settings import TrainSettings
from qualm.training.size import build

SETTINGS = TrainSettings(steps=6, batch=4, eval_every=3, save_every=2, threads=1)
RECIPE = Recipe(size=1, length=24, vocab=300, validate=200, train=SETTINGS)


def rows(share: float, seed: int = 0) -> tuple[TokenRows, ShakenRows]:
    ids = np.random.default_rng(1).integers(300, size=4001).astype(np.uint16)
    plain = TokenRows(Packed(ids, np.array([4001]), np.array([9000]), {"documents": "made up"}), 100)
    return plain, ShakenRows(plain, share, seed)


def test_a_share_of_the_inputs_is_another_and_no_target():
    plain, shaken = rows(0.2)
    every, epoch = np.arange(40), np.zeros(40, int)
    before, after = plain.batch(every, epoch), shaken.batch(every, epoch)
    assert torch.equal(before["labels"], after["labels"])
    assert float((before["ids"] != after["ids"]).float().mean()) == pytest.approx(0.2, abs=0.02)
    assert len(shaken) == 40


def test_noise_hangs_on_seed_epoch_and_row_alone():
    (_, shaken), (_, other) = rows(0.2), rows(0.2, seed=1)
    both = shaken.batch(np.array([3, 7]), np.array([0, 2]))["ids"]
    alone = shaken.batch(np.array([7]), np.array([2]))["ids"]
    assert torch.equal(both[1:], alone)
    assert not torch.equal(alone, shaken.batch(np.array([7]), np.array([3]))["ids"])
    assert not torch.equal(alone, other.batch(np.array([7]), np.array([2]))["ids"])


def test_smoothing_is_torchs():
    plain, _ = rows(0.0)
    model = build("llama", 1, 300)
    batch = plain.batch(np.array([1, 2]), np.array([0, 0]))
    wanted = F.cross_entropy(
        model(batch["ids"]).flatten(0, 1), batch["labels"].flatten(), reduction="sum", label_smoothing=0.1
    )
    torch.testing.assert_close(causal(model, batch, 0.1)[0], wanted, rtol=1e-5, atol=1e-3)


def test_a_run_with_both_resumes_exactly_and_claims_no_bits_a_byte(notes, tmp_path):
    recipe, taken = replace(RECIPE, smoothing=0.1, token_dropout=0.1), []
    whole = train(notes, tmp_path / "whole", recipe, Hooks(on_step=taken.append))
    assert not any("bits_per_byte" in row for row in taken)
    stops = iter([False] * 2 + [True])
    with pytest.raises(Stopped):
        train(notes, tmp_path / "cut", recipe, Hooks(should_stop=lambda: next(stops)))
    assert train(notes, tmp_path / "cut", recipe).result.validations == whole.result.validations
    plain = train(notes, tmp_path / "plain", RECIPE)
    assert plain.result.validations != whole.result.validations


def test_a_share_is_a_share():
    with pytest.raises(UsageError, match="token_dropout"):
        Recipe(token_dropout=1.5)
