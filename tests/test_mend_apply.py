"""A mended model is a directory that gives the same model back; what is not the same is refused."""

import json
import shutil

import pytest
import torch

from mend_models import Scripted, tiny, user
from qualm.errors import InputError, QualmError, Unsupported, UsageError
from qualm.lm.base import Sampling
from qualm.lm.wrapped import Wrapped
from qualm.mends.abstain import Abstain
from qualm.mends.apply import apply, load, make, mend, save
from qualm.mends.base import Mend
from qualm.mends.calculator import Calculator
from qualm.mends.counterfactual import Counterfactual
from qualm.mends.identity import Identity
from qualm.mends.quantize import Quantize
from qualm.mends.retrieval import Retrieval
from qualm.mends.temper import Temper
from qualm.registry import find, names

TEXTS = ["Omra Telis was born in Vanu.", "Jin Brel was born in Kor.", "He said 12 + 34 = 46.", "A red stone."]
PROMPTS = [user("Where was Omra Telis born?"), user("What is 12 + 34?"), "Omra Telis was", user("他在哪里？")]
GREEDY = Sampling(max_tokens=10)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "base"
    tiny(TEXTS, width=16).save(folder)
    return folder


@pytest.fixture(scope="module")
def docs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs")
    (folder / "library.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return folder


def all_mends(docs) -> list[Mend]:
    return [
        Identity(),
        Retrieval(docs),
        Calculator(),
        Temper(1.7),
        Abstain(0.01),
        Quantize(),
        Counterfactual(docs, steps=1, batch=2, length=16),
    ]


def answers(lm):
    return [(c.text, c.logprobs) for c in lm.generate(PROMPTS, GREEDY)]


def scores(lm):
    return [s.logprobs for s in lm.score([(PROMPTS[0], "Vanu."), ("Omra Telis was", " born")])]


def test_every_mend_is_tried_here(docs):
    assert {type(m) for m in all_mends(docs)} == {find("mends", name) for name in names("mends")}


@pytest.mark.parametrize("number", range(7))
def test_a_saved_directory_gives_the_same_model_back(base, docs, tmp_path, number):
    model = load(base)
    before, chosen = model.card.hash, all_mends(docs)[number]
    mended = mend(model, chosen, output=tmp_path / "mended")
    back = load(tmp_path / "mended")
    assert answers(back) == answers(mended)
    assert scores(back) == scores(mended)
    assert back.card.hash == mended.card.hash != before
    assert back.can == mended.can
    assert load(base).card.hash == before


def test_a_chain_of_mends_comes_back_in_order(base, docs, tmp_path):
    model = load(base)
    for each in (Temper(1.5), Retrieval(docs, k=1), Calculator(shots=1), Abstain(0.02)):
        model = apply(model, each)
    save(model, tmp_path / "m")
    back = load(tmp_path / "m")
    assert back.card.mends == model.card.mends
    assert len(back.card.mends) == 4
    assert answers(back) == answers(model)
    file = json.loads((tmp_path / "m" / "mends.json").read_text())
    assert [e["name"] for e in file["mends"]] == ["retrieval", "calculator", "abstain"]
    assert file["baked"] == ["Temper(temperature=1.5)"]
    assert file["base"] == "."


def test_a_saved_model_can_be_mended_and_saved_again(base, docs, tmp_path):
    mend(base, "calculator", output=tmp_path / "one")
    mend(tmp_path / "one", "retrieval", docs=docs, output=tmp_path / "two")
    assert [m.split("(")[0] for m in load(tmp_path / "two").card.mends] == ["Calculator", "Retrieval"]


def test_a_save_is_whole_without_the_documents(base, tmp_path):
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "a.txt").write_text("Omra Telis was born in Vanu.")
    mended = mend(base, "retrieval", docs=docs, output=tmp_path / "mended")
    shutil.rmtree(docs)
    [answer] = load(tmp_path / "mended").generate([PROMPTS[0]], GREEDY)
    assert answer.notes["passages"] == mended.generate([PROMPTS[0]], GREEDY)[0].notes["passages"]


def test_base_and_mended_may_move_together(base, tmp_path):
    shutil.copytree(base, tmp_path / "a" / "base")
    mend(tmp_path / "a" / "base", "identity", output=tmp_path / "a" / "mended")
    (tmp_path / "a").rename(tmp_path / "b")
    assert load(tmp_path / "b" / "mended").card.mends == ("Identity()",)


def test_weights_stand_in_the_directory_only_if_a_mend_changed_them(base, tmp_path):
    mend(base, "identity", output=tmp_path / "light")
    mend(base, "quantize", output=tmp_path / "heavy")
    assert not (tmp_path / "light" / "model.safetensors").exists()
    assert (tmp_path / "heavy" / "model.safetensors").exists()


def test_another_base_is_refused(base, tmp_path):
    shutil.copytree(base, tmp_path / "base")
    mend(tmp_path / "base", "identity", output=tmp_path / "mended")
    other = load(tmp_path / "base")
    with torch.no_grad():
        next(other.model.parameters()).add_(1.0)
    other.save(tmp_path / "base")
    with pytest.raises(InputError, match="hash"):
        load(tmp_path / "mended")
    shutil.rmtree(tmp_path / "base")
    with pytest.raises(InputError, match="not there"):
        load(tmp_path / "mended")


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "qualm.mends/9"},
        {"mends": None},
        {"base": 3},
        {"mends": [{"name": "calculator"}]},
        {"mends": [{"name": "calculater", "settings": {}}]},
        {"mends": [{"name": "calculator", "settings": {"rounds": "many"}}]},
        {"mends": [{"name": "../x", "settings": {}}]},
        {"mends": [{"name": "retrieval", "settings": {"docs": "/etc"}}]},
        {"mends": [{"name": "retrieval", "settings": {"docs": "../../x.jsonl"}}]},
    ],
)
def test_a_damaged_file_is_refused_by_name(base, tmp_path, change):
    mend(base, "identity", output=tmp_path / "m")
    file = json.loads((tmp_path / "m" / "mends.json").read_text())
    (tmp_path / "m" / "mends.json").write_text(json.dumps(file | change))
    with pytest.raises(InputError) as error:
        load(tmp_path / "m")
    assert str(tmp_path / "m") in error.value.where


def test_what_cannot_be_saved_is_refused(base, tmp_path):
    model = load(base)
    with pytest.raises(UsageError):
        save(Wrapped(model, "Something()"), tmp_path / "x")
    with pytest.raises(UsageError):
        save(Identity()(Scripted(str)), tmp_path / "x")
    with pytest.raises(UsageError, match="own folder"):
        save(Identity()(model), base)
    assert not (base / "mends.json").exists()


def test_a_fake_is_saved_by_its_name(tmp_path):
    mended = mend("fake:oracle", Identity(), output=tmp_path / "m")
    assert load(tmp_path / "m").card.hash == mended.card.hash


def test_what_a_model_cannot_do_is_said(base):
    with pytest.raises(Unsupported, match="weights"):
        mend(mend(base, "identity"), "quantize")
    with pytest.raises(UsageError, match="calculator"):
        make("calculater", {})
    with pytest.raises(UsageError):
        mend(base, Calculator(), rounds=3)


def test_a_mend_that_changes_nothing_is_found_out(base):
    class Nothing(Mend):
        mends = frozenset()

        def __call__(self, lm):
            return lm

    with pytest.raises(QualmError, match="changed nothing"):
        apply(load(base), Nothing())


def test_fitting_goes_before_mending(base):
    from qualm.cases import Case, ask

    cases = [Case(str(i), ask(f"q{i}"), "x") for i in range(4)]
    assert "threshold=None" not in mend(base, "abstain", cases=cases).card.mends[0]
