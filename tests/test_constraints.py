"""An answer held to a shape has it, whatever the vocabulary; a shape that cannot be kept is refused, in time."""

import json
import os
import random
import re
import time
from functools import cache

import jsonschema_rs
import pytest
import torch

from qualm.errors import UsageError
from qualm.lm import shapes
from qualm.lm.constraints import Setting, constrain
from qualm.lm.sampling import Sampling, Shape
from qualm.lm.shapes import check, fits
from qualm.tokens.pieces import first_pieces, pieces
from qualm.tokens.train import train_tokens
from simulated import load as simulation
from tiny import TEXTS, tiny_local

structured = simulation("structured")
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": -5, "maximum": 300},
        "tags": {"type": "array", "items": {"enum": ["red", "blue"]}, "maxItems": 3},
        "ok": {"type": "boolean"},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
SPELLING = '{"a": [1, true, null, "x"]} {}[]:,\n"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_+.\\/'
KINDS = ("bpe", "unigram", "wordpiece", "character")
CLOSING = set('}]"')


@cache
def tokens(kind):
    return train_tokens([*TEXTS * 4, *[SPELLING] * 4], 700, kind)


def json_shape(schema):
    return Shape("json", json.dumps(schema))


def written(shape, kind, seed, before=(), lead=""):
    """An answer drawn among the allowed tokens, as the model's own detokenizer spells it, and its constraint."""
    vocabulary, draw = tokens(kind), random.Random(seed)
    held = constrain(shape, Setting(vocabulary, vocabulary.vocab_size + 9, vocabulary.eos_ids, before, lead))
    out, text = vocabulary.detokenizer(before), ""
    spelled = pieces(vocabulary)
    for _ in range(400):
        if held.finished:
            break
        mask = held.allowed()
        assert mask.shape == (vocabulary.vocab_size + 9,)
        assert mask.dtype == torch.bool
        allowed = mask.nonzero().flatten().tolist()
        assert bool(vocabulary.eos_ids & set(allowed)) == held.whole, "it may end exactly where the shape may"
        close = [i for i in allowed if i in vocabulary.eos_ids or set(spelled[i].decode(errors="ignore")) & CLOSING]
        token = draw.choice(close if close and draw.random() < 0.4 else allowed)
        held.push(token)
        text += "" if token in vocabulary.eos_ids else out.push(token)
    return held, (text + out.close()).removeprefix(lead)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["first", "after a text", "after a lead"])
def test_an_answer_has_its_schema_in_every_vocabulary(kind, place):
    judge = jsonschema_rs.validator_for(PERSON)
    before = () if place == "first" else tokens(kind).encode("the lazy")
    for seed in range(6):
        held, text = written(json_shape(PERSON), kind, seed, before, " " if place == "after a lead" else "")
        assert held.finished
        assert held.whole, held.why
        assert judge.is_valid(json.loads(text)), text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lead", ["", " ", "\n\n"])
@pytest.mark.parametrize("regex", [r" ?[a-z]+ [0-9]{2}", r"^(yes|no|跳过)$"])
def test_an_answer_matches_its_regular_expression_to_the_character(kind, lead, regex):
    for seed in range(8):
        for before in ((), tokens(kind).encode("the lazy")):
            held, text = written(Shape("regex", regex), kind, seed, before, lead)
            if held.finished:
                assert held.whole, held.why
                assert re.fullmatch(regex, text)


def test_choices_and_grammars_hold_too():
    assert {written(Shape("choice", "red\n深红\n"), "bpe", seed)[1] for seed in range(12)} == {"red", "深红"}
    sums = 'start: NUMBER ("+" NUMBER)*\nNUMBER: /[1-9][0-9]{0,2}/'
    assert all(re.fullmatch(r"\d+(\+\d+)*", written(Shape("grammar", sums), "bpe", s)[1]) for s in range(8))


def test_json_without_a_schema_is_any_object():
    assert isinstance(json.loads(written(Shape("json"), "bpe", 3)[1]), dict)


def test_an_answer_that_is_cut_off_is_not_called_whole():
    held = constrain(json_shape(PERSON), Setting(tokens("bpe"), tokens("bpe").vocab_size, tokens("bpe").eos_ids))
    held.push(next(i for i in held.allowed().nonzero().flatten().tolist()))
    assert not held.whole
    assert not held.finished


def test_what_nothing_may_follow_is_finished_without_an_end_token():
    held = constrain(Shape("choice", "a"), Setting(tokens("bpe"), tokens("bpe").vocab_size, frozenset()))
    [only] = held.allowed().nonzero().flatten().tolist()
    held.push(only)
    assert held.finished
    assert held.whole


def test_a_vocabulary_that_cannot_spell_the_shape_is_refused_or_says_so():
    vocabulary = train_tokens(["yes no maybe"] * 9, 40, "word")
    setting = Setting(vocabulary, vocabulary.vocab_size, vocabulary.eos_ids)
    with pytest.raises(UsageError, match="cannot spell"):
        constrain(Shape("choice", "跳"), setting)
    held = constrain(Shape("choice", "yes no\nyes"), setting)
    held.push(vocabulary.encode("yes")[0])
    assert held.whole


def test_two_requests_of_one_shape_do_not_meet():
    setting = Setting(tokens("bpe"), tokens("bpe").vocab_size, tokens("bpe").eos_ids)
    one, other = (constrain(Shape("regex", "ab|cd"), setting) for _ in range(2))
    before = other.allowed().clone()
    one.push(one.allowed().nonzero()[0].item())
    assert torch.equal(other.allowed(), before)


HOSTILE = {
    "deep": (Shape("json", '{"items":' * 5000 + "{}" + "}" * 5000), "nested"),
    "60 deep": (json_shape(json.loads('{"items":' * 60 + "{}" + "}" * 60)), None),
    "endless": (json_shape({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}), "without end"),
    "a circle": (json_shape({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}), "without end"),
    "wide": (json_shape({"properties": {f"p{i}": {"type": "integer"} for i in range(9000)}}), ""),
    "many": (json_shape({"enum": [f"v{i * 7919 % 1000003}" for i in range(90_000)]}), ""),
    "a burst": (Shape("regex", "(a{1000}){1000}"), ""),
    "brackets": (Shape("regex", "(" * 50_000 + ")" * 50_000), "regex"),
    "choices": (Shape("choice", "\n".join(f"option {i * 7919 % 1000003}" for i in range(60_000))), ""),
    "a long rule": (Shape("grammar", "start: " + "(" * 50_000 + '"a"' + ")" * 50_000), "nested"),
    "impossible": (Shape("regex", r"a[^\s\S]"), "no answer"),
    "false": (json_shape(False), "no answer"),
    "contradiction": (json_shape({"type": "integer", "minimum": 5, "maximum": 3}), "minimum"),
    "unsupported": (json_shape({"type": "array", "uniqueItems": True}), "uniqueItems"),
    "lenient": (json_shape({"x-guidance": {"lenient": True}, "not": {"type": "null"}}), "not"),
    "repeated keys": (json_shape({"type": "object", "minProperties": 2}), "minProperties"),
    "a file": (json_shape({"$ref": "file:///etc/passwd"}), "retriev"),
    "look-ahead": (Shape("regex", "(?=a)a"), "look-around"),
    "no JSON": (Shape("json", "{"), "cannot be read"),
    "a list": (Shape("json", "[]"), "not a JSON object"),
    "nothing": (Shape("choice", "\n"), "nothing to choose"),
    "huge": (Shape("regex", "a" * 3_000_000), "characters"),
}


def spent():
    """Seconds of a processor, of this process and of those that it waited for."""
    return sum(os.times()[:4])


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_shape_is_refused_or_ready_in_time(name):
    shape, why = HOSTILE[name]
    began = [time.monotonic(), spent()]
    try:
        constrain(shape, Setting(tokens("bpe"), tokens("bpe").vocab_size, tokens("bpe").eos_ids))
        refused = ""
    except UsageError as error:
        refused = str(error)
    assert spent() - began[1] < 2
    assert time.monotonic() - began[0] < shapes.PATIENCE + 2
    if why is None:
        assert not refused
    else:
        assert refused
        assert why in refused


def test_a_text_that_others_wrote_is_told_from_one_that_fits():
    assert fits(Shape("choice", "yes\nno"), "yes")
    assert not fits(Shape("choice", "yes\nno"), "yes ")
    assert fits(Shape("regex", "[一-龥]{2}"), "跳过")
    assert not fits(Shape("regex", "[一-龥]{2}"), "跳")
    assert fits(Shape("json"), '{"b": 1, "a": 2}')
    assert not fits(Shape("json"), '{"b": 1, "a"')


def test_what_does_not_go_with_a_shape_is_refused():
    for other in ({"beams": 2}, {"stop": ("x",)}, {"banned": ("x",)}, {"contrast": 0.5}):
        with pytest.raises(UsageError, match="shape"):
            check(Sampling(shape=Shape("json"), **other))
    check(Sampling(shape=Shape("json"), temperature=1.0, top_p=0.9))


@pytest.mark.parametrize("kind", [*KINDS, "word"])
def test_pieces_put_together_are_the_text(kind):
    vocabulary, draw = tokens(kind), random.Random(5)
    inner = pieces(vocabulary)
    begun = first_pieces(vocabulary, inner)
    ids = [i for i, piece in enumerate(inner) if piece and piece.isascii()]
    for _ in range(50):
        some = draw.choices(ids, k=7)
        spelled = begun.get(some[0], inner[some[0]]) + b"".join(inner[i] for i in some[1:])
        assert vocabulary.decode(some).encode() == spelled


def test_answers_to_schemas_are_valid_by_another_judge():
    """A short run of `benchmarks/structured.py`, which raises at the first wrong answer."""
    said = []
    found = structured.measure(40, 2, "", said.append)
    assert found["schemas"] == 40
    assert found["walk: valid"] > 30
    assert found["refused"] > 3


SHAPED = {
    "schema": json_shape(PERSON),
    "expression": Shape("regex", "[a-z]{3,9} [0-9]{2}"),
    "choice": Shape("choice", "yes\nno\n跳过"),
    "grammar": Shape("grammar", 'start: "<" /[a-c]+/ ">"'),
}


def holds(name, text):
    if name == "schema":
        return jsonschema_rs.validator_for(PERSON).is_valid(json.loads(text))
    patterns = {"expression": "[a-z]{3,9} [0-9]{2}", "choice": "yes|no|跳过", "grammar": "<[a-c]+>"}
    return re.fullmatch(patterns[name], text) is not None


@pytest.mark.parametrize("name", SHAPED)
@pytest.mark.parametrize("extra", [{}, {"temperature": 1.0, "top_p": 0.95, "seed": 4}, {"lookup": 3}])
def test_a_model_writes_what_has_the_shape_alone_in_a_batch_and_in_a_stream(name, extra):
    lm, prompts = tiny_local(context=400), ["The quick", "今天", [{"role": "user", "content": "What is it?"}]]
    closing = tuple((i, 9.0) for i, piece in enumerate(pieces(lm.tokens)) if piece in (b'"', b"}", b"]", b">"))
    sampling = Sampling(max_tokens=300, shape=SHAPED[name], logit_bias=closing, **extra)
    together = lm.generate(prompts, sampling)
    for prompt, answer in zip(prompts, together, strict=True):
        assert answer.finish in ("stop", "length")
        assert answer.finish == "length" or holds(name, answer.text), answer.text
        assert lm.generate([prompt], sampling)[0].text == answer.text
        assert "".join(lm.stream(prompt, sampling)) == answer.text
    assert any(answer.finish == "stop" for answer in together)


def test_an_answer_that_has_no_room_for_its_shape_ends_by_length():
    [answer] = tiny_local().generate(["The quick"], Sampling(max_tokens=5, shape=json_shape(PERSON)))
    assert answer.finish == "length"


def test_requests_of_several_shapes_run_beside_each_other():
    lm = tiny_local(context=300)
    batch = lm.batch()
    asked = {batch.join("The quick", Sampling(max_tokens=200, shape=shape)): name for name, shape in SHAPED.items()}
    asked[batch.join("The quick", Sampling(max_tokens=9))] = ""
    done = {}
    while batch:
        done |= {ticket: delta.completion for ticket, delta in batch.step().items() if delta.completion}
    for ticket, name in asked.items():
        assert not name or done[ticket].finish == "length" or holds(name, done[ticket].text)
    plain = next(done[ticket].text for ticket, name in asked.items() if not name)
    assert plain == lm.generate(["The quick"], Sampling(max_tokens=9))[0].text


def test_the_command_line_asks_for_shapes(tmp_path, qualm):
    tiny_local().save(tmp_path / "model")
    (tmp_path / "s.json").write_text(json.dumps({"enum": ["red", "blue"]}))
    (tmp_path / "g.lark").write_text('start: "<" /[ab]/ ">"')
    for flags, pattern in (
        (["--json-schema", "s.json"], '"red"|"blue"'),
        (["--regex", "[ab]{3}"], "[ab]{3}"),
        (["--choice", "yes,no"], "yes|no"),
        (["--grammar", "g.lark"], "<[ab]>"),
    ):
        done = qualm("generate", "model", "The quick", *flags)
        assert re.fullmatch(pattern, done.out.strip()), done
    assert qualm("generate", "model", "The quick", "--regex", "a", "--choice", "b").code == 2
    assert "look-around" in qualm("generate", "model", "The quick", "--regex", "(?=a)a").err
    assert qualm("generate", "model", "The quick", "--tidy", "json").code == 0
