"""Presidio beside our own patterns: it adds what these leave, and what both find is ours."""

import sys

import pytest

from qualm.corpus import Document, Scrubbing, scrub
from qualm.errors import InputError, MissingExtra
from qualm.text import personal, presidio


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model of spaCy's that knows no names: what Presidio finds with it, it finds by its own patterns."""
    pytest.importorskip("presidio_analyzer")
    spacy = pytest.importorskip("spacy")
    folder = tmp_path_factory.mktemp("model") / "blank"
    made = spacy.blank("en")
    made.add_pipe("entity_ruler").add_patterns([{"label": "PERSON", "pattern": "Zorblax Quent"}])
    made.to_disk(folder)
    return str(folder)


def test_it_finds_what_patterns_alone_leave(model):
    text = "Zorblax Quent wrote from ann.lee@example.org; card 4111 1111 1111 1111."
    found = [(f.kind, text[f.start : f.end]) for f in personal.find(text, personal.KINDS, model)]
    assert found == [
        ("NAME", "Zorblax Quent"),
        ("EMAIL", "ann.lee@example.org"),
        ("CARD", "4111 1111 1111 1111"),
    ]
    assert ("NAME", "Zorblax Quent") not in [(f.kind, f.value) for f in personal.find(text, personal.KINDS)]


def test_scrubbing_asks_it_where_it_is_told_to(model):
    documents = [Document("a", "Zorblax Quent met Zorblax Quent.")]
    assert [d.text for d in scrub(documents, Scrubbing(names=True, presidio=model))] == ["<NAME_1> met <NAME_1>."]
    assert [d.text for d in scrub(documents, Scrubbing(presidio=model))] == [documents[0].text]


def test_a_model_that_is_not_there_is_named(model):
    with pytest.raises(InputError, match="no such model") as caught:
        personal.find("text", personal.KINDS, "no_such_model")
    assert caught.value.where == "no_such_model"


def test_without_presidio_it_says_what_to_install(monkeypatch):
    presidio._analyser.cache_clear()
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(MissingExtra, match="Presidio") as caught:
        personal.find("text", personal.KINDS, "en_core_web_sm")
    assert "qualm-lm[presidio]" in caught.value.then
