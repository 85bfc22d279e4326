"""The demo end to end on a tiny world: every file it promises, and the same readings however often it is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest

from qualm.files import hash_file
from qualm.registry import names

pytestmark = pytest.mark.timeout(900)
PROGRAM = Path(__file__).with_name("journey.py")
STAGES = ("Training", "Auditing", "Proving")  # a kill lands in each


def start(folder: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), str(folder)], stdout=subprocess.PIPE, text=True, env=environment
    )


def finish(process: subprocess.Popen[str]) -> list[str]:
    lines = process.communicate(timeout=600)[0].splitlines()
    assert process.returncode == 0
    return lines


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    finish(start(folder))
    return folder


def readings(folder: Path) -> dict:
    """All figures of a report but those of the clock."""
    report = json.loads((folder / "report.json").read_text())
    (subject,) = report["subjects"]
    limits = {m["name"]: (m["reading"], m["parts"]) for m in subject["limits"] if m["name"] != "cost"}
    clocked = {"p_holm"}  # corrected over all probes, the clock's among them
    changes = {
        (proof["label"], c["name"]): {k: v for k, v in c.items() if k not in clocked}
        for proof in subject["proofs"]
        for c in proof["changes"]
        if c["name"] != "cost"
    }
    return {"limits": limits, "changes": changes, "card": subject["card"], "answers": subject["answers"]}


def test_everything_that_was_promised_is_there(whole):
    assert {"report.html", "report.md", "report.json", "model", "world"} <= {p.name for p in whole.iterdir()}
    report = json.loads((whole / "report.json").read_text())
    assert not report["unfinished"]
    (subject,) = report["subjects"]
    assert {m["name"] for m in subject["limits"]} == set(names("probes"))
    assert {p["mend"]["name"] for p in subject["proofs"]} == set(names("mends")) - {"identity"}
    assert all({c["name"] for c in proof["changes"]} == set(names("probes")) for proof in subject["proofs"])
    assert len(subject["answers"]) == 4
    assert all(hash_file(whole / file["path"]) == file["sha256"] for file in report["files"])
    assert "planted/audit/rows.jsonl" in {file["path"] for file in report["files"]}
    HTMLParser().feed((whole / "report.html").read_text())


def test_killed_three_times_it_ends_with_the_same_readings(whole, tmp_path):
    landed = []
    for stage in STAGES:
        with start(tmp_path) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith(stage):
                    time.sleep(0.4)
                    process.send_signal(signal.SIGKILL)
                    landed.append(line.split()[0])
                    break
        assert process.returncode == -signal.SIGKILL
        assert not (tmp_path / "report.html").exists() or "</html>" in (tmp_path / "report.html").read_text()
    again = finish(start(tmp_path))
    assert landed == list(STAGES)
    assert not any(line.startswith(("Writing", "Training", "Auditing")) for line in again)
    assert readings(tmp_path) == readings(whole)


def test_a_finished_demo_does_nothing_again(whole):
    before = (whole / "report.json").read_bytes()
    assert finish(start(whole)) == []
    assert (whole / "report.json").read_bytes() == before
