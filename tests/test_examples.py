"""The examples run from the command line, quickly when asked to, and say what they found."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("[a-z]*.py"))
SAYS = {
    "beams": r"5 beams: -\d+\.\d\d nats a token, \d+ tokens\n  If the value is",
    "bert_classify": r"of \d+ others \d+\.\d% are right \(always '\w+': \d+\.\d%\)",
    "families": r"llama +4 +1,3\d\d,\d{3}",
    "gpt": r"[\d,]+ weights, \d+ s, \d\.\d{3} bits per byte of unseen text\n--- A class is",
    "lstm": r"stopped after step \d+; step \d+ was the best and is kept: \d\.\d{3} bits per byte",
    "stateful_rnn": r"carries its state: \d\.\d{3} bits per byte of \d+ whole articles",
    "t5_translate": r"of \d+ others, \d+ are right word for word[\s\S]*Hello, world! -> ",
}


def run(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", str(ROOT / "examples" / f"{name}.py"), *words]
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=alone, check=False)


@pytest.mark.parametrize("name", EXAMPLES)
def test_it_runs_and_tells_a_figure(name, tmp_path):
    words = () if name == "families" else ("--quick", "--output", str(tmp_path / "out"))
    ran = run(name, *words)
    assert ran.returncode == 0, ran.stderr
    assert re.search(SAYS[name], ran.stdout), ran.stdout


@pytest.mark.parametrize("name", EXAMPLES)
def test_it_is_short_and_on_a_page(name):
    path = ROOT / "examples" / f"{name}.py"
    assert len(path.read_text(encoding="utf-8").splitlines()) < 60
    assert f"examples/{path.name}" in (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")


def test_your_own_text_is_read(tmp_path):
    words = [("good", "bon"), ("small", "petit"), ("old", "vieux")] * 4
    rows = [f"{i} times the {a} dog\t{i} fois le chien {b}\n" for i, (a, b) in enumerate(words)]
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("source\ttarget\n" + "".join(rows))
    ran = run("t5_translate", str(pairs), "--quick", "--output", str(tmp_path / "out"))
    assert ran.returncode == 0, ran.stderr
    assert "le chien" in (tmp_path / "out" / "pairs.jsonl").read_text()
