"""Knowledge bases behind the server: what is dropped is read and cited, nothing leads out of the folder, no key sees
another's. Explanations through the server are those of Python."""

import json
from urllib.parse import quote

import pytest

from qualm.inside.occlusion import explain
from qualm.lm.base import LM, Card, Completion, Sampling, Scored
from qualm.serving.house import House
from qualm.serving.keys import Key, Keys
from qualm.serving.knowledge import BASES, Knowledge
from qualm.serving.run import background
from qualm.serving.settings import Limits
from serving import Client, events

FACTS = b"Omra Telis was born in Vanu. The sea there is green.\n\nBo Karr keeps nine grey hens in a barn."
ASKED = "Where was Omra Telis born?"


class Reader(LM):
    """Answers with the whole of what it was asked, so that a test sees what it was given to read."""

    name, can, card = "reader", frozenset({"generate", "score"}), Card("reader", weights="reader")

    def generate(self, prompts, sampling=Sampling()):
        return [Completion(prompt if isinstance(prompt, str) else prompt[-1]["content"], 3, 1) for prompt in prompts]

    def score(self, pairs):
        return [Scored((-1.0 if "Vanu" in str(context) else -2.0,)) for context, _ in pairs]


@pytest.fixture(scope="module")
def client():
    with background([Reader()]) as running:
        yield Client(running)


def put(client, name, content, base="library", **headers):
    return client.ask("PUT", f"/v1/knowledge/{base}/{quote(name, safe='')}", content, **headers)


def test_what_was_dropped_is_read_before_a_question_and_cited(client):
    status, _, told = put(client, "facts.txt", FACTS)
    assert (status, told["files"]) == (200, [{"name": "facts.txt", "passages": 1}])
    _, _, answer = client.chat(ASKED, knowledge="library")
    (choice,) = answer["choices"]
    assert choice["message"]["content"].startswith("Context: Omra Telis was born in Vanu.")
    (cited,) = choice["qualm"]["passages"]
    assert cited["id"].startswith("facts.txt")
    streamed = events(
        client.post(
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": ASKED}], "knowledge": "library", "stream": True},
        )[2]
    )
    assert [each["choices"][0]["qualm"]["passages"] for each in streamed[:-1] if "qualm" in each["choices"][0]] == [
        [cited]
    ]


def test_a_question_that_no_passage_bears_on_is_left_alone(client):
    put(client, "facts.txt", FACTS)
    (choice,) = client.chat("What is seven times eight?", knowledge="library")[2]["choices"]
    assert choice["message"]["content"] == "What is seven times eight?"
    assert "qualm" not in choice


def test_files_come_and_go_and_the_base_with_its_last_one(client):
    for name in ("a.txt", "b.md"):
        put(client, name, FACTS, base="passing")
    _, _, listed = client.get("/v1/knowledge")
    assert [f["name"] for base in listed["data"] if base["id"] == "passing" for f in base["files"]] == ["a.txt", "b.md"]
    assert client.ask("DELETE", "/v1/knowledge/passing/a.txt")[0] == 200
    assert client.ask("DELETE", "/v1/knowledge/passing/a.txt")[0] == 404
    assert client.ask("DELETE", "/v1/knowledge/passing/b.md")[0] == 200
    assert "passing" not in [base["id"] for base in client.get("/v1/knowledge")[2]["data"]]
    assert client.chat(ASKED, knowledge="passing")[0] == 404


@pytest.mark.parametrize(
    "name",
    [
        "../x.txt",
        "..%2fx.txt",
        "/etc/x.txt",
        "a\\b.txt",
        ".hidden.txt",
        "a\0.txt",
        "x.exe",
        "x",
        "x.txt\n",
        "x" * 200 + ".txt",
    ],
)
def test_no_name_of_a_file_leads_out_of_its_folder(client, tmp_path, name):
    status, _, told = put(client, name, FACTS)
    assert status in (400, 404, 405), told
    assert put(client, "a.txt", FACTS, base=quote(f"../{name}", safe=""))[0] in (400, 404, 405)


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("empty.txt", b"  \n", "holds no text"),
        ("bad.jsonl", b'{"text": ', "not a JSON record"),
        ("bad.pdf", b"%PDF-1.7 nothing", "bad.pdf"),
        ("bad.txt", b"\x00\x01\x02\xff" * 400, "bad.txt"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_its_reason_and_not_kept(client, name, content, why):
    status, _, told = put(client, name, content, base="spoilt")
    assert (status, told["error"]["code"]) == (400, "unreadable_file")
    assert why in told["error"]["message"]
    assert "spoilt" not in [base["id"] for base in client.get("/v1/knowledge")[2]["data"]]


def test_no_key_sees_the_knowledge_of_another():
    keys = Keys([Key.made("ana", "key-of-ana"), Key.made("bo", "key-of-bo")])
    with background([Reader()], keys=keys) as running:
        ana, bo = Client(running, "key-of-ana"), Client(running, "key-of-bo")
        assert put(ana, "facts.txt", FACTS)[0] == 200
        assert [base["id"] for base in ana.get("/v1/knowledge")[2]["data"]] == ["library"]
        assert bo.get("/v1/knowledge")[2]["data"] == []
        assert bo.chat(ASKED, knowledge="library")[0] == 404
        assert bo.ask("DELETE", "/v1/knowledge/library/facts.txt")[0] == 404
        put(bo, "facts.txt", b"Omra Telis was born in Zilm.")
        assert "Zilm" in bo.chat(ASKED, knowledge="library")[2]["choices"][0]["message"]["content"]
        assert "Zilm" not in ana.chat(ASKED, knowledge="library")[2]["choices"][0]["message"]["content"]
        assert Client(running).get("/v1/knowledge")[0] == 401


def test_a_folder_keeps_them_for_the_next_server_and_without_one_they_go(tmp_path):
    Knowledge(tmp_path).put("everyone", "library", "facts.txt", FACTS)
    assert [base.told()["files"] for base in Knowledge(tmp_path).bases("everyone")] == [
        [{"name": "facts.txt", "passages": 1}]
    ]
    passing = Knowledge()
    passing.put("everyone", "library", "facts.txt", FACTS)
    folder = passing.folder
    assert (folder / "everyone" / "library" / "facts.txt").is_file()
    passing.close()
    assert not folder.exists()


def test_one_key_keeps_so_many_bases(tmp_path):
    knowledge = Knowledge(tmp_path)
    for number in range(BASES):
        knowledge.put("everyone", f"base-{number}", "a.txt", FACTS)
    with pytest.raises(Exception, match="are there already"):
        knowledge.put("everyone", "one-more", "a.txt", FACTS)


def test_an_explanation_through_the_server_is_the_one_from_python(client):
    body = {"messages": [{"role": "user", "content": f"Vanu lies where? {ASKED}"}], "answer": "Vanu"}
    status, _, told = client.post("/v1/explain", body)
    here = explain(Reader(), [{"role": "user", "content": f"Vanu lies where? {ASKED}"}], "Vanu")
    assert status == 200
    assert [(w["start"], w["end"], w["heat"]) for w in told["words"]] == [(w.start, w.end, w.heat) for w in here.words]
    assert told["faithfulness"]["hottest"] == here.faithfulness.hottest == 1.0
    assert client.post("/v1/explain", {"messages": [{"role": "user", "content": "Why?"}], "answer": "x"})[0] == 400
    assert json.dumps(told)


def test_a_house_without_a_folder_makes_one_only_when_it_is_needed(tmp_path):
    from qualm.serving.served import Models

    house = House(Models([Reader()]), Limits())
    assert house.knowledge._folder is None
