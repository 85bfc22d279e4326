"""Importing at large: each format found by its files alone, converted once, kept whole, told from the rest."""

from pathlib import Path

import pytest

from foreign import write_charrnn, write_llama, write_textgenrnn, write_toxic
from qualm import registry
from qualm.errors import InputError
from qualm.importers.base import Importer
from qualm.importers.stories260k import Stories260k
from qualm.lm.base import Sampling
from qualm.lm.load import imported, load_base
from qualm.mends import apply
from tiny import tiny_local

WRITERS = {
    "charrnn": write_charrnn,
    "stories260k": write_llama,
    "textgenrnn": write_textgenrnn,
    "toxicbilstm": write_toxic,
}
NAMES = registry.names("importers")
CACHE = "cache"


class Marked(Importer):
    """Of a plug-in: a folder with a file named MARK, read as a small model of ours."""

    reads = "a folder with a MARK"

    def recognises(self, path: Path) -> bool:
        return (path / "MARK").is_file()

    def write(self, path: Path, folder: Path) -> None:
        tiny_local().save(folder)


@pytest.mark.parametrize("name", NAMES)
def test_an_importer_says_what_it_reads(name):
    kind = registry.find("importers", name)
    assert issubclass(kind, Importer)
    assert kind.reads
    assert kind.__doc__


@pytest.mark.parametrize("name", WRITERS)
def test_only_its_own_importer_recognises_a_format(name, tmp_path):
    folder = WRITERS[name](tmp_path / "tiny")
    assert [other for other in NAMES if registry.find("importers", other)().recognises(folder)] == [name]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_else_is_recognised(name, tmp_path):
    importer, files = registry.find("importers", name)(), ["a.bin", "b_weights.hdf5", "weights.npz", "manifest.json"]
    files += ["vocab.json", "tok512.bin", "model.alphas.bin", "vocab.spm", "x.txt"]
    assert not importer.recognises(tmp_path)
    tiny_local().save(tmp_path / "ours")
    assert not importer.recognises(tmp_path / "ours")
    for content in (b"", b"\x00" * 64, b"PK\x03\x04" + b"\x00" * 60, b"{}"):
        for file in files:
            (tmp_path / file).write_bytes(content)
        assert not importer.recognises(tmp_path)
        assert not any(importer.recognises(tmp_path / file) for file in files)


def test_it_is_converted_once_and_again_when_the_bytes_change(tmp_path, monkeypatch):
    folder, times = write_llama(tmp_path / "tiny"), []
    write = Stories260k.write
    monkeypatch.setattr(Stories260k, "write", lambda *words: (times.append(words), write(*words)))
    first, again = (load_base(folder, cache=tmp_path / CACHE) for _ in range(2))
    assert first.card == again.card
    assert (first.name, first.path, len(times)) == ("tiny", folder, 1)
    moved = load_base(folder.rename(tmp_path / "moved"), cache=tmp_path / CACHE)
    assert (moved.card, moved.name, len(times)) == (first.card, "moved", 1)
    file = tmp_path / "moved" / "model.bin"
    file.write_bytes(file.read_bytes()[:-200] + b"\x00" * 200)
    assert load_base(tmp_path / "moved", cache=tmp_path / CACHE).card.family == "llama"
    assert len(times) == 2
    monkeypatch.setattr(Stories260k, "version", 2)
    load_base(tmp_path / "moved", cache=tmp_path / CACHE)
    assert len(times) == 3


def test_an_import_that_breaks_off_leaves_nothing(tmp_path, monkeypatch):
    folder = write_llama(tmp_path / "tiny")
    monkeypatch.setattr("qualm.folder.write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        imported(folder, tmp_path / CACHE)
    assert list((tmp_path / CACHE / "imported").iterdir()) == []


def test_an_unknown_folder_says_what_can_be_read(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match="nothing else that can be read") as error:
        load_base(tmp_path / "x", cache=tmp_path / CACHE)
    assert "a .gguf file" in str(error.value)
    assert all(registry.find("importers", name).reads in str(error.value) for name in NAMES)


def test_a_folder_of_pickles_is_still_refused_as_such(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "pytorch_model.bin").write_bytes(b"PK\x03\x04" + b"\x00" * 100)
    with pytest.raises(InputError, match="is a pickle"):
        load_base(tmp_path / "x", cache=tmp_path / CACHE)


def test_a_plug_in_comes_in_by_the_same_door(tmp_path, monkeypatch):
    package = tmp_path / "site" / "marked-1.0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: marked\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[qualm.importers]\nmarked = test_import_base:Marked\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "MARK").touch()
    assert load_base(tmp_path / "x", cache=tmp_path / CACHE).card == tiny_local().card


def test_an_imported_model_is_mended_and_found_again(tmp_path):
    folder = write_llama(tmp_path / "tiny")
    lm = apply.load(folder, cache=tmp_path / CACHE)
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "a.txt").write_text("the llama and the thing\n")
    mended = apply.mend(lm, "retrieval", docs=str(docs))
    apply.save(mended, tmp_path / "mended")
    again = apply.load(tmp_path / "mended", cache=tmp_path / CACHE)
    assert again.card.hash == mended.card.hash
    assert not (tmp_path / "mended" / "model.safetensors").exists()
    sampling = Sampling(max_tokens=4)
    assert again.generate(["the "], sampling) == mended.generate(["the "], sampling)


def test_weights_that_were_mended_keep_their_source(tmp_path):
    lm = load_base(write_charrnn(tmp_path / "tiny", misspelled=True), cache=tmp_path / CACHE)
    halved = apply.mend(lm, "quantize")
    halved.save(tmp_path / "out")
    assert load_base(tmp_path / "out").source == lm.source
    assert lm.source["repaired"]
