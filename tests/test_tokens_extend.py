"""New words: one token each, all else cut and computed as before, and readable by transformers."""

import dataclasses
import json

import pytest
import torch
import transformers

from qualm import load, registry
from qualm.errors import InputError, Unsupported, UsageError
from qualm.lm.encoder import EncoderLM
from qualm.lm.extend import change, extend_model
from qualm.lm.load import KINDS_OF_LOCAL
from qualm.models.base import Causal, Encoder, EncoderDecoder
from qualm.models.layers import quantize_int8
from qualm.text import prose
from qualm.tokens import extend
from qualm.tokens.measure import HARD
from qualm.tokens.tokenizer import Tokens
from qualm.tokens.train import train_tokens
from tiny import TEXTS, saying, tiny_local, tiny_tokens

WORDS = ["photosynthesis", "Überschwemmung", "量子力学", "ภาษาไทย"]
SENTENCE = "The photosynthesis, 量子力学量子 Überschwemmung photosynthesis. ภาษาไทยไทย"
LEARNT = [*TEXTS * 4, *prose.paragraphs()[:40]]
FAMILIES = [name for name in registry.names("models") if hasattr(registry.find("models", name), "config_class")]
THEIRS = ("llama", "gpt", "bert", "t5", "marian")


def local(family, seed=0, **changed):
    tokens = tiny_tokens()
    kind = registry.find("models", family)
    ids = {"bos_token_id": tokens.bos_id, "eos_token_id": tokens.eos_id, "pad_token_id": tokens.pad_id}
    config = dataclasses.replace(kind.config_class.sized(1, tokens.vocab_size, 64, **ids), **changed)
    model = kind(config)
    model.init_weights(seed)
    wrapper = next(wrapper for wrapper in KINDS_OF_LOCAL if isinstance(model, wrapper.of))
    return wrapper(model, tokens, name=family)


def logits(model, ids):
    rows = torch.tensor([ids])
    with torch.inference_mode():
        if isinstance(model, EncoderDecoder):
            return model(rows, rows)
        return model(rows)


@pytest.mark.parametrize("kind", ["bpe", "unigram", "wordpiece"])
def test_words_are_one_token_and_all_else_is_cut_as_before(kind):
    words = WORDS if kind != "wordpiece" else ["photosynthesis", "量子力学"]
    old = train_tokens(LEARNT, 900, kind)
    made = extend.extend(old, words)
    new = made.tokens
    assert sorted(made.words.values()) == list(range(old.vocab_size, new.vocab_size))
    assert len(made.words) == len(words)
    for word, i in made.words.items():
        assert i in new.encode(f"a {word} b")
        assert made.pieces[i] == tuple(extend.spelling(old, word))
    for text in [*LEARNT, *HARD.values()]:
        assert new.encode(text) == old.encode(text)
    assert old.encode(SENTENCE) != new.encode(SENTENCE)
    if kind != "wordpiece":  # to which 子 was unknown
        assert new.decode(new.encode(SENTENCE)) == SENTENCE
    pushed = new.detokenizer()
    streamed = "".join([pushed.push(i) for i in new.encode(SENTENCE)]) + pushed.close()
    assert streamed == new.decode(new.encode(SENTENCE))
    assert new.special == old.special


def test_words_inside_words_stay_as_they_were():
    old, new = tiny_tokens(), extend.extend(tiny_tokens(), ["photo"]).tokens
    assert new.encode(" photographs") == old.encode(" photographs")
    assert new.encode("a photo") != old.encode("a photo")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_grows(family, tmp_path):
    """New rows are the mean of their pieces'; what was there says of old tokens what it said."""
    before = local(family)
    after, made = extend_model(before, WORDS)
    assert after.model.config.vocab_size == before.model.config.vocab_size + len(WORDS) == after.tokens.vocab_size
    assert after.model.config.parameters == sum(p.numel() for p in dict(after.model.named_parameters()).values())
    table = [m for m in after.model.modules() if isinstance(m, torch.nn.Embedding)]
    table = next(m.weight for m in table if len(m.weight) == after.tokens.vocab_size)
    for i, pieces in made.pieces.items():
        torch.testing.assert_close(table[i], table[list(pieces)].mean(0))
    ids = before.tokens.encode("The quick brown fox")
    old, new = logits(before.model, ids), logits(after.model, ids)
    torch.testing.assert_close(new[..., : old.shape[-1]], old)
    if isinstance(after.model, Causal):
        assert new.shape[-1] == after.tokens.vocab_size
        i, pieces = next(iter(made.pieces.items()))
        torch.testing.assert_close(new[..., i], old[..., list(pieces)].mean(-1), atol=1e-5, rtol=1e-4)
    after.save(tmp_path / "grown")
    again = load(tmp_path / "grown")
    assert again.card.weights == after.card.weights
    assert again.about["extended"] == WORDS
    assert before.tokens.vocab_size == tiny_tokens().vocab_size


@pytest.mark.parametrize("tied", [True, False])
def test_a_head_of_its_own_grows_too(tied):
    after, made = extend_model(local("llama", tie_word_embeddings=tied), WORDS)
    rows = after.model.lm_head.weight
    assert (rows is after.model.model.embed_tokens.weight) == tied
    for i, pieces in made.pieces.items():
        torch.testing.assert_close(rows[i], rows[list(pieces)].mean(0))


def test_rows_that_nothing_used_are_used_first():
    """A vocabulary is often padded to a round number."""
    small = tiny_local()
    padded = tiny_local()
    config = dataclasses.replace(small.model.config, vocab_size=512)
    padded = type(small)(type(small.model)(config), small.tokens)
    padded.model.init_weights(1)
    after, made = extend_model(padded, WORDS)
    assert after.model.config.vocab_size == 512
    rows = after.model.get_submodule("model.embed_tokens").weight
    for i, pieces in made.pieces.items():
        torch.testing.assert_close(rows[i], padded.model.model.embed_tokens.weight[list(pieces)].mean(0))


@pytest.mark.parametrize("family", THEIRS)
def test_transformers_reads_the_grown_model(family, tmp_path):
    after, made = extend_model(local(family), WORDS)
    after.save(tmp_path)
    tokens = transformers.AutoTokenizer.from_pretrained(tmp_path)
    theirs = transformers.AutoModel.from_pretrained(tmp_path)
    assert len(tokens) == after.tokens.vocab_size == len(theirs.get_input_embeddings().weight)
    ids = tokens.encode(SENTENCE, add_special_tokens=False)
    assert ids == after.tokens.encode(SENTENCE)
    assert set(made.words.values()) <= set(ids)
    assert tokens.decode(ids) == SENTENCE
    if family == "llama":
        theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
        with torch.inference_mode():
            torch.testing.assert_close(theirs(torch.tensor([ids])).logits, logits(after.model, ids))


def test_what_it_did_is_read_in_bits_per_byte():
    before = tiny_local()
    after, _ = extend_model(before, WORDS)
    same = change(before, after, "old", ["The quick fox."])
    assert same.tokens_before == same.tokens_after
    assert same.after == pytest.approx(same.before, abs=0.05)  # the new rows take a little of the probability
    assert same.after > same.before
    other = change(before, after, "new", [SENTENCE])
    assert other.tokens_after < other.tokens_before
    assert other.after != pytest.approx(other.before, abs=1e-3)
    nothing = change(local("bert"), extend_model(local("bert"), WORDS)[0], "x", [SENTENCE])
    assert nothing.before is None
    assert "pseudo" in nothing.why or "no scores" in nothing.why
    assert isinstance(local("bert"), EncoderLM)
    assert issubclass(registry.find("models", "bert"), Encoder)


def test_words_that_are_found_in_a_text():
    english = "The photosynthesis of plants. We like photosynthesis, and photosynthesis is good. "
    chinese = ["他学量子力学很久了。", "我爱量子力学吗？", "问量子力学呢！", "在量子力学里说。", "用量子力学来看。"]
    found = extend.candidates(tiny_tokens(), [english * 2, *chinese], 50)
    assert found[0] in ("photosynthesis", "量子力学")
    assert {"photosynthesis", "量子力学"} <= set(found)
    assert not {"量子", "子力", "力学", "量子力", "子力学"} & set(found)  # they never stand by themselves
    assert "The" not in found
    assert extend.candidates(tiny_tokens(), [english * 2, *chinese], 1) == found[:1]
    extend.extend(tiny_tokens(), found)
    with pytest.raises(InputError, match="5 times or more"):
        extend.candidates(tiny_tokens(), ["nothing here stands often"], 50)


def test_words_that_cannot_be_added():
    tokens = tiny_tokens()
    known = next(t for t in ("the", "fox", "quick") if len(extend.spelling(tokens, t)) == 1)
    for words, what in (
        (["photosynthesis", known], f"tokens already: '{known}'"),
        (["<|end|>"], "control token: '<|end|>'"),
        (["x<|user|>y"], "control token"),
        (["two words"], "white space"),
        (["well-known"], "not one word to this tokenizer: 'well-known'"),
        (["b2b"], "not one word"),
    ):
        with pytest.raises(UsageError, match=what.replace("|", r"\|")):
            extend.extend(tokens, words)
    with pytest.raises(InputError, match="no words"):
        extend.extend(tokens, [])
    assert extend.extend(tokens, ["zebra", "zebra"]).words == {"zebra": tokens.vocab_size}


def test_tokenizers_and_models_that_cannot_grow():
    characters = train_tokens(LEARNT, 200, "character")
    with pytest.raises(UsageError, match="not one word"):
        extend.extend(characters, ["zebra"])
    two = dataclasses.replace(tiny_tokens(), target=tiny_tokens().tokenizer)
    with pytest.raises(Unsupported, match="two tokenizers"):
        extend.extend(two, WORDS)
    small = tiny_local()
    quantize_int8(small.model)
    with pytest.raises(Unsupported, match="8 bits"):
        extend_model(small, WORDS)
    with pytest.raises(Unsupported, match="made up"):
        extend_model(load("fake:oracle"), WORDS)
    assert saying("x").tokens.vocab_size > 0


def test_control_tokens_beyond_the_vocabulary_keep_their_ids(tmp_path):
    """As Qwen has them."""
    old = train_tokens(LEARNT, 600, "bpe", ("<|end|>",))
    made = json.loads(old.tokenizer.to_str())
    made["added_tokens"] += [{**made["added_tokens"][0], "id": 600 + i, "content": f"<|{i}|>"} for i in range(3)]
    from tokenizers import Tokenizer

    old = Tokens(Tokenizer.from_str(json.dumps(made)), "<|end|>", "<|end|>", "<|0|>")
    new = extend.extend(old, WORDS)
    assert new.tokens.special == old.special
    assert min(new.words.values()) == 603
    new.tokens.save(tmp_path)
    assert Tokens.load(tmp_path).hash == new.tokens.hash
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.encode(SENTENCE, add_special_tokens=False) == new.tokens.encode(SENTENCE)
    assert new.tokens.special["<|1|>"] not in new.tokens.encode("<|1|>")


@pytest.mark.parametrize(
    ("data", "what"), [(b"", "holds no words"), (b" \n\n", "holds no words"), (b"caf\xe9\n", "not UTF-8")]
)
def test_files_of_words_that_are_none(tmp_path, data, what):
    (tmp_path / "words.txt").write_bytes(data)
    with pytest.raises(InputError, match=what):
        extend.read_words(tmp_path / "words.txt")
    with pytest.raises(InputError, match="cannot be read"):
        extend.read_words(tmp_path / "other.txt")
