"""Where settings come from, how progress is shown, and how a command is stopped."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qualm.cli import bars, models
from qualm.cli.app import CONFIGURABLE, main
from qualm.cli.bars import Bar
from qualm.cli.common import Common, is_lively
from qualm.cli.settings import entries, layers
from qualm.cli.stop import Interrupted, Stop
from qualm.errors import Stopped

TRAIN = ["--size", "30k", "--vocab", "300", "--length", "32", "--batch", "4", "--threads", "1"]


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """Write settings into the user's file, the project's file and the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    def write(user="", project="", **environment):
        (tmp_path / "config" / "qualm").mkdir(parents=True, exist_ok=True)
        (tmp_path / "config" / "qualm" / "qualm.toml").write_text(user)
        (tmp_path / "qualm.toml").write_text(project)
        for name, value in environment.items():
            monkeypatch.setenv(f"QUALM_{name}", value)

    return write


def steps_of(monkeypatch, *flags):
    """The number of steps that `qualm train` would take."""
    asked = []
    monkeypatch.setattr("qualm.cli.rooms.training_run", FakeRun(asked), raising=False)
    main(["train", "text", "-o", "m", "-q", *flags])
    return asked[-1].train.steps


class FakeRun:
    """Stands in for the room that trains: notes the recipe and does nothing."""

    def __init__(self, asked):
        from qualm.training.loop import Result
        from qualm.training.run import Trained

        self.asked = asked
        self.done = Trained(Path("m"), 1, "bits per byte", Result(1, 1.0, 1.0, 1, 1, 1.0, 0, ()))

    def train(self, data, output, recipe, hooks):
        self.asked.append(recipe)
        return self.done


def test_the_nearer_setting_counts(sources, monkeypatch):
    assert steps_of(monkeypatch) is None
    sources(user="[train]\nsteps = 1\n")
    assert steps_of(monkeypatch) == 1
    sources(user="[train]\nsteps = 1\n", project="[train]\nsteps = 2\n")
    assert steps_of(monkeypatch) == 2
    sources(user="[train]\nsteps = 1\n", project="[train]\nsteps = 2\n", TRAIN_STEPS="3")
    assert steps_of(monkeypatch) == 3
    assert steps_of(monkeypatch, "--steps", "4") == 4


def test_a_named_file_stands_in_for_the_projects(sources, monkeypatch, tmp_path):
    sources(project="[train]\nsteps = 2\n")
    (tmp_path / "other.toml").write_text("[train]\nsteps = 5\n")
    assert steps_of(monkeypatch, "--config", "other.toml") == 5
    assert steps_of(monkeypatch, "--config=other.toml") == 5


def test_settings_are_shown_with_their_origin(sources, capsys):
    sources(user="cache = 'u'\n[train]\nsteps = 1\n", project="[train]\nsteps = 2\n", CACHE="e", AUDIT_QUICK="true")
    assert main(["config", "show", "--origin", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["settings"]
    found = {(row["verb"], row["key"], row["origin"]): (row["value"], row["counts"]) for row in told}
    assert found["train", "steps", "qualm.toml"] == (2, True)
    assert found["train", "steps", str(os.environ["XDG_CONFIG_HOME"]) + "/qualm/qualm.toml"] == (1, False)
    assert found["audit", "cache", "environment"] == ("e", True)
    assert found["audit", "quick", "environment"] == ("true", True)
    assert main(["config", "show"]) == 0
    told = capsys.readouterr().out
    assert "hidden" not in told
    assert "environment" not in told


def test_names_that_are_not_ours_are_left_alone(sources):
    sources(PORT="tcp://10.0.0.1:80", SERVICE_HOST="10.0.0.1", SHARED="/data")
    assert list(entries(layers(CONFIGURABLE))) == []


def test_the_key_of_one_host_goes_to_no_other(monkeypatch):
    for name in ("QUALM_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    assert models.key_for("https://api.openai.com/v1") == "secret"
    assert models.key_for("https://example.org/v1") == ""
    monkeypatch.setenv("OPENAI_BASE_URL", "https://example.org/v1")
    assert models.key_for("https://example.org/v1") == "secret"
    monkeypatch.setenv("QUALM_KEY", "other")
    assert models.key_for("https://anywhere.org/v1") == "other"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("environment", "stream", "lively"),
    [
        ({}, Terminal(), True),
        ({}, io.StringIO(), False),
        ({"NO_COLOR": "1"}, Terminal(), False),
        ({"TERM": "dumb"}, Terminal(), False),
        ({"CI": "true"}, Terminal(), False),
        ({"FORCE_COLOR": "1"}, io.StringIO(), True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, Terminal(), False),
    ],
)
def test_colour_and_bars_only_where_they_are_welcome(monkeypatch, environment, stream, lively):
    for name in ("NO_COLOR", "FORCE_COLOR", "CI", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_lively(stream) is lively


def test_no_escape_goes_into_a_pipe(qualm):
    assert "\x1b" not in qualm("list").out
    assert "\x1b" not in qualm("audit", "fake:oracle", "--probe", "arithmetic", "--quick").out


def test_progress_is_a_plain_line_now_and_then(monkeypatch, capsys):
    now = 0.0
    monkeypatch.setattr(bars.time, "monotonic", lambda: now)
    with Bar(Common()) as bar:
        for step in range(1, 21):
            bar.update("training", step, 20, f"loss {step}")
            now += 6.0
    assert capsys.readouterr().err.splitlines() == [
        "training 6/20  loss 6  1:10 left",
        "training 11/20  loss 11  0:49 left",
        "training 16/20  loss 16  0:22 left",
        "training 20/20  loss 20  1:54",
    ]


def test_quiet_is_quiet(capsys):
    with Bar(Common(quiet=True)) as bar:
        bar.update("training", 1, 1)
        bar.say("done")
    assert capsys.readouterr() == ("", "")


def test_a_bar_moves_at_a_terminal(monkeypatch):
    screen = Terminal()
    for name in ("NO_COLOR", "CI", "TERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.stderr", screen)
    with Bar(Common()) as bar:
        bar.update("training", 1, 2, "loss 1.0")
        bar.say("a remark")
        bar.update("training", 2, 2, "loss 0.5")
    assert "\x1b" in screen.getvalue()
    assert "a remark" in screen.getvalue()
    assert "loss 0.5" in screen.getvalue()


def test_a_reader_that_leaves_is_no_error():
    command = f"{sys.executable} -m qualm list --json | head -c 20"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.startswith('{\n  "schema"')


@pytest.fixture
def training(notes, tmp_path):
    """Start a training of some hundred steps, and wait until it has learnt something."""
    started = []

    def start():
        words = [sys.executable, "-m", "qualm", "train", str(notes), "-o", "m", *LONG]
        process = subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        started.append(process)
        metrics, patience = tmp_path / "m" / "run" / "metrics.jsonl", time.monotonic() + 120
        seen = len(metrics.read_text().splitlines()) if metrics.exists() else 0
        while not metrics.exists() or len(metrics.read_text().splitlines()) < seen + 3:
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < patience
            time.sleep(0.02)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


STEPS = 400
LONG = [*TRAIN, "--steps", str(STEPS), "--eval-every", "200", "--save-every", "200", "--precision", "fp32"]


def steps_kept(tmp_path):
    return sorted(int(path.name[5:]) for path in (tmp_path / "m" / "run").glob("step-*"))


def ended_by(number, process):
    """What a run said that was sent a signal, and within how many seconds it had saved and ended."""
    began = time.monotonic()
    process.send_signal(number)
    return process.communicate(timeout=60)[1], time.monotonic() - began


def test_ctrl_c_saves_and_sigterm_saves_and_the_run_goes_on_bit_for_bit(training, qualm, notes, tmp_path):
    process = training()
    told, seconds = ended_by(signal.SIGINT, process)
    assert process.returncode == 130
    assert seconds <= 10
    assert "saving, then stopping" in told
    assert "qualm: stopped after step" in told
    assert "Traceback" not in told
    first = steps_kept(tmp_path)[-1]

    process = training()
    told, seconds = ended_by(signal.SIGTERM, process)
    assert process.returncode == 75
    assert seconds <= 10
    assert f"goes on from step {first} of" in told
    assert STEPS > steps_kept(tmp_path)[-1] > first

    for name in ("m", "alone"):
        assert qualm("train", notes, "-o", name, *LONG, "-q").code == 0
    logs = [(tmp_path / name / "run" / "metrics.jsonl").read_text().splitlines() for name in ("m", "alone")]
    rows = [[(r["step"], r["loss"], r["norm"], r.get("validation")) for r in map(json.loads, log)] for log in logs]
    assert rows[0] == rows[1]
    made = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("m", "alone")]
    assert made[0] == made[1]


@pytest.fixture
def heard():
    """Ctrl-C reaches Python, also where the tests were started in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
def test_a_second_ctrl_c_stops_at_once(capsys):
    with pytest.raises(KeyboardInterrupt), Stop() as stop:
        assert not stop()
        signal.raise_signal(signal.SIGINT)
        assert stop()
        signal.raise_signal(signal.SIGINT)
    assert "once more to stop now" in capsys.readouterr().err


def test_only_what_was_asked_for_is_told_as_stopped():
    with pytest.raises(Stopped) as told, Stop():
        raise Stopped("out of time")
    assert type(told.value) is Stopped
    with pytest.raises(Interrupted) as told, Stop():
        signal.raise_signal(signal.SIGINT)
        raise Stopped("saved", where="m", then="run it again")
    assert (told.value.exit_code, str(told.value)) == (130, "m: saved; run it again")


def test_sigterm_where_nothing_is_saved(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "qualm", "chat", "fake:slow"],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdin.write("hello\n")
    process.stdin.flush()
    assert process.stdout.readline()
    process.terminate()
    assert process.wait(timeout=60) == 143
    assert process.stderr.read() == "qualm: terminated\n"
    for pipe in (process.stdin, process.stdout, process.stderr):
        pipe.close()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_made_for_the_shells(qualm, monkeypatch, tmp_path, shell):
    monkeypatch.setenv("HOME", str(tmp_path))
    done = qualm("--install-completion", "--shell", shell)
    assert done.code == 0
    path = Path(done.out.strip())
    assert path.is_relative_to(tmp_path)
    assert "audit" in path.read_text()
