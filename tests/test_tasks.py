"""The tasks: each gives one result a text, by Python and by `qualm do`; a model that cannot says what it can."""

import io
import json

import numpy as np
import pytest

import qualm as house
from encoder_models import tiny_encoder
from qualm import registry
from qualm.config import to_dict
from qualm.errors import Unsupported, UsageError
from qualm.lm.base import LM, Card, Completion
from qualm.tasks.apply import do, make
from qualm.tasks.base import Task
from tiny import tiny_local

TEXTS = ["The quick brown fox", "Question: What is it?", "the lazy dog"]
GIVEN = {"similar": {"query": "a dog"}, "answer": {"passage": "Ana lives in Bonn. Bo has a fox."}}
HEADS = {"classify": "sequence", "tag": "token", "answer": "question", "fill": "masked", "embed": "none"}
MASKED = {"fill": ["The [MASK] fox", "a [MASK] and a [MASK]", "[MASK]"]}
TASKS = registry.names("tasks")


class Parrot(LM):
    """Says the prompt again, louder."""

    def __init__(self):
        self.name, self.card, self.can, self.asked = "parrot", Card("fake"), frozenset({"generate"}), []

    def generate(self, prompts, sampling=None):
        self.asked += prompts
        said = [p if isinstance(p, str) else p[-1]["content"] for p in prompts]
        return [Completion(f" {text.upper()}") for text in said]


def subject(task: str) -> LM:
    needs = registry.find("tasks", task).needs
    return next(lm for lm in (*map(tiny_encoder, HEADS.values()), Parrot()) if needs <= lm.can)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_gives_one_result_a_text(name):
    kind, texts = registry.find("tasks", name), MASKED.get(name, TEXTS)
    assert issubclass(kind, Task)
    assert (kind.__doc__ or "").strip()
    task = make(name, **GIVEN.get(name, {}))
    assert make(name, **json.loads(json.dumps(to_dict(task)))) == task
    results = do(task, subject(name), texts)
    assert len(results) == len(texts)
    assert json.loads(json.dumps(results)) == results
    assert all(isinstance(task.shown(each), str) for each in results)
    assert results == house.do(name, subject(name), texts, **GIVEN.get(name, {}))
    assert task(subject(name), []) == []


@pytest.mark.parametrize("name", TASKS)
def test_a_model_that_cannot_says_so(name):
    lm = Parrot() if name == "spell" else tiny_encoder() if name in ("tidy", "translate") else tiny_local()
    with pytest.raises(Unsupported, match=r"it can .*type: qualm"):
        do(name, lm, MASKED.get(name, TEXTS), **GIVEN.get(name, {}))


def test_labels_are_told_likeliest_first():
    task, lm = make("classify"), tiny_encoder("sequence", "bad good none")
    result = task(lm, TEXTS)[0]
    assert result["label"] == max(result["labels"], key=result["labels"].get)
    assert result["p"] == max(result["labels"].values())
    assert task.shown(result).startswith(f"{result['label']} 0.")


def test_the_nearest_text_comes_first():
    lm = tiny_encoder("none")
    found = do("similar", lm, TEXTS, query=TEXTS[2])
    assert (found[0]["text"], found[0]["cosine"]) == (TEXTS[2], pytest.approx(1))
    vectors = np.array([each["vector"] for each in do("embed", lm, TEXTS)])
    assert {each["text"]: each["cosine"] for each in found} == {
        text: pytest.approx(float(row @ vectors[2]), abs=1e-5) for text, row in zip(TEXTS, vectors, strict=True)
    }


def test_no_answer_is_said_to_be_none():
    task, lm = make("answer", **GIVEN["answer"]), tiny_encoder("question")
    result = task(lm, ["What?"])[0]
    assert result["answer"] == (result["text"] if result["p"] > result["none"] else "")
    assert task.shown({**result, "answer": ""}).startswith("(no answer here")


def test_a_source_is_put_after_its_prefix():
    parrot = Parrot()
    found = do("translate", parrot, ["a car"], prefix="to German: ")
    assert (found[0]["translation"], parrot.asked) == ("TO GERMAN: A CAR", ["to German: a car"])
    do("translate", parrot, ["a car"], chat=True)
    assert parrot.asked[-1][0]["role"] == "user"


def test_wrong_words_are_named():
    with pytest.raises(UsageError, match="did you mean 'classify'"):
        make("clasify")
    with pytest.raises(UsageError, match="did you mean 'top'"):
        make("fill", tops=3)
    with pytest.raises(UsageError, match="at least 1"):
        make("fill", top=0)


def test_the_command_line_does_it(qualm, tmp_path, monkeypatch):
    tiny_encoder().save(tmp_path / "bert")
    done = qualm("do", "fill", "bert", "The [MASK] fox", "a [MASK]", "--top", 2, "--json")
    told = json.loads(done.out)
    assert (done.code, told["schema"], told["settings"]) == (0, "qualm.do/1", {"top": 2})
    assert told["results"] == do("fill", tiny_encoder(), ["The [MASK] fox", "a [MASK]"], top=2)
    monkeypatch.setattr("sys.stdin", io.StringIO("The [MASK] fox\n\na [MASK]\n"))
    piped = qualm("do", "fill", "bert", "-", "--top", 2)
    assert len(piped.out.splitlines()) == 2
    refused = qualm("do", "classify", "bert", "a fox")
    assert refused.code == 1
    assert "cannot classify texts; it can fill and embed and score; type: qualm do fill MODEL TEXT" in refused.err
    assert "qualm do" in qualm("generate", "bert", "a fox").err
    assert qualm("do", "clasify", "bert", "x").code == 2
    assert json.loads(qualm("list", "tasks", "--json").out)["tasks"][0]["needs"] == ["answer"]
