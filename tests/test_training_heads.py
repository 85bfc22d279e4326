"""More positions for a model that has learnt already."""

from typing import Any

import pytest
import torch

from qualm.errors import UsageError
from qualm.training.heads import with_positions
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
