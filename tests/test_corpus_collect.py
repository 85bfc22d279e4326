"""Files of every format become documents; what cannot be used is named; nothing hangs, crashes or fills the memory."""

import gzip
import json
import random
import re
import resource
import time

import pytest

from qualm.corpus import Collecting, collect, read
from qualm.corpus.account import accounting
from qualm.errors import InputError
from qualm.text import encoding
from simulated import load as simulation

files = simulation("corpus_files")
CHINESE = "他昨天去了北京，大家都不知道。"


def taken(sources, **settings):
    told = []
    return list(collect(sources, Collecting(**settings), told.append)), {each.name: each for each in told}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    for suffix, make in files.makers(folder).items():
        (folder / f"sound{suffix}").write_bytes(make(files.TEXTS))
    return folder


def test_every_format_gives_its_texts(sound):
    documents, told = taken([sound])
    by_file = {name: [] for name in told}
    for document in documents:
        by_file.setdefault(document.source.rpartition(":")[0] or document.source, []).append(document)
    assert set(files.makers(sound)) == {f".{name.split('.', 1)[1]}" for name in told if "/" not in name} | {".zip"}
    assert all(not each.reason and not each.bad and each.documents for each in told.values()), told
    for name, each in told.items():
        read_from = [d for d in documents if d.source.startswith(name)]
        whole = "\n".join(d.text for d in read_from)
        assert all(text.rstrip(".。") in whole for text in files.TEXTS if text.isascii()), name
        assert CHINESE[:-1] in whole or name.endswith(".pdf"), name  # its built-in fonts have no Chinese
        assert "/" in name or len(each.sha256) == 64


def test_strict_reading_takes_the_same_files_by_the_same_way(sound):
    assert [d.text for d in read(sound)] == [d.text for d in taken([sound])[0]]


def test_parallel_text_keeps_its_languages(sound):
    pairs = list(read(sound / "sound.po"))
    assert pairs[0].text == "The ferry left late.\nPhrase 0: The ferry left late."
    assert pairs[0].meta == {"languages": ["en", "fr"]}
    assert [d.meta["languages"] for d in read(sound / "sound.tmx")][:1] == [["en", "de"]]


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "gb18030", "big5", "cp1252"])
def test_encodings_are_told_and_strictness_asks_for_utf8(codec, tmp_path):
    text = {"big5": "他昨天去了台北，大家都不知道。\n", "cp1252": "Die Größe der Straße.\n", "utf-16-le": "plain\n"}
    text = text.get(codec, f"{CHINESE}\n") * 30
    (tmp_path / "a.txt").write_bytes(text.encode(codec))
    documents, told = taken([tmp_path / "a.txt"])
    assert [d.text for d in documents] == [text], told
    if codec not in ("utf-8", "utf-8-sig", "utf-16-le"):  # the last is ASCII with zeros between
        with pytest.raises(InputError):
            list(read(tmp_path / "a.txt"))


def test_mojibake_is_mended_and_good_text_left_alone(tmp_path):
    wrong = "".join(chr(byte) for byte in "Ein schöner Tag für Ärzte – “so so”".encode())
    (tmp_path / "a.txt").write_text(f"{wrong}\n", encoding="utf-8")
    (tmp_path / "b.txt").write_text("naïve café – £5, Größe, 好的\n", encoding="utf-8")
    documents, told = taken([tmp_path])
    assert [d.text for d in documents] == ["Ein schöner Tag für Ärzte – “so so”\n", "naïve café – £5, Größe, 好的\n"]
    assert (told["a.txt"].mended, told["b.txt"].mended) == (1, 0)
    assert encoding.detect(random.Random(1).randbytes(4000)) is None


def test_bad_lines_are_counted_named_and_passed_over(tmp_path, qualm):
    good = "".join(json.dumps({"text": f"line {i}"}) + "\n" for i in range(500))
    (tmp_path / "a.jsonl").write_bytes(good.encode() + b'{"text": "\xff"}\n{"text": 5}\n[1]\n')
    documents, told = taken([tmp_path / "a.jsonl"])
    assert (len(documents), told["a.jsonl"].bad, told["a.jsonl"].records) == (500, 3, 502)
    assert [each.split(":")[0] for each in told["a.jsonl"].bad_at] == ["501", "502", "503"]
    assert qualm("corpus", "collect", tmp_path / "a.jsonl", "-o", tmp_path / "out").code == 0
    (tmp_path / "b.jsonl").write_text('{"text": "x"}\n' * 50 + "cut\n")
    done = qualm("corpus", "collect", tmp_path / "b.jsonl", "-o", tmp_path / "out")
    assert done.code == 4
    assert "1 of 51" in done.err
    assert json.loads((tmp_path / "out/manifest.json").read_text())["collected"]["bad"] == 1
    assert qualm("corpus", "collect", tmp_path / "b.jsonl", "-o", tmp_path / "out", "--strict").code == 4


def test_bad_files_are_named_with_their_reason(tmp_path, qualm):
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.7 nothing")
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b'{"text": "one"}\n' * 9)[:-9])
    (tmp_path / "c.png").write_bytes(b"\x89PNG")
    (tmp_path / "d.txt").write_text("fine\n")
    with accounting(tmp_path / "out") as account:
        assert [d.text for d in collect([tmp_path], tell=account.add)][-1] == "fine\n"
    told = {each["name"]: each for each in map(json.loads, (tmp_path / "out/collected.jsonl").read_text().splitlines())}
    assert sorted(told) == ["a.pdf", "b.jsonl.gz", "c.png", "d.txt"]
    assert "cannot be read" in told["a.pdf"]["reason"]
    assert "ends in the middle" in told["b.jsonl.gz"]["reason"]
    assert account.told["skipped"] == 3
    with pytest.raises(InputError, match=r"a\.pdf"):
        list(read(tmp_path))


def test_sources_are_patterns_folders_and_standard_input(tmp_path, qualm):
    for name in ("a/one.txt", "a/b/two.txt", "c/one.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert [d.id for d in collect([str(tmp_path / "**/one.txt")])] == ["a/one.txt:1", "c/one.txt:1"]
    assert [d.id for d in collect([tmp_path / "a", tmp_path / "c"])] == ["a/b/two.txt:1", "a/one.txt:1", "c/one.txt:1"]
    for source in (str(tmp_path / "*.pdf"), tmp_path / "nowhere", "hub:nonsense", "-"):
        with pytest.raises((InputError, Exception), match=r"matches no|no such|names no|standard input"):
            list(collect([source]))
    assert qualm("corpus", "collect", "--nonsense", tmp_path, "-o", tmp_path / "o").code == 2
    assert qualm("corpus", "clean", tmp_path / "a", tmp_path / "c", "-o", tmp_path / "o").code == 2
    assert qualm("corpus", "clean,collect", tmp_path / "a", "-o", tmp_path / "o").code == 2


def bombs():
    return {
        "gz.txt.gz": gzip.compress(b"a" * 200_000_000),
        "zip.zip": files.zip_({"a.txt": b"a" * 100_000_000}),
        "nested.zip": files.zip_({"a.zip": files.zip_({"b.zip": files.zip_({"c.zip": files.zip_({"d.txt": b"x"})})})}),
        "word.docx": files.zip_({"word/document.xml": b"<w>" * 50_000_000}),
        "deep.jsonl": b"[" * 1_000_000 + b"\n" + b'{"text":' * 500_000 + b"\n",
        "laughs.tmx": b'<!DOCTYPE tmx [<!ENTITY a "aaaaaaaaaa">'
        + b"".join(b'<!ENTITY %c "%s">' % (98 + i, b"&%c;" % (97 + i) * 10) for i in range(9))
        + b"]><tmx><body><tu><tuv xml:lang='en'><seg>&j;</seg></tuv></tu></body></tmx>",
    }


def test_bombs_stop_at_the_limits(tmp_path):
    """A hundred megabytes of one byte, archives in archives, entities in entities: refused, fast, in little memory."""
    for name, content in bombs().items():
        (tmp_path / name).write_bytes(content)
    with (tmp_path / "line.jsonl").open("wb") as file:
        file.writelines(b"x" * 1_000_000 for _ in range(100))
        file.write(b'\n{"text": "after it"}\n')
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    documents, told = taken([tmp_path], seconds=20)
    assert time.monotonic() - start < 60
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # kB: a line of 64 MB, twice or so
    assert [d.text for d in documents if d.source.startswith("line")] == ["after it"]
    assert told["line.jsonl"].bad == 1
    assert told["deep.jsonl"].bad == 2
    for name in ("gz.txt.gz", "zip.zip/a.txt", "nested.zip/a.zip/b.zip/c.zip", "word.docx", "laughs.tmx"):
        assert told[name].reason, name


@pytest.mark.parametrize(
    ("page", "settings", "reason"),
    [
        ("<div>" * 150_000, {"seconds": 3}, "took longer than 3 s"),
        (f"<p>{'word ' * 40}</p>" * 240_000, {"memory": 96 * 2**20}, "memory|ended its reader|cannot be read"),
    ],
)
def test_a_reader_that_hangs_or_dies_is_ended_and_the_next_file_read(page, settings, reason, tmp_path):
    for name, content in (("a", "<p>one</p>"), ("b", page), ("c", "<p>three</p>")):
        (tmp_path / f"{name}.html").write_text(content)
    documents, told = taken([tmp_path], **settings)
    assert re.search(reason, told["b.html"].reason), told["b.html"]
    assert [d.text for d in documents] == ["one", "three"]


@pytest.mark.parametrize("suffix", list(files.makers(None)))
def test_spoilt_files_are_named_and_nothing_crashes(suffix, tmp_path):
    """A small run of benchmarks/corpus_fuzz.py."""
    rng, make = random.Random(suffix), files.makers(tmp_path)[suffix]
    good = make(files.TEXTS)
    names = []
    for i, way in enumerate(files.WAYS * 2):
        names.append(f"{i:02}{way.__name__}{suffix}")
        (tmp_path / names[-1]).write_bytes(way(good, rng))
    documents, told = taken([tmp_path], seconds=10)
    assert {name.partition(".zip/")[0] + (".zip" if ".zip/" in name else "") for name in told} == set(names)
    assert all(each.documents or each.reason for each in told.values())
    assert all(document.key for document in documents)  # text that is Unicode
