"""Files inside a wheel: those that match, checked against its RECORD, and nothing that would lie outside."""

import base64
import hashlib
import zipfile

import pytest

from qualm import wheels
from qualm.errors import InputError, UsageError


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package index of one wheel, which `download` brings; its files can be changed."""
    files = {"plays/a/one.md": b"# One", "plays/two.md": b"# Two", "plays/code.py": b"raise SystemExit"}
    claimed = dict(files)

    def download(name, folder):
        folder.mkdir()
        with zipfile.ZipFile(folder / "plays-1.0-py3-none-any.whl", "w") as archive:
            rows = []
            for path, content in files.items():
                archive.writestr(path, content)
                digest = base64.urlsafe_b64encode(hashlib.sha256(claimed[path]).digest()).rstrip(b"=").decode()
                rows.append(f"{path},sha256={digest},{len(content)}")
            archive.writestr("plays-1.0.dist-info/RECORD", "\n".join(rows))

    monkeypatch.setattr(wheels, "download", download)
    return files, claimed


def test_files_that_match_are_taken_and_kept(package, tmp_path, monkeypatch):
    folder = wheels.fetch_files("Plays==1.0", "plays/*.md", tmp_path)
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.*")) == ["plays/a/one.md", "plays/two.md"]
    monkeypatch.setattr(wheels, "download", lambda *_: pytest.fail("it went to the network"))
    assert wheels.fetch_files("plays==1.0", "plays/*.md", tmp_path) == folder


def test_a_file_that_is_not_what_the_record_says_is_refused(package, tmp_path):
    files, _ = package
    files["plays/two.md"] = b"# Too"
    with pytest.raises(InputError, match="RECORD"):
        wheels.fetch_files("plays==1.0", "plays/*.md", tmp_path)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_a_file_that_would_lie_elsewhere_is_refused(package, tmp_path):
    files, claimed = package
    files["plays/../../evil.md"] = claimed["plays/../../evil.md"] = b"x"
    with pytest.raises(InputError, match="of the name"):
        wheels.fetch_files("plays==1.0", "*.md", tmp_path / "cache")


def test_a_pattern_without_a_file_and_a_package_without_a_version_are_refused(package, tmp_path):
    with pytest.raises(InputError, match="holds no file like"):
        wheels.fetch_files("plays==1.0", "*.csv", tmp_path)
    with pytest.raises(UsageError, match="PACKAGE==VERSION"):
        wheels.fetch_files("plays", "*.md", tmp_path)
