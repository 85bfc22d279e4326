"""A corpus is the same whatever made it: one process or several, whole or killed and gone on with, twice or again."""

import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from qualm.corpus import (
    Deduping,
    Document,
    Pipeline,
    Running,
    Splitting,
    build,
    chunks,
    dedup,
    load,
    pack,
    read,
    split,
    stages,
)
from qualm.corpus.building import check
from qualm.corpus.packing import check as check_shards
from qualm.corpus.shards import Shards
from qualm.corpus.turns import messages_of
from qualm.errors import InputError, UsageError
from qualm.text import minhash
from qualm.tokens.train import train_bpe

RECIPE = """
[[sources]]
path = "pages"
fields = { license = "MIT" }
[[sources]]
path = "talk.json"
[[steps]]
step = "clean"
[[steps]]
step = "dedup"
paragraphs = 60
[[steps]]
step = "filter"
shortest = 5
rules = false
[[steps]]
step = "scrub"
[[steps]]
step = "split"
aside = 0.2
[[steps]]
step = "pack"
vocab = 400
"""


@pytest.fixture
def recipe(tmp_path):
    """Four files of pages with copies, near copies, a shared paragraph and a footer; one that is no JSON; a talk."""
    rng = random.Random(3)
    words = ["".join(rng.choices("aeionrstlmd", k=rng.randint(2, 7))) for _ in range(600)]
    folder = tmp_path / "pages"
    folder.mkdir()
    last = ""
    for number in range(4):
        lines, shared = [], " ".join(rng.choices(words, k=30))
        for i in range(36):
            text = last + " more" if i % 9 == 8 else " ".join(rng.choices(words, k=rng.randint(30, 80)))
            last = text
            body = f"{text}\n\n{shared}\n\n" if i % 7 == 0 else f"{text} 住在北京的人写信给 a{i}@b.org.\n\n"
            lines.append(json.dumps({"text": f"{body}All rights reserved by nobody"}))
        (folder / f"{number}.jsonl").write_text("\n".join(lines))
    (folder / "broken.jsonl").write_text('{"text": "one that can be read, and then a line that cannot"}\nno JSON\n')
    turns = [[{"text": "Hello there, my friend", "sender": 7}], [{"text": "Hello to you as well", "sender": 9}]]
    (tmp_path / "talk.json").write_text(json.dumps({"first": {"messages": turns}}))
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return tmp_path / "recipe.toml"


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(chunks, "SIZE", 16_000)
    monkeypatch.setattr(stages, "LOAD", 1000)


def files_of(manifest):
    return {name: file["sha256"] for name, file in manifest["files"].items()}


def test_all_that_a_recipe_asks_for_is_made_and_accounted_for(recipe, tmp_path):
    manifest = build(recipe, tmp_path / "out")
    clean, dedup, filter_, scrub, split, pack = manifest["steps"]
    assert clean["read"] == 4 * 36 + 2
    assert clean["changed"]["boilerplate"] == 4 * 36
    assert dedup["dropped"]["near duplicate"] >= 5
    assert dedup["changed"]["paragraphs"] >= 4 * 3
    assert scrub["changed"]["EMAIL"] > 50
    assert filter_["written"] == scrub["written"] == split["written"] + split["held_out"]["written"]
    assert pack["packed"]["train"]["documents"] == split["written"]
    dropped = [json.loads(line) for line in (tmp_path / "out/dropped.jsonl").read_text().splitlines()]
    assert [(d["id"], d["reason"]) for d in dropped if d["step"] == "read"] == [
        ("pages/broken.jsonl", "cannot be read")
    ]
    kept = [*read(tmp_path / "out/train.jsonl"), *read(tmp_path / "out/held_out.jsonl")]
    assert {d.meta.get("license") for d in kept} == {"MIT", None}
    assert [d.meta["provenance"]["source"] for d in kept if d.messages] == ["talk.json:first"]
    packed = load(tmp_path / "out/train")
    assert packed.tokens == pack["packed"]["train"]["tokens"]
    check_shards(tmp_path / "out/train")


def test_the_number_of_processes_changes_nothing(recipe, tmp_path):
    assert files_of(build(recipe, tmp_path / "one")) == files_of(build(recipe, tmp_path / "two", Running(2)))


def test_chunks_and_partitions_change_nothing_but_where_files_end(recipe, tmp_path, monkeypatch):
    small = build(recipe, tmp_path / "small")
    monkeypatch.setattr(chunks, "SIZE", 10**9)
    monkeypatch.setattr(stages, "LOAD", 10**9)
    assert files_of(build(recipe, tmp_path / "large")) == files_of(small)


def test_a_manifest_gives_its_corpus_again_and_a_changed_source_does_not(recipe, tmp_path):
    made = build(recipe, tmp_path / "out")
    assert files_of(build(tmp_path / "out/manifest.json", tmp_path / "again")) == files_of(made)
    check(tmp_path / "out/manifest.json")
    (tmp_path / "pages/0.jsonl").write_text('{"text": "another text stands here now, quite another one"}')
    with pytest.raises(InputError, match="is not what the manifest says"):
        check(tmp_path / "out/manifest.json")
    assert sorted(p.name for p in (tmp_path / "out").iterdir() if p.name.startswith(".")) == []


def test_what_is_there_is_not_made_again(recipe, tmp_path):
    made = build(recipe, tmp_path / "out")
    before = (tmp_path / "out/train.jsonl").stat().st_mtime_ns
    assert build(recipe, tmp_path / "out") == made
    assert (tmp_path / "out/train.jsonl").stat().st_mtime_ns == before
    (tmp_path / "out/train/ids-00000.bin").write_bytes(b"damaged")
    assert build(recipe, tmp_path / "out") == made
    check_shards(tmp_path / "out/train")


KILLED = """
import os, signal, sys
from qualm.corpus import build, chunks, stages
left, really = int(sys.argv[3]), os.fsync

def fsync(handle):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    really(handle)

os.fsync = fsync
chunks.SIZE, stages.LOAD = 16_000, 1000
build(sys.argv[1], sys.argv[2])
"""


def test_a_build_that_is_killed_goes_on_to_the_same_hashes(recipe, tmp_path):
    """Ten kills, each as a random file is written or just was."""
    whole = files_of(build(recipe, tmp_path / "whole"))
    rng, out, landed = random.Random(5), tmp_path / "out", []
    for _ in range(10):
        at = str(rng.randint(3, 30))
        done = subprocess.run([sys.executable, "-c", KILLED, str(recipe), str(out), at], check=False)
        assert done.returncode == -signal.SIGKILL
        landed.append(max(p.name[:2] for p in (out / "work").iterdir()))
    assert landed == sorted(landed), "work was lost"
    assert len(set(landed)) >= 3, landed
    (out / "train").mkdir(exist_ok=True)
    (out / "train" / ".ids-00000.bin.4711.tmp").write_bytes(b"half a shard")  # what a kill in a shard leaves
    assert files_of(build(recipe, out)) == whole
    assert not list(out.rglob(".*.tmp"))


def test_the_same_decisions_from_python_and_in_a_folder(recipe, tmp_path):
    documents = list(read(tmp_path / "pages/0.jsonl"))
    kept = [d.text for d in dedup(documents, Deduping(near=0.5))]
    Pipeline([Deduping(near=0.5)]).run(documents, tmp_path / "out")
    assert kept == [d.text for d in read(tmp_path / "out/documents.jsonl")]


# -- split


def varied(count, seed):
    rng = random.Random(seed)
    return " ".join(f"w{rng.randrange(5000)}" for _ in range(count))


def test_documents_that_are_nearly_alike_fall_on_one_side(tmp_path):
    documents = []
    for i in range(60):
        text = varied(120, i).split()
        for copy in range(3):
            documents.append(Document(f"{i}-{copy}", " ".join([*text[:60], f"other{copy}", *text[61:]])))
    manifest = Pipeline([Splitting(aside=0.3)]).run(documents, tmp_path)
    sides = [{d.id.split("-")[0] for d in read(tmp_path / f"{side}.jsonl")} for side in ("train", "held_out")]
    assert not sides[0] & sides[1]
    assert 5 <= len(sides[1]) <= 35
    assert manifest["steps"][0]["written"] + manifest["steps"][0]["held_out"]["written"] == 180
    Pipeline([Splitting(aside=0.3, alike=0)]).run(documents, tmp_path / "apart")
    train, held = split(documents, 0.3)
    assert [d.id for d in read(tmp_path / "apart/held_out.jsonl")] == [d.id for d in held]
    assert [d.id for d in read(tmp_path / "apart/train.jsonl")] == [d.id for d in train]


def test_split_and_pack_come_last(tmp_path):
    with pytest.raises(UsageError, match="split stands before other steps"):
        Pipeline([Splitting(), Deduping()]).run([Document("1", "text")], tmp_path)


# -- shards


def test_shards_are_read_as_one_array():
    whole = np.arange(100, dtype=np.uint16)
    shards = Shards([whole[:30], whole[30:30], whole[30:97], whole[97:]])
    rng = np.random.default_rng(0)
    assert len(shards) == 100
    places = rng.integers(-20, 130, size=(7, 11))
    assert (shards.take(places, mode="clip") == whole.take(places, mode="clip")).all()
    for start, stop in rng.integers(-110, 110, size=(200, 2)):
        assert shards[start:stop].tolist() == whole[start:stop].tolist()
    assert (shards[-1], shards[29], shards[30]) == (99, 29, 30)
    assert shards[np.array([0, 99, 31])].tolist() == [0, 99, 31]
    with pytest.raises(IndexError):
        shards.take(np.array([100]))


def test_a_corpus_in_many_shards_is_the_corpus_in_one(tmp_path, monkeypatch):
    tokens = train_bpe(["the owl sat in the old tree " * 20], 300)
    documents = [Document(str(i), f"the owl {i} sat, é {'x' * (i % 50)}") for i in range(200)]
    one = pack(documents, tokens, tmp_path / "one")
    monkeypatch.setattr("qualm.corpus.packing.SHARD", 700)
    many = pack(documents, tokens, tmp_path / "many")
    assert len(list((tmp_path / "many").glob("ids-*.bin"))) > 5
    assert many.ids.tolist() == one.ids.tolist()
    assert many.ends.tolist() == one.ends.tolist()
    assert (many.identity, many.bytes, many.tokens) == (one.identity, one.bytes, one.tokens)


# -- many texts at once


def test_signatures_of_many_texts_are_those_of_each():
    rng = random.Random(2)
    texts = [varied(rng.randint(0, 200), i) for i in range(300)]
    texts += ["", "one", "一二三四五六七八", "。。", "a b c d e", varied(20_000, 1), "!"]
    made, some = minhash.signatures(texts)
    for text, row, has in zip(texts, made, some, strict=True):
        alone = minhash.signature(text)
        assert (alone is not None) == has
        assert alone is None or (alone == row).all()


def test_equal_keys_are_brought_together_across_partitions(tmp_path):
    rng = np.random.default_rng(1)
    tables = [rng.integers(0, 50, size=(40, 3)).astype(np.uint64) * np.uint64(2**58) for _ in range(5)]
    paths = [tmp_path / f"t{i}" for i in range(5)]
    for path, table in zip(paths, tables, strict=True):
        stages.save(path, table)
    found = stages.read_together(stages.together(stages.Work(tmp_path / "w"), "x", paths))
    keys = np.concatenate(tables)
    values, counts = np.unique(keys, return_counts=True)
    several = {int(v) for v, c in zip(values, counts, strict=True) if c > 1 and v}
    wanted = [(r, s) for r in range(200) for s in range(3) if int(keys[r, s]) in several]
    assert [(int(e["row"]), int(e["slot"])) for e in found] == wanted
    groups = {int(e["group"]): int(keys[e["row"], e["slot"]]) for e in found}
    assert sorted(groups.values()) == sorted(several)
    assert all(groups[int(e["group"])] == int(keys[e["row"], e["slot"]]) for e in found)


@pytest.mark.parametrize("said", ["hello", [{"text": 1, "sender": 2}], [{"text": "a", "sender": n} for n in "abc"]])
def test_what_is_no_talk_of_two_is_refused(said):
    assert messages_of(said) is None


@pytest.mark.slow
def test_ray_changes_nothing(recipe, tmp_path):
    pytest.importorskip("ray")
    assert files_of(build(recipe, tmp_path / "ray", Running(2, "ray"))) == files_of(build(recipe, tmp_path / "one"))


@pytest.mark.parametrize("running", [Running(-1), Running(on="spark://here")])
def test_a_place_that_there_is_not_is_refused(recipe, tmp_path, running):
    with pytest.raises(UsageError):
        build(recipe, tmp_path / "out", running)


@pytest.mark.network
@pytest.mark.slow
def test_the_default_corpus_is_built_and_its_manifest_builds_it_again(tmp_path, monkeypatch):
    monkeypatch.undo()
    recipe = Path(__file__).parents[1] / "examples" / "default_corpus.toml"
    made = build(recipe, tmp_path / "one", Running(0), tmp_path / "cache")
    assert made["steps"][-1]["packed"]["train"]["tokens"] > 3_000_000
    again = build(tmp_path / "one/manifest.json", tmp_path / "two", Running(1), tmp_path / "cache")
    assert files_of(again) == files_of(made)
