"""What the documents say is so: commands run, links lead somewhere, and every verb, probe and mend is described."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from qualm import registry
from qualm.cli.app import VERBS, build
from qualm.cli.manual import manual

ROOT = Path(__file__).resolve().parents[1]
READMES = ["README.md", "README.zh-CN.md"]
PAGES = [*READMES, *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"(?:<!-- (?P<mark>[^>]*) -->\n)?^```(?P<kind>\w+)(?P<info> [^\n]*)?\n(?P<body>.*?)^```$", re.M | re.S
)


def blocks(page: str, kind: str) -> list[str]:
    """The fenced blocks of a kind, less those marked as not to be run."""
    found = BLOCK.finditer((ROOT / page).read_text(encoding="utf-8"))
    run = (b for b in found if not (b["mark"] or "").startswith("not run: ") and b["info"] != " notest")
    return [b["body"] for b in run if b["kind"] == kind]


def commands(page: str) -> list[str]:
    return [
        line.removeprefix("$ ") for body in blocks(page, "console") for line in body.splitlines() if line[:2] == "$ "
    ]


@pytest.mark.timeout(900)
def test_the_commands_run(qualm, tmp_path):
    """In order, in an empty folder that has the project's documents; each must succeed and say something."""
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    ran = commands("README.md")
    assert len(ran) > 8
    for command in ran:
        words = shlex.split(command)
        assert words.pop(0) == "qualm", f"cannot run: {command}"
        done = qualm(*words)
        assert done.code == 0, f"{command}\n{done.err}"
        assert done.out or "-q" in words, command


def test_both_readmes_say_the_same_commands():
    english, chinese = (re.findall(r"^\$ .*", (ROOT / page).read_text(encoding="utf-8"), re.M) for page in READMES)
    assert english == chinese
    assert commands("README.md") == commands("README.zh-CN.md")


@pytest.mark.parametrize("page", [page for page in PAGES if page not in READMES])
def test_commands_of_the_documents_are_understood(page):
    for command in commands(page):
        words = shlex.split(command)
        if words[0] == "qualm":
            build().parse_args(words[1:], exit_on_error=False, print_error=False)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert ((ROOT / page).parent / target).exists(), f"{page}: {target}"


def test_the_manual_is_what_the_help_says():
    told = (ROOT / "docs/cli.md").read_text(encoding="utf-8")
    assert told == manual(), "run: python -m qualm.cli.manual > docs/cli.md"
    assert all(f"## qualm {verb}\n" in told for verb in VERBS)


def described(page: str) -> dict[str, str]:
    """The first line under each heading of a page."""
    return dict(re.findall(r"^## (\w+)\n\n(.+)$", (ROOT / page).read_text(encoding="utf-8"), re.M))


@pytest.mark.parametrize("name", registry.names("probes"))
def test_every_probe_is_described(name):
    kind = registry.find("probes", name)
    needs = ", ".join(sorted(kind.needs)) or "nothing"
    facts = f"Limit: {kind.limit} · needs: {needs} · better: {kind.better} · unit: {kind.unit}"
    assert described("docs/probes.md")[name] == facts
    assert all(name in (ROOT / page).read_text(encoding="utf-8") for page in READMES)


@pytest.mark.parametrize("name", registry.names("mends"))
def test_every_mend_is_described(name):
    kind = registry.find("mends", name)
    limits, needs = (", ".join(sorted(words)) or "nothing" for words in (kind.mends, kind.needs))
    assert described("docs/mends.md")[name] == f"Mends: {limits} · needs: {needs}"


def test_every_fake_is_described():
    from qualm.lm.fake import FAILINGS

    told = (ROOT / "docs/probes.md").read_text(encoding="utf-8")
    assert all(f"`fake:{name}`" in told for name in FAILINGS)


def test_every_verb_is_in_the_readme():
    for page in READMES:
        told = (ROOT / page).read_text(encoding="utf-8")
        assert all(f"`qualm {verb}" in told for verb in VERBS), page
