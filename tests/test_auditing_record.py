"""What is written can be read back the same, and every figure recomputes from the rows alone."""

import json
from dataclasses import replace

import pytest

from auditing_models import PROBES, Echo, Guesser, Hopeless, Length, Nowhere, Tutor
from qualm import registry
from qualm.auditing import record
from qualm.auditing.prove import compare, prove
from qualm.auditing.readings import measurement
from qualm.auditing.run import audit
from qualm.auditing.types import Audit, Proof
from qualm.cases import Case
from qualm.errors import InputError, QualmError
from qualm.lm.fake import named
from qualm.world.base import World

BOTH = frozenset({"generate", "score"})


@pytest.fixture
def registered(monkeypatch):
    """The probes of these tests are found by name, like installed ones."""
    found = registry.find
    monkeypatch.setattr(registry, "find", lambda kind, name: PROBES.get(name) or found(kind, name))


@pytest.fixture
def made(registered):
    probes = [Echo(120, clusters=30), Length(60), Hopeless(40, least=0.99), Nowhere()]
    return audit(Guesser(0.6, BOTH, {"seed": 3}), [replace(probes[0], world=World(seed=2)), *probes[1:]])


def test_an_audit_comes_back_the_same(made, tmp_path):
    record.save(made, tmp_path)
    again = record.read(tmp_path)
    assert isinstance(again, Audit)
    assert again == made
    assert again["echo"].probe == Echo(120, clusters=30, world=World(seed=2))
    assert again.card.hash == made.card.hash


def test_a_proof_comes_back_the_same_and_is_two_audits(registered, tmp_path):
    proof = prove(Guesser(0.5, BOTH), Tutor(0.9), [Echo(100), Length(40), Nowhere()])
    record.save(proof, tmp_path)
    again = record.read(tmp_path)
    assert isinstance(again, Proof)
    assert again == proof
    assert record.read_audit(tmp_path / "after") == proof.after
    assert compare(tmp_path / "before", tmp_path / "after").changes == proof.changes


def test_every_reading_recomputes_from_the_rows_alone(made, tmp_path):
    record.save(made, tmp_path)
    said = json.loads((tmp_path / "record.json").read_text())["measurements"]
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().split("\n")[:-1]]
    for each in said:
        mine = [line for line in lines if line["probe"] == each["name"]]
        cases = [Case(line["id"], line["prompt"], group=line["group"], part=line["part"]) for line in mine]
        probe = PROBES[each["name"]]()
        if not cases:
            assert each["reading"] is None
            continue
        if each["name"] == "hopeless":
            probe = replace(probe, least=0.99)
        again = record.document(Audit("", made.card, (measurement(probe, cases, [line["row"] for line in mine]),)))
        for key in ("reading", "parts", "figures", "chance", "why", "cases", "unread"):
            assert again["measurements"][0][key] == each[key]


def test_the_record_says_what_the_formats_page_says(made, tmp_path):
    record.save(made, tmp_path)
    found = json.loads((tmp_path / "record.json").read_text())
    assert found["schema"] == "qualm.audit/1"
    assert found["card"]["hash"] == made.card.hash
    echo = found["measurements"][0]
    assert set(echo) >= {"name", "limit", "better", "unit", "margin", "live", "settings", "reading", "why", "chance"}
    assert set(echo["reading"]) == {"value", "low", "high", "n", "groups", "method"}
    line = json.loads((tmp_path / "rows.jsonl").read_text().split("\n")[0])
    assert set(line) == {"probe", "id", "group", "part", "split", "prompt", "target", "choices", "row"}
    assert line["split"] == "test"


def test_a_real_audit_survives_the_disk(tmp_path):
    """All probes, their worlds, their messages and their texts in two languages."""
    made = audit(named("oracle"), quick=True)
    record.save(made, tmp_path)
    again = record.read(tmp_path)
    for one, other in zip(made.measurements, again.measurements, strict=True):
        assert (one.probe, one.reading, one.parts, one.rows) == (other.probe, other.reading, other.parts, other.rows)
    proof = compare(made, again)
    assert all(change.verdict == "cannot tell" for change in proof.changes)


def test_a_line_separator_within_a_text_ends_no_row(registered, tmp_path):
    cases = [Case(f"{i}", "one\u2028two\x85three\rfour", "\u2029") for i in range(4)]
    made = Audit("x", Guesser().card, (measurement(Echo(), cases, [{"value": 1.0, "answer": "\u2028"}] * 4),))
    record.save(made, tmp_path)
    assert record.read(tmp_path) == made


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "record.json").unlink(), "record.json: no such file"),
        (lambda folder: (folder / "rows.jsonl").unlink(), "rows.jsonl: no such file"),
        (lambda folder: (folder / "record.json").write_text("{}"), "its schema is None"),
        (lambda folder: (folder / "record.json").write_text("[1]"), "its schema is None"),
        (lambda folder: (folder / "record.json").write_text('{"schema": "qualm.audit/9"}'), "'qualm.audit/9'"),
        (lambda folder: (folder / "record.json").write_text('{"schema": "qualm.audit/1"}'), "is damaged"),
        (lambda folder: _cut(folder / "rows.jsonl", 50), r"rows\.jsonl:\d+: a damaged line"),
        (lambda folder: _cut(folder / "rows.jsonl", 0, lines=3), "has 22 rows of hopeless, not 25"),
        (lambda folder: _swap(folder / "record.json", '"echo"', '"ekho"'), "no probe is named 'ekho'"),
        (lambda folder: _swap(folder / "record.json", '"clusters"', '"klusters"'), "did you mean 'clusters'"),
        (lambda folder: (folder / "rows.jsonl").write_bytes(b"\xff\xfe"), "no UTF-8 text"),
    ],
)
def test_a_damaged_record_is_named(made, tmp_path, spoil, said):
    record.save(made, tmp_path)
    spoil(tmp_path)
    with pytest.raises(InputError, match=said) as caught:
        record.read_audit(tmp_path)
    assert str(tmp_path) in caught.value.where


def _cut(path, tail, lines=0):
    text = path.read_text()
    path.write_text("\n".join(text.split("\n")[: -lines - 1]) + "\n" if lines else text[:-tail])


def _swap(path, old, new):
    path.write_text(path.read_text().replace(old, new))


def test_a_later_version_may_have_added_fields(made, tmp_path):
    record.save(made, tmp_path)
    path = tmp_path / "record.json"
    found = json.loads(path.read_text())
    found["new"] = found["card"]["new"] = found["measurements"][0]["new"] = 1
    found["measurements"][0]["reading"]["new"] = 1
    path.write_text(json.dumps(found))
    assert record.read(tmp_path) == made


def test_where_an_audit_is_wanted_a_proof_is_refused(registered, tmp_path):
    record.save(prove(Guesser(0.5), Tutor(0.9), [Echo(60)]), tmp_path)
    with pytest.raises(InputError, match=r"holds a proof.*name .*before or .*after"):
        record.read_audit(tmp_path)
    with pytest.raises(InputError, match="no audit's folder"):
        record.read_audit(tmp_path / "nowhere")


def test_a_record_is_never_without_its_rows(made, tmp_path, monkeypatch):
    def fail(*_):
        raise QualmError("the disk is full")

    monkeypatch.setattr(record, "writing", fail)
    with pytest.raises(QualmError, match="disk is full"):
        record.save(made, tmp_path)
    assert not (tmp_path / "record.json").exists()
