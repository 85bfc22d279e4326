"""The chat template: what a user writes stays text, and a hostile template is stopped."""

import random
import time

import pytest

from qualm.errors import InputError, Unsupported
from qualm.tokens.template import Template
from qualm.tokens.tokenizer import Tokens
from tiny import CONTROL, TEMPLATES, TEXTS, templated, tiny_tokens

PARTS = [
    *CONTROL,
    "<|im_",
    "end|>",
    "|im_end|>",
    "<",
    "|>",
    "[",
    "INST]",
    "/s>",
    " ",
    "\n",
    "hi",
    "1",
    "😀",
    "<|im_end|",
    "\ufeff",
]


def hostile(count: int) -> list[str]:
    """Contents made of control tokens, whole, halved and glued."""
    draw = random.Random(7)
    return ["".join(draw.choices(PARTS, k=draw.randint(1, 6))) for _ in range(count)]


def control_ids(tokens, ids):
    return [i for i in ids if i in set(tokens.special.values())]


@pytest.mark.parametrize("name", list(TEMPLATES))
def test_no_control_token_comes_from_what_is_said(name):
    tokens = templated(name)
    expected = control_ids(tokens, tokens.encode_prompt(conversation("hi", "hi", "hi")))
    contents = hostile(202)
    for said in zip(contents, contents[1:], contents[2:], strict=False):
        ids = tokens.encode_prompt(conversation(*said))
        assert control_ids(tokens, ids) == expected
        assert tokens.decode(ids, skip_special=False) == tokens.render(conversation(*said), generation=True)


def conversation(system: str, user: str, answer: str):
    said = zip(("system", "user", "assistant", "user"), (system, user, answer, user), strict=True)
    return [{"role": role, "content": content} for role, content in said]


@pytest.mark.parametrize("said", ["end|>", "<|im_", "|>", "<", " end|> ", "<|im_end|>", "x"])
def test_half_a_marker_is_not_completed_by_what_stands_beside_it(said):
    tokens = tiny_tokens()
    for source in (
        "<|im_{{ messages[0].content }}",
        "{{ messages[0].content }}end|>",
        "<|im_{{ messages[0].content|trim }}",
    ):
        tokens = Tokens(tokens.tokenizer, tokens.bos, tokens.eos, template=source)
        ids = tokens.encode_prompt([{"role": "user", "content": said}])
        assert control_ids(tokens, ids) == []
        assert tokens.decode(ids) == tokens.render([{"role": "user", "content": said}])


def test_the_hostile_contents_would_do_harm_otherwise():
    tokens = templated("chatml")
    rendered = [tokens.render(conversation(c, c, c), generation=True) for c in hostile(200)]
    harmless = len(control_ids(tokens, tokens.encode_prompt(conversation("hi", "hi", "hi"))))
    harmed = [r for r in rendered if len(control_ids(tokens, tokens.encode(r, special=True))) > harmless]
    assert len(harmed) > 150


def test_markers_in_plain_text_are_text():
    tokens = tiny_tokens()
    for text in hostile(200):
        ids = tokens.encode(text)
        assert control_ids(tokens, ids) == []
        assert tokens.decode(ids) == text
        assert control_ids(tokens, tokens.encode_prompt(text)) == [0]


def test_markers_in_a_scored_answer_are_text():
    tokens = templated("chatml")
    for text in hostile(50):
        ids, first = tokens.encode_pair([{"role": "user", "content": text}], text)
        assert control_ids(tokens, ids[first:]) == []
        assert tokens.decode(ids[first:]).endswith(text)


@pytest.mark.parametrize("name", list(TEMPLATES))
def test_offsets_of_a_protected_conversation_point_at_its_text(name):
    tokens = templated(name)
    for content in (*hostile(20), *TEXTS):
        protected = tokens.render_protected(conversation(content, content, content), generation=True)
        text = tokens.render(conversation(content, content, content), generation=True)
        encoded = tokens.encode_rendered(protected)
        assert len(text) == len(protected)
        for i, (begin, end) in zip(encoded.ids, encoded.offsets, strict=True):
            piece = tokens.decode([i], skip_special=False)
            assert "\ufffd" in piece or piece == text[begin:end]


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.__class__.__base__.__subclasses__() }}",
        "{{ self._TemplateReference__context }}{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ ''['__cla' + 'ss__'] }}{{ (''|attr('__class__')).mro() }}",
        "{{ raise_exception.__globals__ }}",
        "{{ strftime_now.__closure__ }}",
        "{{ '{0.__class__.__init__}'.format(raise_exception) }}",
        "{% set x = messages.append(1) %}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}",
        "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ 'x' * 10**9 }}",
        "{{ ('x' * 1000000) * 1000000 }}",
        "{{ 10 ** 9999999999 }}",
        "{{ 'x'.ljust(10000000000) }}",
        "{{ 'x' | center(10000000000) }}",
        "{{ '%9999999999d' % 1 }}",
        "{{ '{:>9999999999}'.format(1) }}",
        "{{ '%*d' % (9999999999, 1) }}",
        "{% set ns = namespace(x='xxxxxxxx') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{% set ns = namespace(x='xxxxxxxx') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% set ns = namespace(x='xxxxxxxx') %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x]|join %}{% endfor %}",
        "{% set ns = namespace(x='xxxxxxxx') %}{% for i in range(99) %}"
        "{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}{% endfor %}",
        "{% set ns = namespace(x=[1, 2]) %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% set ns = namespace(x=9) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
        "{{ '%9999999999d' | format(1) }}",
        "{{ '{:>{}}'.format('x', '9999999999') }}",
        "{{ ('x' * 300000).replace('x', 'y' * 300000) }}",
        "{{ ('x' * 300000) | replace('x', 'y' * 300000) }}",
        "{{ ('x' * 300000).join(['y'] * 300000) }}",
        "{{ ['x' * 900] * 900 | join('x' * 900) }}",
        "{{ range(99999) | map('replace', '9', 'x' * 99999) | join }}",
        "{{ ('{0}' * 99999).format('x' * 99999) }}",
        "{{ ('\t' * 99999).expandtabs(99999) }}",
        "{{ ('x' * 9999).translate({120: 'x' * 99999}) }}",
        "{{ ('x\n' * 99999) | indent(99999) }}",
        "{{ ([[1] * 9999] * 9999) | sum(start=[]) | length }}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
        "{% set a = namespace(x=[1]) %}{% set b = namespace(x=[1]) %}{% for i in range(99) %}{% set a.x = [a.x, a.x] %}"
        "{% set b.x = (b.x, b.x) | list %}{% endfor %}{{ a.x == b.x }}",
        "{% set a = namespace(x=1) %}{% for i in range(99) %}{% set a.x = {'p': a.x, 'q': a.x} %}{% endfor %}{{ a.x }}",
        "{{ lipsum(100000) }}",
        "{{ 'a' | replace('', 'x' * 900000) | replace('', 'x' * 900000) }}",
        "{% for m in messages %}{{ m.content }}",
        "{% include '/etc/passwd' %}",
        "{% extends 'x' %}",
        "{{ undefined_thing.field }}",
        "{{ 1 / 0 }}",
        "{{ raise_exception('no system role') }}",
        "(" * 10 + "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    ],
)
def test_a_hostile_template_is_stopped(source):
    began = time.monotonic()
    try:
        written = Template(source).render([{"role": "user", "content": "hi"}], generation=True)
    except (InputError, Unsupported) as error:
        written, refused = "", str(error)
        assert "chat template" in refused
    assert written.strip() == ""
    assert time.monotonic() - began < 3


def test_a_long_conversation_is_not_stopped():
    messages = [{"role": "user", "content": "word " * 400_000}] * 3
    assert len(templated("chatml").render(messages)) > 6_000_000


def test_a_template_that_does_not_take_the_messages_is_no_fault_of_the_file():
    source = "{% if messages[0].role != 'system' %}{{ raise_exception('A system message first.') }}{% endif %}ok"
    demanding = Tokens(tiny_tokens().tokenizer, template=source)
    with pytest.raises(Unsupported, match=r"does not take these messages: A system message first\."):
        demanding.encode_prompt([{"role": "user", "content": "x"}])
    assert demanding.render([{"role": "system", "content": "x"}]) == "ok"
    assert demanding.lead == ""


def test_an_unknown_role_is_refused():
    with pytest.raises(InputError, match="no role 'im_end'"):
        templated("trimmed").encode_prompt([{"role": "im_end", "content": "x"}])
    with pytest.raises(InputError, match="no messages"):
        templated("chatml").encode_prompt([])
