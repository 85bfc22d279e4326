"""Encoders as language models: scores, vectors, labels, spans and words, each against a plain reckoning of its own."""

import itertools

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from encoder_models import roberta_tokens, tiny_encoder, wordpiece_tokens
from qualm.cases import ask
from qualm.errors import Unsupported, UsageError
from qualm.lm.base import PSEUDO, Span
from qualm.lm.encoder import EncoderLM, best_answer, merged
from qualm.lm.load import load_base
from qualm.lm.replay import Replay
from qualm.lm.scoring import windows
from qualm.lm.wrapped import Wrapped
from qualm.models.bert import Bert, BertConfig
from qualm.models.store import save_model
from qualm.tokens.pairs import join
from qualm.tokens.tokenizer import Tokens

TEXTS = ["The quick brown fox jumps over the lazy dog.", "Question: What is it?", "fox", "they've 42 apples left"]
LONG = " ".join(TEXTS * 6)
PAIRS = [("The quick brown", " fox jumps"), ("", "over the lazy dog"), ("The dog", ""), (ask("What is it?"), "a fox")]
LABELS = "O B-PER I-PER B-LOC"
TASKS = {"masked": {"score", "embed", "fill"}, "none": {"embed"}, "sequence": {"classify", "embed"}}
TASKS |= {"token": {"tag", "embed"}, "question": {"answer", "embed"}}


def reference(lm, tmp_path):
    """transformers' model of the same weights."""
    save_model(lm.model, tmp_path)
    kinds = {"masked": "MaskedLM", "sequence": "SequenceClassification", "token": "TokenClassification"}
    kinds |= {"question": "QuestionAnswering"}
    kind = f"AutoModelFor{kinds[lm.model.config.head]}" if lm.model.config.head in kinds else "AutoModel"
    return getattr(transformers, kind).from_pretrained(tmp_path).eval()


def framed(lm, text):
    return lm.tokens.encode_source(text)


@pytest.mark.parametrize("head", TASKS)
def test_what_it_can_follows_from_the_head(head):
    lm = tiny_encoder(head)
    assert lm.can == TASKS[head] | {"weights"}
    uses = {
        "generate": lambda: lm.generate(["x"]),
        "score": lambda: lm.score([("x", "y")]),
        "embed": lambda: lm.embed(["x"]),
        "classify": lambda: lm.classify(["x"]),
        "tag": lambda: lm.tag(["x"]),
        "answer": lambda: lm.answer([("x", "y")]),
        "fill": lambda: lm.fill(["x [MASK]"]),
    }
    for word, use in uses.items():
        if word in lm.can:
            assert len(use()) == 1
        else:
            with pytest.raises(Unsupported, match=r"it can .*type: qualm (do|audit) .* MODEL"):
                use()
    assert lm.card.scoring == (PSEUDO if head == "masked" else "")


def test_a_score_is_the_probability_of_each_masked_token(tmp_path):
    lm = tiny_encoder()
    theirs = reference(lm, tmp_path)
    for (context, continuation), scored in zip(PAIRS[:3], lm.score(PAIRS[:3]), strict=True):
        whole, after = framed(lm, context + continuation), len(lm.tokens.encode(continuation))
        expected = []
        for at in range(len(whole) - 1 - after, len(whole) - 1):
            ids = torch.tensor([[*whole[:at], lm.tokens.mask_id, *whole[at + 1 :]]])
            with torch.no_grad():
                expected.append(float(theirs(ids).logits[0, at].log_softmax(-1)[whole[at]]))
        assert scored.logprobs == pytest.approx(expected, abs=1e-4)


def test_messages_are_scored_in_the_frame():
    lm = tiny_encoder()
    text = lm.tokens.render(PAIRS[3][0], generation=True)
    assert lm.score(PAIRS[3:])[0].logprobs == pytest.approx(lm.score([(text, " a fox")])[0].logprobs, abs=1e-5)


def test_order_and_batch_change_nothing():
    lm = tiny_encoder()
    pairs = [(text[:k], text[k:]) for text in TEXTS for k in (0, 3, 9)]
    together = lm.score(pairs)
    for pair, scored in zip(pairs, together, strict=True):
        assert lm.score([pair])[0].logprobs == pytest.approx(scored.logprobs, abs=1e-4)
    np.testing.assert_allclose(lm.embed(TEXTS), np.concatenate([lm.embed([t]) for t in TEXTS]), atol=1e-5)


def test_a_long_text_is_scored_in_windows_each_token_once():
    lm = tiny_encoder(context=34)
    ids = lm.tokens.encode(LONG)
    scored = lm.score([("", LONG)])[0].logprobs
    assert len(scored) == len(ids) > 64
    expected = []
    for window in windows(0, ids, 0, 32):
        whole = [*lm.tokens.start, *window.ids, *lm.tokens.end]
        for at in range(1 + window.first, len(whole) - 1):
            with torch.no_grad():
                logits = lm.model(torch.tensor([[*whole[:at], lm.tokens.mask_id, *whole[at + 1 :]]]))[0, at]
            expected.append(float(logits.log_softmax(-1)[whole[at]]))
    assert scored == pytest.approx(expected, abs=1e-4)


def test_a_vector_is_the_mean_over_the_tokens_and_of_length_1(tmp_path):
    lm = tiny_encoder("none")
    theirs = reference(lm, tmp_path)
    found = lm.embed(TEXTS)
    assert found.dtype == np.float32
    for text, vector in zip(TEXTS, found, strict=True):
        with torch.no_grad():
            mean = theirs(torch.tensor([framed(lm, text)])).last_hidden_state[0].mean(0)
        np.testing.assert_allclose(vector, (mean / mean.norm()).numpy(), atol=1e-5)
    assert lm.embed([]).shape[0] == 0


def test_the_vector_of_a_long_text_counts_every_token_once():
    lm, short = tiny_encoder("none", context=256), tiny_encoder("none", context=34)
    assert np.linalg.norm(short.embed([LONG])) == pytest.approx(1)
    parts = list(windows(0, short.tokens.encode(LONG), 0, 32))
    states = []
    for part in parts:
        ids = [*short.tokens.start, *part.ids, *short.tokens.end]
        with torch.no_grad():
            hidden = short.model.hidden(torch.tensor([ids]))[0]
        states.append(hidden[(0 if part is parts[0] else 1 + part.first) : (len(ids) if part is parts[-1] else -1)])
    mean = torch.cat(states).mean(0)
    assert len(torch.cat(states)) == len(framed(lm, LONG))
    np.testing.assert_allclose(short.embed([LONG])[0], (mean / mean.norm()).numpy(), atol=1e-5)


@pytest.mark.parametrize("problem", [None, "multi_label_classification"])
def test_labels_have_transformers_probabilities(problem, tmp_path):
    lm = tiny_encoder("sequence", "bad good none", problem_type=problem)
    theirs = reference(lm, tmp_path)
    for text, found in zip(TEXTS, lm.classify(TEXTS), strict=True):
        with torch.no_grad():
            logits = theirs(torch.tensor([framed(lm, text)])).logits[0]
        p = logits.sigmoid() if problem else logits.softmax(-1)
        assert list(found) == ["bad", "good", "none"]
        assert list(found.values()) == pytest.approx(p.tolist(), abs=1e-5)


def test_a_number_on_a_scale_is_no_label():
    lm = tiny_encoder("sequence", "stars", problem_type="regression")
    with pytest.raises(Unsupported, match="no probability"):
        lm.classify(["x"])


def test_tags_stand_on_characters_and_agree_with_transformers(tmp_path):
    lm = tiny_encoder("token", LABELS, seed=3)
    lm.tokens.save(tmp_path / "all")
    save_model(lm.model, tmp_path / "all")
    theirs = transformers.pipeline("token-classification", str(tmp_path / "all"), aggregation_strategy="first")
    found = lm.tag(TEXTS)
    assert any(len(spans) > 1 for spans in found)
    for text, spans in zip(TEXTS, found, strict=True):
        expected = theirs(text)
        assert [(s.label, s.start, s.end) for s in spans] == [
            (e["entity_group"], e["start"], e["end"]) for e in expected
        ]
        assert [s.p for s in spans] == pytest.approx([e["score"] for e in expected], abs=1e-4)


def test_a_long_text_is_tagged_to_its_end():
    lm = tiny_encoder("token", "N V", context=34)
    spans = lm.tag([LONG])[0]
    words = [LONG[s.start : s.end] for s in spans]
    assert "".join(words) == LONG.replace(" ", "")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("B-A I-A O B-A", [(0, 3, "A"), (6, 7, "A")]),
        ("I-A I-A I-B", [(0, 3, "A"), (4, 5, "B")]),
        ("B-A B-A I-B", [(0, 1, "A"), (2, 3, "A"), (4, 5, "B")]),
        ("B-A E-A S-A", [(0, 3, "A"), (4, 5, "A")]),
        ("NOUN NOUN O", [(0, 1, "NOUN"), (2, 3, "NOUN")]),
        ("x-ray x-ray", [(0, 1, "x-ray"), (2, 3, "x-ray")]),
        ("O O", []),
    ],
)
def test_words_become_spans(labels, expected):
    words = [Span(2 * i, 2 * i + 1, label, 0.5) for i, label in enumerate(labels.split())]
    assert [(s.start, s.end, s.label) for s in merged(words)] == expected


def test_the_answer_is_the_likeliest_span(tmp_path):
    lm = tiny_encoder("question")
    theirs = reference(lm, tmp_path)
    question, passage = "What jumps?", "The quick brown fox jumps over the lazy dog."
    found = lm.answer([(question, passage)])[0]
    e = lm.tokens.tokenizer.encode(question, passage)
    with torch.no_grad():
        out = theirs(torch.tensor([e.ids]), token_type_ids=torch.tensor([e.type_ids]))
    s, t = out.start_logits[0], out.end_logits[0]
    inside = [i for i, of in enumerate(e.sequence_ids) if of == 1]
    spans = [(i, j) for i, j in itertools.product(inside, inside) if i <= j < i + 30]
    z = torch.logsumexp(torch.stack([*(s[i] + t[j] for i, j in spans), s[0] + t[0]]), 0)
    best = max(spans, key=lambda span: s[span[0]] + t[span[1]])
    assert (found.start, found.end) == (e.offsets[best[0]][0], e.offsets[best[1]][1])
    assert found.text == passage[found.start : found.end]
    assert found.p == pytest.approx(float((s[best[0]] + t[best[1]] - z).exp()), abs=1e-5)
    assert found.none == pytest.approx(float((s[0] + t[0] - z).exp()), abs=1e-5)


def test_a_long_passage_is_searched_to_its_end():
    lm = tiny_encoder("question", context=40)
    found = lm.answer([("What?", LONG)])[0]
    assert LONG[found.start : found.end] == found.text
    assert 0 < found.p < 1
    logits = torch.zeros(12, 2)
    logits[9] = 20.0
    assert best_answer(logits, 2, [(i, i + 1) for i in range(10)], "abcdefghij").text == "h"
    with pytest.raises(Unsupported, match="no room"):
        lm.answer([("What is it? " * 20, LONG)])
    with pytest.raises(Unsupported, match="empty"):
        lm.answer([("What?", "")])


def test_words_are_filled_in(tmp_path):
    lm = tiny_encoder()
    theirs = reference(lm, tmp_path)
    text = "The [MASK] fox [MASK] over [SEP] it"
    found = lm.fill([text, "[MASK]"], top=3)
    assert [len(each) for each in found] == [2, 1]
    assert all(list(p.values()) == sorted(p.values(), reverse=True) and len(p) == 3 for p in found[0])
    the, over = lm.tokens.encode("the"), lm.tokens.encode("over [SEP] it")
    assert lm.tokens.tokenizer.token_to_id("[SEP]") not in over  # what a user spells is text
    mask, start, end = lm.tokens.mask_id, *lm.tokens.start, *lm.tokens.end
    ids = [start, *the, mask, *lm.tokens.encode("fox"), mask, *over, end]
    with torch.no_grad():
        p = theirs(torch.tensor([ids])).logits[0, 1 + len(the)].softmax(-1)
    best = lm.tokens.decode([int(p.argmax())], skip_special=False)
    assert next(iter(found[0][0].items())) == (best, pytest.approx(float(p.max()), abs=1e-5))
    with pytest.raises(UsageError, match=r"text 1 has no \[MASK\]"):
        lm.fill(["[MASK]", "none"])


def test_outside_of_fill_the_mask_is_text():
    lm = tiny_encoder()
    assert lm.tokens.mask_id not in lm.tokens.encode("a [MASK]")
    assert len(lm.score([("a ", "[MASK]")])[0].logprobs) == len(lm.tokens.encode("[MASK]")) > 1


def test_without_a_mask_marker_there_is_no_score():
    lm = tiny_encoder()
    bare = Tokens(lm.tokens.tokenizer, pad="[PAD]", unk="[UNK]")
    other = type(lm)(lm.model, bare)
    assert other.can == {"embed", "weights"}
    assert bare.hash != lm.tokens.hash


def test_what_is_too_long_or_empty_is_refused():
    lm = tiny_encoder("sequence", context=16)
    with pytest.raises(Unsupported, match=r"text 1 has .* tokens and tiny-sequence can look at 16"):
        lm.classify(["fox", LONG])
    with pytest.raises(Unsupported, match="can look at 16"):
        tiny_encoder(context=16).fill([LONG + "[MASK]"])
    bare = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    bare.pre_tokenizer = pre_tokenizers.Whitespace()
    frameless = type(lm)(lm.model, Tokens(bare))
    with pytest.raises(Unsupported, match="nothing that"):
        frameless.classify([""])
    with pytest.raises(Unsupported, match="nothing that"):
        frameless.embed([""])


def test_a_pair_is_framed_as_the_tokenizer_frames_it():
    tokens = wordpiece_tokens()
    made = tokens.tokenizer.encode(TEXTS[0], TEXTS[2])
    framed_pair = join(tokens.tokenizer, tokens.encode(TEXTS[0]), tokens.encode(TEXTS[2]))
    assert (framed_pair.ids, framed_pair.segments) == (made.ids, made.type_ids)
    assert framed_pair.at == made.sequence_ids.index(1)


def test_bytes_are_framed_masked_and_tagged_as_roberta_has_it(tmp_path):
    tokens = roberta_tokens()
    theirs = tokens.tokenizer
    for text in ("The <mask> fox", "<mask>", "a<mask> and  <mask>.", "Où est <mask>?"):
        assert [*tokens.start, *tokens.encode_masked(text), *tokens.end] == theirs.encode(text).ids
    spelled = tokens.encode_masked("a </s> <mask>")
    assert (spelled.count(tokens.mask_id), spelled.count(tokens.eos_id)) == (1, 0)
    made = theirs.encode(TEXTS[0], TEXTS[3])
    pair = join(theirs, tokens.encode(TEXTS[0]), tokens.encode(TEXTS[3]))
    assert (pair.ids, pair.segments, pair.at) == (made.ids, made.type_ids, made.sequence_ids.index(1))
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 34}
    shape |= {"vocab_size": tokens.vocab_size, "pad_token_id": 1, "type_vocab_size": 1, "model_type": "roberta"}
    lm = EncoderLM(
        Bert(BertConfig(**shape, head="token", id2label={"0": "N", "1": "V"}, initializer_range=0.3)), tokens
    )
    assert lm.context == 32
    long = "Où est la gare? The quick brown fox jumps. " * 3
    spans = lm.tag([long])[0]
    assert "".join(long[s.start : s.end] for s in spans) == long.replace(" ", "")
    masked = EncoderLM(Bert(BertConfig(**shape, head="masked")), tokens)
    reference_model = reference(masked, tmp_path)
    ids = theirs.encode("The quick brown").ids
    with torch.no_grad():
        logits = reference_model(torch.tensor([[*ids[:-2], tokens.mask_id, ids[-1]]])).logits[0, len(ids) - 2]
    assert masked.score([("", "The quick brown")])[0].logprobs[-1] == pytest.approx(
        float(logits.log_softmax(-1)[ids[-2]]), abs=1e-4
    )


def test_it_is_saved_and_loaded_and_wrapped(tmp_path):
    lm = tiny_encoder()
    lm.save(tmp_path / "model")
    again = load_base(tmp_path / "model")
    assert again.can == lm.can
    assert again.card.hash == lm.card.hash
    assert again.score(PAIRS) == lm.score(PAIRS)
    for around in (Wrapped(lm, "Nothing()"), Replay(lm, tmp_path / "answers")):
        assert around.score(PAIRS) == lm.score(PAIRS)
        assert around.fill(["a [MASK]"]) == lm.fill(["a [MASK]"])
        np.testing.assert_array_equal(around.embed(TEXTS), lm.embed(TEXTS))
