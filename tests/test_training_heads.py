"""Models that have learnt already: they get more positions, and those in 8 bits do not learn on."""

import json
from typing import Any

import pytest
import torch

from qualm.errors import UsageError
from qualm.folder import write_folder
from qualm.lm.load import load_base
from qualm.lm.local import Local
from qualm.models.layers import quantize_int8
from qualm.teaching import Tuning, tune
from qualm.training.heads import with_positions
from qualm.training.recipe import Recipe
from qualm.training.run import train
from qualm.training.settings import TrainSettings, TuneSettings
from qualm.training.size import build, check_length

TABLES = {"bert": "bert.embeddings.position_embeddings.weight", "gpt": "transformer.wpe.weight"}


@pytest.mark.parametrize(
    ("family", "kind", "skipped"),
    [("bert", {}, 0), ("bert", {"model_type": "roberta", "pad_token_id": 2}, 3), ("gpt", {}, 0)],
)
def test_known_positions_are_taken_over_again(family, kind: dict[str, Any], skipped):
    """The texts that fitted are read as before, and all else stays what it was."""
    model = build(family, 2, 300, 12, **kind).eval()
    grown = with_positions(model, 30).eval()
    assert (model.config.context, grown.config.context) == (12, 30)
    before, after = model.state_dict(), grown.state_dict()
    old, new = before.pop(TABLES[family]), after.pop(TABLES[family])
    assert len(new) == skipped + 30
    assert torch.equal(new[skipped:], old[skipped:].repeat(3, 1)[:30])
    assert torch.equal(new[:skipped], old[:skipped])
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    ids = torch.arange(4, 16)[None]
    assert torch.equal(grown(ids), model(ids))
    grown(torch.full((1, 30), 5))
    assert with_positions(model, 12) is model


@pytest.mark.parametrize("family", ["llama", "t5", "rnn"])
def test_a_model_without_a_table_stays_as_it_is(family):
    model = build(family, 1, 300, 12)
    longer = with_positions(model, 100_000)
    assert longer is model
    if family == "llama":
        with pytest.raises(UsageError, match="100000 tokens are more than the"):
            check_length(100_000, longer)


def test_weights_in_8_bits_are_not_drawn_anew_but_refused(tmp_path):
    """They would be: no parameter of the model holds them."""
    text = [f"the owl number {n} sat in tree {n * 7 % 13}" for n in range(30)]
    words = tmp_path / "words.jsonl"
    words.write_text("".join(json.dumps({"text": each, "label": each[-1]}) + "\n" for each in text))
    once = TrainSettings(steps=1, batch=2, threads=1)
    made = train(words, tmp_path / "made", Recipe(size=20_000, family="bert", length=24, train=once))
    lm = load_base(made.folder)
    assert isinstance(lm, Local)
    write_folder(quantize_int8(lm.model), lm.tokens, tmp_path / "int8", {})
    with pytest.raises(UsageError, match="in 8 bits, and do not learn"):
        train(words, tmp_path / "on", Recipe(start=tmp_path / "int8", length=24, dropout=0.1, train=once))
    for lora in (0, 2):
        with pytest.raises(UsageError, match="in 8 bits, and do not learn"):
            tuning = Tuning("classify", lora=lora, train=TuneSettings(steps=1, threads=1))
            tune(load_base(tmp_path / "int8"), words, tmp_path / "tuned", tuning)
