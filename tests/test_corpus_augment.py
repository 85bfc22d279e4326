"""Weights are kept in the mean, variants are drawn by content alone, and nothing hangs on the order of documents."""

import random
from types import SimpleNamespace

import pytest

from qualm.corpus import Document, read
from qualm.corpus.augmenting import augment, back_translate
from qualm.corpus.balancing import balance
from qualm.corpus.settings import Augmenting, Balancing
from qualm.errors import InputError, UsageError
from qualm.text import noising
from qualm.text.swap_names import swap_names

ENGLISH = "The bridge was closed because the river had risen, and number {} was told of it by her brother John."
CHINESE = "昨天下午，第{}位老人把他的旧地图卖给了图书馆的管理员，大家都很高兴。"


def pages(count=600):
    made = [Document(f"e{i}", ENGLISH.format(i), source=f"news/{i}.txt:1") for i in range(count)]
    return made + [Document(f"z{i}", CHINESE.format(i), source=f"wiki/{i}.txt:1") for i in range(count)]


def test_weights_are_kept_in_the_mean_and_hang_on_no_order():
    given = pages()
    settings = Balancing(weights=("en=0.25,zh=2.5",))
    kept = [d.id for d in balance(given, settings)]
    english = [name for name in kept if name.startswith("e")]
    assert 110 < len(english) < 190  # 150 expected, standard deviation 10.6
    assert 1430 < len(kept) - len(english) < 1570  # 1500, 12.2
    shuffled = random.Random(1).sample(given, len(given))
    assert sorted(d.id for d in balance(shuffled, settings)) == sorted(kept)
    assert {d.id for d in balance(given[:50], settings)} == {
        name for name in kept if name in {d.id for d in given[:50]}
    }
    other = [d.id for d in balance(given, Balancing(weights=("en=0.25",), pick=1))]
    assert set(other) & set(english) != set(english)


def test_sources_have_weights_and_what_goes_is_told():
    notes = []
    made = list(balance(pages(20), Balancing(sources=("news/=0", "wiki/=2")), notes.append))
    assert [d.id for d in made[:3]] == ["z0", "z0~2", "z1"]
    assert {note.reason for note in notes if note.dropped} == {"weight"}
    for wrong in ("en", "en=-1", "en=x", "=2"):
        with pytest.raises(UsageError):
            Balancing(weights=(wrong,))


def test_variants_are_drawn_by_content_alone(tmp_path):
    (tmp_path / "words.tsv").write_text("bridge\tcrossing\nclosed\tshut\n老人\t长者\n", encoding="utf-8")
    settings = Augmenting(True, typos=0.2, dropout=0.2, synonyms=tmp_path / "words.tsv", exchanged=0.9)
    given = pages(5)
    made = list(augment(given, settings))
    by_id = {d.id: d for d in made}
    assert {d.id for d in augment(given[::-1], settings)} == set(by_id)
    assert all(by_id[d.id].text == d.text for d in augment(given[::-1], settings))
    assert by_id["e0~counterfactual"].text.endswith("by his sister Patricia.")
    assert by_id["e0~counterfactual"].meta == {"augmented": "counterfactual"}
    assert "crossing" in "".join(d.text for d in made)
    assert "长者" in "".join(d.text for d in made)
    for way in ("typos", "dropout"):
        assert by_id[f"e0~{way}"].text != by_id["e0"].text
    assert list(augment(given)) == given
    with pytest.raises(InputError, match="no two words"):
        (tmp_path / "none.tsv").write_text("alone\n")
        list(augment(given, Augmenting(synonyms=tmp_path / "none.tsv")))


def test_noise_has_the_rate_that_was_asked_for():
    text, rng = "several ordinary words stand here together " * 500, random.Random(3)
    wrong = sum(a != b for a, b in zip(text.split(), noising.with_typos(text, 0.1, rng).split(), strict=True))
    assert 220 < wrong < 380  # 300 expected; some keys are missed without a trace
    left = len(noising.without_words(text, 0.3, rng).split())
    assert 1980 < left < 2220  # 2100
    assert noising.without_words("one", 0.99, rng) == "one"


def test_names_are_swapped_both_ways_and_words_are_not():
    assert swap_names(swap_names("Mary met John.")) == "Mary met John."
    assert swap_names("Grace will mark the rose.") is None
    assert swap_names("王伟说他不去。") == "王芳说他不去。"


def test_back_translation_goes_through_any_model_that_generates():
    lower = SimpleNamespace(generate=lambda texts: [SimpleNamespace(text=text.lower()) for text in texts])
    marked = SimpleNamespace(generate=lambda texts: [SimpleNamespace(text=f"{text}!") for text in texts])
    given = [Document("1", "One.\n\nTwo."), Document("2", messages=({"role": "user", "content": "Hi"},))]
    made = list(back_translate(given, lower, marked))
    assert [d.id for d in made] == ["1", "1~translated", "2"]
    assert made[1].text == "one.!\n\ntwo.!"


def test_both_are_steps_of_a_chain(tmp_path, qualm):
    (tmp_path / "a.jsonl").write_text(f'{{"text": "{ENGLISH.format(1)}"}}\n{{"text": "{CHINESE.format(1)}"}}\n')
    out = tmp_path / "out"
    done = qualm(
        "corpus", "balance,augment", tmp_path / "a.jsonl", "-o", out, "--weights", "zh=2,en=1", "--counterfactual"
    )
    assert done.code == 0, done.err
    ways = [d.id.partition("~")[2] for d in read(out / "documents.jsonl")]
    assert ways == ["", "counterfactual", "", "counterfactual", "2", "2~counterfactual"]
