"""The page as files: it is shipped whole, asks nobody else for anything, and says everything in Chinese too."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from qualm.serving import page
from qualm.serving.run import background
from serving import Client, Counter

STATIC = page.FOLDER
SCRIPTS = sorted((STATIC / "js").glob("*.js"))
OWN = [*SCRIPTS, STATIC / "index.html", STATIC / "app.css", STATIC / "icon.svg"]
SAID = re.compile(r"""\bt\(\s*"((?:[^"\\]|\\.)*)\"""")


@pytest.fixture(scope="module")
def client():
    with background([Counter()]) as running:
        yield Client(running)


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_a_file_of_the_page_names_no_other_host(path):
    hosts = set(re.findall(r"https?://([\w.-]+)", path.read_text(encoding="utf-8")))
    assert hosts <= {"www.w3.org"}, hosts  # the name of the format of pictures


def test_every_word_of_the_page_is_said_in_chinese_and_none_more_than_once():
    text = (STATIC / "js" / "chinese.js").read_text(encoding="utf-8")
    names = re.findall(r'^  "((?:[^"\\]|\\.)*)":', text, re.M)
    said = {word for script in SCRIPTS for word in SAID.findall(script.read_text(encoding="utf-8"))}
    assert len(said) > 80
    assert said <= set(names), said - set(names)
    assert len(names) == len(set(names))


def test_what_a_word_holds_stands_in_its_translation_too():
    text = (STATIC / "js" / "chinese.js").read_text(encoding="utf-8")
    for english, chinese in re.findall(r'^  "((?:[^"\\]|\\.)*)": "((?:[^"\\]|\\.)*)",$', text, re.M):
        assert set(re.findall(r"\{\w+\}", english)) == set(re.findall(r"\{\w+\}", chinese)), english


def test_the_page_may_load_nothing_from_elsewhere_and_run_nothing_inline(client):
    status, headers, text = client.get("/")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.findall(r"<script(?![^>]* src=)|\son\w+=|style=", text)


@pytest.mark.parametrize("path", [p for p in STATIC.rglob("*") if p.is_file()], ids=lambda p: p.name)
def test_every_file_is_served_and_none_from_outside(client, path):
    status, headers, _ = client.get(f"/page/{path.relative_to(STATIC).as_posix()}")
    assert status == 200
    assert headers["x-content-type-options"] == "nosniff"


def test_no_path_leads_out_of_the_page(client):
    for path in ("/page/../app.py", "/page/%2e%2e/app.py", "/page/..%2fapp.py", "/page//etc/passwd", "/page/js/%00"):
        assert client.get(path)[0] in (400, 404)


def test_what_others_wrote_has_its_licence_beside_it():
    told = (STATIC / "vendor" / "README.md").read_text(encoding="utf-8")
    for path in (STATIC / "vendor").glob("*.js"):
        assert f"`{path.name}`" in told
        assert (STATIC / "vendor" / f"LICENSE-{path.stem}").stat().st_size > 1000


@pytest.mark.skipif(shutil.which("tsc") is None, reason="needs TypeScript's tsc: npm install --global typescript")
def test_the_types_of_the_page_hold():
    config = Path(__file__).parent / "web" / "tsconfig.json"
    done = subprocess.run(["tsc", "-p", str(config)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout
