"""lm-eval, pointed at our server, gives each choice the log-likelihood that the model gives it in process."""

import json
import os
import random
import shutil
import subprocess
from itertools import product

import pytest

from qualm.files import write_text
from qualm.mends.apply import load
from qualm.serving.run import background

PROGRAM = shutil.which("lm-eval")
COLOURS = ["red", "blue", "green", "black", "white"]
TASK = """\
task: beasts
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{label}}}}"
doc_to_choice: "{{{{choices}}}}"
target_delimiter: " "
metric_list:
  - metric: acc
"""


def questions(count: int) -> list[dict]:
    every = list(product(["Ana", "Bo", "Cy"], COLOURS, ["cat", "dog", "fox"]))
    found = []
    for name, colour, beast in random.Random(0).sample(every, count):
        text = f"{name} has a {colour} {beast}. The {beast} is"
        found.append({"question": text, "choices": COLOURS, "label": COLOURS.index(colour)})
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(PROGRAM is None, reason="lm-eval is not on the path: pip install 'qualm-lm[eval]'")
@pytest.mark.parametrize("tokens", [True, False])
def test_its_scores_are_those_in_process(tokens, small_model, tmp_path):
    lm, docs = load(small_model), questions(40)
    data = tmp_path / "docs.jsonl"
    write_text(data, "".join(json.dumps(doc) + "\n" for doc in docs))
    write_text(tmp_path / "task" / "beasts.yaml", TASK.format(data=data))
    with background([lm]) as running:
        settings = f"model={lm.name},base_url={running.url}/completions,num_concurrent=4,max_length=512"
        settings += f",tokenizer_backend=huggingface,tokenizer={small_model},tokenized_requests={tokens}"
        words = ["--model", "local-completions", "--model_args", settings, "--tasks", "beasts", "--log_samples"]
        words += ["--include_path", str(tmp_path / "task"), "--output_path", str(tmp_path / "out")]
        away = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home"), "HF_DATASETS_OFFLINE": "1"}
        done = subprocess.run(
            [str(PROGRAM), "run", *words], capture_output=True, text=True, env=clean() | away, check=False
        )
    assert done.returncode == 0, done.stderr[-3000:]
    here = [lm.score([(doc["question"], f" {choice}") for choice in COLOURS]) for doc in docs]
    samples = read(tmp_path / "out")
    assert len(samples) == len(docs)
    for doc, scored in zip(docs, here, strict=True):
        sample = samples[doc["question"]]
        there = [float(each[0][0]) for each in sample["resps"]]
        assert there == pytest.approx([each.total for each in scored], abs=1e-4)
    accuracy = sum(
        max(range(5), key=lambda i: each[i].total) == doc["label"] for doc, each in zip(docs, here, strict=True)
    )
    assert sum(sample["acc"] for sample in samples.values()) == accuracy


def clean() -> dict[str, str]:
    """This process's environment, without the way to our own packages."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "QUALM_", "PYTEST"))}


def read(folder) -> dict[str, dict]:
    (file,) = folder.rglob("samples_*.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return {line["doc"]["question"]: line for line in lines}
