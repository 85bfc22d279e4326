"""What a model wrote, made fit to be used, says what it said before."""

import json
import time

import pytest

from qualm.text.tidy import json_in, markdown, whole_sentences


@pytest.mark.parametrize(
    ("raw", "tidy"),
    [
        ("#Title\n\n\n\nText  \nmore   \n", "# Title\n\nText  \nmore\n"),
        ("* one\n+ two\n  • three", "- one\n- two\n  - three"),
        ("---\n* * *\n**bold** stays", "---\n* * *\n**bold** stays"),
        (
            "```py\n#no heading\n* no bullet   \n\n\n```\n* bullet",
            "```py\n#no heading\n* no bullet   \n\n\n```\n- bullet",
        ),
        ("~~~\n```\n", "~~~\n```\n~~~\n"),
        ("#1 of 3", "# 1 of 3"),
        ("    * code by indent", "    * code by indent"),
        ("", ""),
        ("\n \n", ""),
    ],
)
def test_markdown_is_written_evenly_and_code_is_left_alone(raw, tidy):
    assert markdown(raw) == tidy
    assert markdown(tidy) == tidy


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('Here: {"a": 1} and {"b": 2}', {"a": 1}),
        ('```json\n[1, "}", {"k": []}]\n```', [1, "}", {"k": []}]),
        ("see [1] of {x} {'it\\'s': \"q\", ok: True, none: None,}", [1]),
        ("{'it\\'s': \"q\", ok: True, none: None,}", {"it's": "q", "ok": True, "none": None}),
        ("{'say': 'a \"word\"', // a remark\n /* another */ \"n\": -1.50e3}", {"say": 'a "word"', "n": -1500.0}),
        ('{"//": "http://x/*y*/"}', {"//": "http://x/*y*/"}),
    ],
)
def test_json_is_pulled_out_and_mended_where_nothing_is_lost(text, value):
    assert json.loads(json_in(text)) == value


@pytest.mark.parametrize(
    "text", ["", "none", '{"a": 1', '{"a": tru}', '{"a": NaN}', '{"a": 01}', '{"a" 1}', "{a, b}", "'{", '{"a": "x\ny"}']
)
def test_json_that_could_only_be_guessed_is_not(text):
    assert json_in(text) is None


def test_numbers_and_strings_keep_their_spelling():
    assert json_in(r'{"n": 1.50, "s": "\u00e9", "big": 12345678901234567890.0}') == (
        r'{"n": 1.50, "s": "\u00e9", "big": 12345678901234567890.0}'
    )


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("One. Two! Thr", "One. Two!"),
        ("Dr. Wu paid $3.50 to J. K. Lee, e.g. for tea. Then he", "Dr. Wu paid $3.50 to J. K. Lee, e.g. for tea."),
        ('He said "Go." And th', 'He said "Go."'),
        ("Is it so?) Perhaps (I thi", "Is it so?)"),
        ("First.\n1. One\n2. Tw", "First."),
        ("今天很好。明天我们去", "今天很好。"),
        ("他说：“好！”然后", "他说：“好！”"),
        ("等等……然后他走了。她", "等等……然后他走了。"),
        ("Use Python 3.11 今天。And", "Use Python 3.11 今天。"),
        ("no end at all", "no end at all"),
        ("It is whole.", "It is whole."),
    ],
)
def test_a_text_is_cut_after_its_last_whole_sentence(text, kept):
    assert whole_sentences(text) == kept


@pytest.mark.parametrize("text", ["[" * 10**5, '{"a":' * 30_000, "'" * 10**5 + "{", "." * 10**5, "a. a" * 30_000])
def test_no_text_takes_long(text):
    began = time.process_time()
    for change in (markdown, json_in, whole_sentences):
        change(text)
    assert time.process_time() - began < 5
