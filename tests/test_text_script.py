"""Chinese in one script: phrases decide, Japanese and all else stay, what is changed is counted."""

import sys

import pytest

from qualm.corpus import Cleaning, Document, clean
from qualm.errors import MissingExtra
from qualm.text import script
from qualm.text.script import in_script

OLD, NEW = "漢語軟體的頭髮發展了，她說。", "汉语软体的头发发展了，她说。"


@pytest.fixture
def opencc():
    pytest.importorskip("opencc")


@pytest.mark.usefixtures("opencc")
def test_each_way_and_counted():
    assert in_script(OLD, "simplified") == (NEW, 8)
    assert in_script(NEW, "traditional")[0] == OLD
    assert in_script(NEW, "simplified") == (NEW, 0)
    assert in_script(OLD, "") == (OLD, 0)


@pytest.mark.usefixtures("opencc")
def test_japanese_and_english_stay():
    for text in ("日本語の漢字は變えない", "Plain text.", ""):
        assert in_script(text, "simplified") == (text, 0)


@pytest.mark.usefixtures("opencc")
def test_cleaning_has_it_and_leaves_it_out_unless_asked():
    told = []
    documents = [Document("a", OLD), Document("b", "English")]
    made = [d.text for d in clean(documents, Cleaning(script="simplified", boilerplate=0), told.append)]
    assert made == [NEW, "English"]
    assert [(note.id, note.counts) for note in told] == [("a", {"script": 8})]
    assert [d.text for d in clean(documents, Cleaning(boilerplate=0))] == [OLD, "English"]


def test_without_opencc_it_says_what_to_install(monkeypatch):
    script._converter.cache_clear()
    monkeypatch.setitem(sys.modules, "opencc", None)
    with pytest.raises(MissingExtra, match="OpenCC") as caught:
        in_script(OLD, "simplified")
    assert "qualm-lm[zh]" in caught.value.then
    script._converter.cache_clear()
