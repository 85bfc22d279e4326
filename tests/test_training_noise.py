"""Label smoothing, wrong tokens, cut words: what they change, and that it hangs on seed, epoch and row alone."""

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from tokenizers.models import BPE, WordLevel

from qualm.corpus.packing import Packed
from qualm.errors import Stopped, UsageError
from qualm.tokens.dropout import Splitter
from qualm.tokens.tokenizer import Tokens
from qualm.tokens.train import train_bpe
from qualm.training.data import IGNORE, TokenRows
from qualm.training.loop import Hooks
from qualm.training.losses import causal
from qualm.training.noise import ShakenRows, SplitRows, hide_spans, mask
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


@pytest.mark.parametrize("share", [0.15, 0.4])
def test_as_many_tokens_are_hidden_as_is_said(share):
    rng = np.random.default_rng(2)
    ids = rng.integers(10, 300, size=20_000)
    shown, labels = mask(ids, rng, 5, 300, (0, 1), share)
    drawn = labels != IGNORE
    assert drawn.mean() == pytest.approx(share, abs=0.01)
    assert np.array_equal(labels[drawn], ids[drawn])
    assert np.array_equal(shown[~drawn], ids[~drawn])
    assert (shown[drawn] == 5).mean() == pytest.approx(0.8, abs=0.02)
    left, spans = hide_spans(ids, rng, range(5000, 8000), share)
    assert len(spans) - np.sum(spans >= 5000) == round(share * len(ids))
    assert np.array_equal(spans[spans >= 5000], left[left >= 5000])


def test_a_share_that_is_none_is_refused():
    for share in (0.0, 1.0, -0.1):
        with pytest.raises(UsageError, match=r"hidden: must be between 0 and 1"):
            Recipe(hidden=share)


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
    with pytest.raises(UsageError, match="bpe_dropout"):
        Recipe(bpe_dropout=-0.1)
    with pytest.raises(UsageError, match="goldfish"):
        Recipe(bpe_dropout=0.1, goldfish=4)


# -- words cut into smaller tokens


@pytest.fixture(scope="module")
def tokens() -> Tokens:
    return train_bpe([f"the lowest of lower nights {i} is slowly followed by the lowest day" for i in range(30)], 330)


def spelled(tokens: Tokens, ids) -> str:
    return "".join(tokens.tokenizer.id_to_token(int(i)) for i in ids)


def cut_rows(tokens: Tokens, share: float, seed: int = 0) -> tuple[TokenRows, SplitRows]:
    documents = [[tokens.eos_id, *tokens.encode(f"slowly followed by {i} lowest nights")] for i in range(60)]
    ids = np.array([i for document in documents for i in document] + [tokens.eos_id])
    ends = np.cumsum([len(document) for document in documents]) + 1
    plain = TokenRows(Packed(ids, ends, np.full(60, 30), {"documents": "made up"}), 32, apart=True)
    return plain, SplitRows(plain, Splitter(tokens), share, seed)


def test_a_token_is_cut_between_whole_and_its_characters(tokens):
    split, rng = Splitter(tokens), random.Random(0)
    for token in range(tokens.vocab_size):
        assert split(token, 0.0, rng) == [token]
        text = tokens.tokenizer.id_to_token(token)
        smallest = [token] if token in tokens.special.values() else [tokens.tokenizer.token_to_id(c) for c in text]
        assert split(token, 1.0, rng) == smallest
        assert spelled(tokens, split(token, 0.5, rng)) == text


def test_merges_are_left_out_as_often_as_is_said():
    """ "abc" is a + b, then ab + c: with each left out by 0.3 it is whole in 0.7 x 0.7 of all draws, ab c in 0.7 x 0.3.
    Where neither of two merges of "abc" is the other's part, the second takes the place of the first that is left out.
    """

    def shares(merges) -> dict[str, float]:
        vocab = {text: i for i, text in enumerate(["a", "b", "c", "ab", "bc", "abc"])}
        split = Splitter(Tokens(Tokenizer(BPE(vocab, merges))))
        rng, names = random.Random(0), list(vocab)
        found = Counter(" ".join(names[i] for i in split(5, 0.3, rng)) for _ in range(20_000))
        return {text: count / 20_000 for text, count in found.items()}

    one = shares([("a", "b"), ("ab", "c")])
    assert one == pytest.approx({"abc": 0.49, "ab c": 0.21, "a b c": 0.3}, abs=0.015)
    two = shares([("a", "b"), ("b", "c"), ("ab", "c")])
    assert two == pytest.approx({"abc": 0.49, "ab c": 0.21, "a bc": 0.3 * 0.7, "a b c": 0.09}, abs=0.015)


def test_cut_rows_spell_the_same_text_and_keep_documents_apart(tokens):
    plain, cut = cut_rows(tokens, 0.3)
    every, epoch = np.arange(len(plain)), np.zeros(len(plain), int)
    before, after = plain.batch(every, epoch), cut.batch(every, epoch)
    assert torch.equal(before["ids"][:, 0], after["ids"][:, 0])
    assert torch.equal(after["ids"][:-1, 1:], after["labels"][:-1, :-1])
    for row in range(len(plain)):
        texts = [
            spelled(tokens, [label for label in labels.tolist() if label != IGNORE])
            for labels in (before["labels"][row], after["labels"][row])
        ]
        assert texts[0].startswith(texts[1])
        ends = after["labels"][row] == tokens.eos_id
        first = int(after["documents"][row, 0])
        opened = first + ends.cumsum(0) - ends.long()
        told = after["labels"][row] != IGNORE
        assert torch.equal(after["documents"][row][told], opened[told])
    assert len(after["labels"][after["labels"] != IGNORE]) > 0.9 * len(before["labels"].flatten())
    whole = cut_rows(tokens, 0.0)[1].batch(every, epoch)
    assert all(torch.equal(whole[name], before[name]) for name in before)


def test_cuts_hang_on_seed_epoch_and_row_alone(tokens):
    (_, cut), (_, other) = cut_rows(tokens, 0.3), cut_rows(tokens, 0.3, seed=1)
    both = cut.batch(np.array([3, 7]), np.array([0, 2]))["ids"]
    alone = cut.batch(np.array([7]), np.array([2]))["ids"]
    assert torch.equal(both[1:], alone)
    assert not torch.equal(alone, cut.batch(np.array([7]), np.array([3]))["ids"])
    assert not torch.equal(alone, other.batch(np.array([7]), np.array([2]))["ids"])


def test_a_run_with_cut_words_resumes_exactly(notes, tmp_path):
    recipe, taken = replace(RECIPE, bpe_dropout=0.2, token_dropout=0.1), []
    whole = train(notes, tmp_path / "whole", recipe, Hooks(on_step=taken.append))
    assert not any("bits_per_byte" in row for row in taken)
    stops = iter([False] * 2 + [True])
    with pytest.raises(Stopped):
        train(notes, tmp_path / "cut", recipe, Hooks(should_stop=lambda: next(stops)))
    assert train(notes, tmp_path / "cut", recipe).result.validations == whole.result.validations


def test_a_tokenizer_without_merges_is_refused():
    with pytest.raises(UsageError, match="the tokenizer is WordLevel, which has no merges"):
        Splitter(Tokens(Tokenizer(WordLevel({"a": 0}, "a"))))
