"""Encoder-decoders as language models: transformers agrees, batches change nothing, what cannot be read is refused."""

import copy
import functools
import math
import random
from collections.abc import Callable

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from qualm.cases import ask
from qualm.errors import QualmError, Unsupported
from qualm.lm import seq2seq
from qualm.lm.base import UNDER, Completion, Sampling
from qualm.lm.load import load_base
from qualm.lm.scoring import Span
from qualm.lm.seq2seq import Pair, Seq2SeqLM
from qualm.models.base import EncoderDecoder
from qualm.models.marian import Marian, MarianConfig
from qualm.models.t5 import T5, T5Config
from qualm.tokens.byt5 import bytes_as_tokens
from qualm.tokens.tokenizer import Tokens
from tiny import TEXTS, tiny_tokens

CONTEXT = 80
BEGUN = [*ask("Where?"), {"role": "assistant", "content": "In Par"}]
PROMPTS = ["The quick brown fox", "它", "😀 x", ask("What is the capital of France?"), BEGUN, "a " * 30, "", "x y"]
CONTINUATIONS = ("and so", " Paris", "é", "中文 over", "")


@functools.cache
def pieces() -> Tokens:
    """SentencePiece's unigrams as T5's files hold them: padding 0, end 1, unknown 2, the end put after a text."""
    letters = sorted(set("".join(TEXTS).replace(" ", "")))
    words = ["▁the", "▁The", "▁qu", "ick", "▁fox", "▁a", "er", "ana"]
    scored = [*((control, 0.0) for control in ("<pad>", "</s>", "<unk>")), ("▁", -2.0)]
    scored += [(c, -5.0) for c in letters] + [(word, -6.0) for word in words]
    tokenizer = Tokenizer(models.Unigram(scored, 2, False))
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>"])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return Tokens(tokenizer, eos="</s>", pad="<pad>", unk="<unk>")


def t5(tokens: Tokens, **config) -> Seq2SeqLM:
    shape = {"d_model": 32, "d_kv": 6, "d_ff": 48, "num_layers": 2, "num_heads": 4, "n_positions": CONTEXT, **config}
    return opinionated(T5(T5Config(vocab_size=tokens.vocab_size, **shape)), tokens)


def marian(tokens: Tokens) -> Seq2SeqLM:
    shape = {"d_model": 32, "max_position_embeddings": CONTEXT, "pad_token_id": 0, "decoder_start_token_id": 0}
    shape["scale_embedding"] = True
    for side in ("encoder", "decoder"):
        shape |= {f"{side}_layers": 2, f"{side}_attention_heads": 4, f"{side}_ffn_dim": 48}
    return opinionated(Marian(MarianConfig(tokens.vocab_size, **shape, eos_token_id=1)), tokens, norm=1.0)


def opinionated(model: EncoderDecoder, tokens: Tokens, norm: float = 0.0) -> Seq2SeqLM:
    """Random weights so wide that no two tokens are nearly as likely."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.normal_(norm if name.endswith("norm.weight") else 0.0, 0.4, generator=generator)
    return Seq2SeqLM(model, tokens, name="tiny")


FAMILIES: dict[str, Callable[[], Seq2SeqLM]] = {
    "t5": lambda: t5(pieces(), tie_word_embeddings=False, feed_forward_proj="gated-gelu"),
    "byt5": lambda: t5(Tokens(bytes_as_tokens({}, ""), eos="</s>", pad="<pad>"), scale_decoder_outputs=False),
    "marian": lambda: marian(pieces()),
    "own tokens": lambda: t5(tiny_tokens(), eos_token_id=0, scale_decoder_outputs=False),
}


@pytest.fixture(scope="module", params=FAMILIES)
def lm(request):
    return FAMILIES[request.param]()


@pytest.fixture(scope="module")
def theirs(lm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    lm.save(folder)
    return transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval()


def test_transformers_generates_the_same(lm, theirs):
    assert len({c.text for c in lm.generate(PROMPTS, Sampling(max_tokens=24))}) > 2
    for prompt, ours in zip(PROMPTS, lm.generate(PROMPTS, Sampling(max_tokens=24)), strict=True):
        ids = lm.tokens.encode_source(prompt)
        never = {"bad_words_ids": [[i] for i in lm.model.never]} if lm.model.never else {}
        out = theirs.generate(torch.tensor([ids]), max_new_tokens=24, do_sample=False, **never)[0, 1:].tolist()
        ends = [out.index(end) for end in lm.ends if end in out]
        assert ours.text == lm.tokens.decode(out[: min(ends, default=24)])
        assert (ours.finish, ours.tokens) == (("stop", min(ends)) if ends else ("length", 24))
        assert ours.prompt_tokens == len(ids)


@torch.no_grad()
def test_transformers_scores_the_same(lm, theirs):
    pairs = [(prompt, text) for prompt in PROMPTS for text in CONTINUATIONS]
    for (context, continuation), scored in zip(pairs, lm.score(pairs), strict=True):
        source, target = lm.tokens.encode_source(context), lm.tokens.encode(continuation)
        under = torch.tensor([[lm.start, *target]])
        expected = theirs(torch.tensor([source]), decoder_input_ids=under).logits[0].log_softmax(-1)
        assert scored.logprobs == pytest.approx([expected[i, t].item() for i, t in enumerate(target)], abs=1e-4)


@pytest.mark.parametrize("sampling", [Sampling(max_tokens=20), Sampling(max_tokens=20, temperature=1.0, top_p=0.9)])
def test_a_batch_says_what_each_prompt_alone_is_told(lm, sampling):
    alone = [lm.generate([prompt], sampling)[0] for prompt in PROMPTS]
    order = random.Random(0).sample(list(range(len(PROMPTS))) * 5, 5 * len(PROMPTS))
    for i, completion in zip(order, lm.generate([PROMPTS[i] for i in order], sampling), strict=True):
        assert same(completion, alone[i])


def same(a: Completion, b: Completion) -> bool:
    return (a.text, a.finish, a.tokens) == (b.text, b.finish, b.tokens) and a.logprobs == pytest.approx(
        b.logprobs, abs=1e-4
    )


def test_rows_that_end_early_leave_the_others_alone(lm):
    sampling = Sampling(max_tokens=40, temperature=1.5, stop=("e", "a", "1"))
    prompts = [f"{i} {text}" for i in range(6) for text in ("fox", "The dog")]
    together = lm.generate(prompts, sampling)
    assert len({c.tokens for c in together}) > 3
    assert all(same(c, lm.generate([p], sampling)[0]) for p, c in zip(prompts, together, strict=True))


def test_scores_do_not_depend_on_the_batch(lm, monkeypatch):
    pairs = [(context, text) for context in PROMPTS for text in CONTINUATIONS]
    alone = [lm.score([pair])[0].logprobs for pair in pairs]
    for tokens in (4096, 150):
        monkeypatch.setattr(seq2seq, "BATCH", tokens)
        order = random.Random(tokens).sample(range(len(pairs)), len(pairs))
        for i, scored in zip(order, lm.score([pairs[i] for i in order]), strict=True):
            assert scored.logprobs == pytest.approx(alone[i], abs=5e-5)


def test_each_source_is_read_once(lm, monkeypatch):
    read, encode = [], lm.model.encode
    monkeypatch.setattr(lm.model, "encode", lambda ids, *rest, **room: read.extend(ids) or encode(ids, *rest, **room))
    lm.score([(prompt, text) for text in CONTINUATIONS for prompt in ("The fox", "a dog", "it")])
    assert len(read) == 3


def test_a_score_is_the_log_probability_that_generation_reports(lm):
    sampling = Sampling(max_tokens=12, temperature=1.0, seed=3)
    for prompt in PROMPTS:
        source = lm.tokens.encode_source(prompt)
        batch, written = lm.batch(), []
        batch.join(prompt, sampling)
        while batch:
            written += [token for delta in batch.step().values() for token in delta.tokens]
        pair = Pair(tuple(source), Span(0, [token.id for token in written], 0))
        assert lm._score_batch([pair])[0] == pytest.approx([token.logprob for token in written], abs=1e-4)


def test_a_stream_is_the_answer_in_pieces(lm):
    for prompt in PROMPTS[:5]:
        for sampling in (Sampling(max_tokens=24), Sampling(max_tokens=24, temperature=1.0, stop=("e", "1"))):
            assert "".join(lm.stream(prompt, sampling)) == lm.generate([prompt], sampling)[0].text


def test_the_source_is_put_whole_between_its_marks(lm):
    tokens = lm.tokens
    frame = tokens.encode_source("x")
    assert frame == [*tokens.start, *tokens.encode("x"), *tokens.end]
    assert tokens.encode_source("") == [*tokens.start, *tokens.end] != []
    asked = tokens.encode_source(BEGUN)
    assert "In Par" in tokens.decode(asked)
    assert tokens.decode(asked).rstrip().endswith("In Par")
    spelled = tokens.encode_source(f"a{tokens.eos} {tokens.eos} b")
    assert tokens.eos_id not in spelled[len(tokens.start) : -1]  # what a user spells is text


def test_an_empty_context_scores_the_whole_text(lm):
    for text in TEXTS[:2]:
        text = text[:40]
        assert len(lm.score([("", text)])[0].logprobs) == len(lm.tokens.encode(text))
    assert lm.score([("", ""), ("The", "")])[1].logprobs == ()
    assert lm.score([]) == []
    assert lm.generate([]) == []


def test_a_source_of_nothing_is_refused_where_nothing_frames_it():
    tokens = tiny_tokens()
    bare = Tokenizer.from_str(tokens.tokenizer.to_str())
    bare.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    lm = t5(Tokens(bare))
    with pytest.raises(Unsupported, match="cannot read nothing"):
        lm.generate([""])
    with pytest.raises(Unsupported, match="cannot read nothing"):
        lm.score([("", "text")])


def test_a_source_longer_than_the_context_is_not_read_and_the_others_are(lm):
    long = "fox " * CONTEXT
    short, unread = lm.generate(["short", long])
    assert short == lm.generate(["short"])[0]
    assert unread.finish == "unread"
    assert "can look at 80; shorten the prompt" in unread.notes["why"]
    first, lost, last = lm.score([("short", "x"), (long, "x"), ("short", "xy")])
    assert [first, last] == lm.score([("short", "x"), ("short", "xy")])
    assert math.isnan(lost.total)
    assert "can look at 80" in lost.why
    with pytest.raises(Unsupported, match="can look at 80"):
        list(lm.stream(long))


def test_the_context_bounds_what_is_written(lm):
    free = Seq2SeqLM(lm.model, lm.tokens)
    free.ends = frozenset()
    written = free.generate(["a " * 20, "b"], Sampling(max_tokens=10**6))
    assert [c.tokens for c in written] == [CONTEXT, CONTEXT]
    assert free.generate(["b"], Sampling(max_tokens=0))[0] == Completion("", written[1].prompt_tokens, 0, "length")


@torch.no_grad()
def test_a_long_continuation_is_read_in_windows(lm):
    text = "".join(random.Random(0).choices("abcdefgh 1234é", k=300))
    source, target = lm.tokens.encode_source("The fox"), lm.tokens.encode(text)
    assert len(target) > 2 * CONTEXT
    [scored] = lm.score([("The fox", text)])
    assert len(scored.logprobs) == len(target)
    for begin, first, end in ((0, 0, CONTEXT), (CONTEXT // 2, CONTEXT, 3 * CONTEXT // 2)):
        under = torch.tensor([[lm.start, *target[begin : end - 1]]])
        expected = lm.model(torch.tensor([source]), under)[0].log_softmax(-1)
        wanted = [expected[i - begin, target[i]].item() for i in range(first, end)]
        assert scored.logprobs[first:end] == pytest.approx(wanted, abs=1e-4)


def test_an_answer_does_not_go_on_with_the_text_of_the_source():
    lm = t5(pieces())
    word = lm.tokens.encode("fox")
    writer = lm._writer("The", lm.tokens.encode_source("The"), Sampling())
    for token in word:
        writer.push(lm.spelling.token(token, 0.0))
    assert writer.text == "fox"


def test_what_the_template_puts_before_an_answer_is_no_part_of_it():
    lm = FAMILIES["byt5"]()
    for prompt, text in ((ask("Where?"), "Paris"), ("Where?", " Paris"), (BEGUN, " Paris")):
        writer = lm._writer(prompt, (), Sampling())
        for token in lm.tokens.encode(" Paris"):
            writer.push(lm.spelling.token(token, 0.0))
        writer.push(lm.spelling.token(1, 0.0))
        assert (writer.text, writer.finish) == (text, "stop")


def test_an_answer_ends_at_any_end_token():
    lm = t5(tiny_tokens(), eos_token_id=(7, 9))
    assert lm.ends == {0, 7, 9}


def test_what_is_no_number_is_told(lm):
    broken = copy.deepcopy(lm.model)
    with torch.no_grad():
        next(broken.last.parameters()).fill_(torch.nan)
    broken = lm.replace(broken)
    asked = (lambda: broken.generate(["x"]), lambda: broken.score([("x", "y")]), lambda: list(broken.stream("x")))
    for ask_it in asked:
        with pytest.raises(QualmError, match="NaN"):
            ask_it()


def test_a_saved_model_answers_alike(lm, tmp_path):
    lm.save(tmp_path)
    again = load_base(tmp_path)
    assert isinstance(again, Seq2SeqLM)
    assert again.card == lm.card
    assert again.card.scoring == UNDER
    assert again.ends == lm.ends
    assert again.generate(PROMPTS, Sampling(max_tokens=8)) == lm.generate(PROMPTS, Sampling(max_tokens=8))
    assert again.score([("x", "y")]) == lm.score([("x", "y")])
