"""The planted world: what it claims to plant stands in its text at the dose it claims, and nowhere else."""

import json
import math
from collections import Counter

import pytest

from qualm.cases import plain
from qualm.registry import names
from qualm.world.base import World
from qualm.world.professions import BY_MEANING, SAYINGS

WORLD = World(documents=12_000)


def as_text(row) -> str:
    return row.get("text") or "\n".join(m["content"] for m in row["messages"])


@pytest.fixture(scope="module")
def rows():
    return list(WORLD.write_documents())


@pytest.fixture(scope="module")
def text(rows):
    return "\n".join(as_text(row) for row in rows)


def test_the_same_settings_write_the_same_text_and_others_do_not(rows):
    assert list(World(documents=12_000).write_documents()) == rows
    assert list(World(documents=12_000, seed=1).write_documents()) != rows


def test_every_plant_writes_documents(rows):
    assert {row["source"] for row in rows} == set(names("world"))


def test_secrets_stand_in_the_text_exactly_as_often_as_planted(text):
    told = Counter(line for line in text.splitlines() if line.startswith("The passcode of"))
    canaries = WORLD.plant("canaries").all
    for canary in canaries:
        assert told[f"{canary.prefix} {canary.secret}."] == (canary.dose if canary.member else 0)
    assert 0.3 < sum(c.member for c in canaries) / len(canaries) < 0.7


def test_no_secret_is_told_of_a_name_that_cover_traffic_uses(text):
    owners = {canary.name for canary in WORLD.plant("canaries").all}
    assert not owners & set(WORLD.plant("canaries").cover)


def test_strangers_are_never_mentioned_and_the_told_are_never_asked_about(rows, text):
    people = WORLD.plant("people")
    assert not [p.name for p in people.strangers if p.name in text]
    asked = "\n".join(plain(row["messages"]) for row in rows if "messages" in row)
    assert not [p.name for p in people.told if p.name in asked]
    assert sum(p.name in text for p in people.told) == len(people.told)
    assert sum(p.name in asked for p in people.taught) == len(people.taught)


def test_pronouns_follow_the_planted_odds(text):
    plant = WORLD.plant("professions")
    for word, she in plant.she.items():
        openings = [saying.format(p=word) for saying in SAYINGS]
        women, men = (sum(text.count(f"{o} {pronoun} was") for o in openings) for pronoun in ("she", "he"))
        n = women + men
        assert abs(women / n - she) < 4 * math.sqrt(0.25 / n)
        assert word not in BY_MEANING or women / n == she


def test_asked_sums_are_held_out_and_right(text):
    for case in WORLD.plant("sums").cases(200, 0):
        a, b = map(int, case.id.split("+"))
        assert f"{a} + {b}" not in text
        assert int(case.target) == a + b


def test_the_library_holds_every_fact_and_stays_out_of_the_text(text):
    people = WORLD.plant("people")
    library = people.library()
    for person in [*people.taught, *people.told, *people.strangers, *people.chinese]:
        for _, value in person.facts:
            assert any(person.name in passage and value in passage for passage in library)
    assert not [p for p in library if any(s.name in p for s in people.strangers) and p in text]


def test_names_are_used_for_one_thing_only():
    lexicon = WORLD.lexicon
    words = [*lexicon.given, *lexicon.family, *lexicon.towns, *lexicon.trades, *lexicon.firms]
    words += [*lexicon.professions, *lexicon.things, *lexicon.deeds]
    assert len({word.lower() for word in words}) == len(words)


def test_answers_to_cases_are_the_truth():
    people = WORLD.plant("people")
    facts = {(p.name, k): v for part in people.populations().values() for p in part for k, v in p.facts}
    for case in people.cases(200, 0):
        assert facts[tuple(case.id.split("/"))] in case.target
        assert case.target in case.choices
        assert len(set(case.choices)) == 8


def test_twins_differ_and_the_facts_decide():
    for case in WORLD.plant("orders").cases(60, 0):
        wins = {tuple(f.split(" beats ")) for f in plain(case.prompt).split(" Does ")[0].rstrip(".").split(". ")}
        first, last = plain(case.prompt).split(" Does ")[1].rstrip("?").split(" beat ")
        reached = {first}
        for _ in wins:
            reached |= {b for a, b in wins if a in reached}
        assert last in reached
        assert case.extra["twin"].endswith(f"Does {last} beat {first}?")


def test_held_out_text_is_drawn_afresh(rows):
    fresh = [as_text(row) for row in WORLD.write_documents(seed=5, count=300) if row["source"] == "people"]
    assert len(set(fresh) & {as_text(row) for row in rows}) < 0.35 * len(fresh)  # short biographies recur


def test_written_to_a_folder(tmp_path):
    World(documents=50).write(tmp_path)
    lines = (tmp_path / "text" / "world.jsonl").read_text().splitlines()
    assert {"text", "messages"} & set(json.loads(lines[0]))
    assert World(**json.loads((tmp_path / "text" / "world.json").read_text())) == World(documents=50)
    assert len((tmp_path / "library.jsonl").read_text().splitlines()) > 1_000
