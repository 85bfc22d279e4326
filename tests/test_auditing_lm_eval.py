"""Files of lm-eval's --log_samples are read as audits, and two of them compared."""

import json
import math

import pytest

from qualm.auditing import record
from qualm.auditing.prove import compare
from qualm.errors import InputError, Unsupported

TIME = "2025-03-01T10-20-30.123456"


def choice(i, right, **more):
    """A document of a multiple-choice task, as arc_easy has them."""
    scores = [[-1.0, True], [-5.0, False]] if right == (i % 2 == 0) else [[-5.0, False], [-1.0, True]]
    return {
        "doc_id": i,
        "doc": {"question": f"Which of {i}?", "choices": ["yes", "no"]},
        "target": 0 if i % 2 == 0 else 1,
        "arguments": {
            "gen_args_0": {"arg_0": f"Question: Which of {i}?\nAnswer:", "arg_1": " yes"},
            "gen_args_1": {"arg_0": f"Question: Which of {i}?\nAnswer:", "arg_1": " no"},
        },
        "resps": [[score] for score in scores],
        "filtered_resps": scores,
        "filter": "none",
        "metrics": ["acc", "acc_norm"],
        "doc_hash": f"{i:064x}",
        "prompt_hash": "0" * 64,
        "target_hash": "0" * 64,
        "acc": float(right),
        "acc_norm": 1.0,
        **more,
    }


def written(i, right, kind):
    """A document of a generation task with two filters, as gsm8k has them."""
    return {
        "doc_id": i,
        "doc": {"question": f"How many {i}?"},
        "target": f"{i}",
        "arguments": [[f"Q: How many {i}?", {"until": ["\n"]}]],
        "resps": [[f"It is {i}"]],
        "filtered_resps": [f"{i}" if right else "[invalid]"],
        "filter": kind,
        "doc_hash": f"{i:064x}",
        "exact_match": right,
    }


def text(i, nats):
    return {
        "doc_id": i,
        "doc": {"page": f"text {i}"},
        "target": "",
        "arguments": [[f"text {i}"]],
        "filtered_resps": [-nats],
        "metrics": ["word_perplexity", "byte_perplexity", "bits_per_byte"],
        "word_perplexity": [-nats, 10],
        "byte_perplexity": [-nats, 50 + i],
        "bits_per_byte": [-nats, 50 + i],
    }


def write(folder, task, lines, time=TIME):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (f"samples_{task}_{time}.jsonl" if time else f"samples_{task}.jsonl")
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_accuracy_is_read_with_its_interval_and_its_answers(tmp_path):
    path = write(tmp_path, "arc_easy", [choice(i, i % 4 > 0) for i in range(100)])
    made = record.read_audit(path)
    assert [m.name for m in made.measurements] == ["arc_easy/acc", "arc_easy/acc_norm"]
    read = made["arc_easy/acc"]
    assert (read.reading.value, read.reading.n, read.reading.method) == (0.75, 100, "wilson")
    assert (read.probe.better, read.probe.unit) == ("high", "share")
    assert (read.cases[0].target, read.cases[1].target) == (" yes", " no")
    assert (read.rows[0]["answer"], read.rows[2]["answer"]) == (" no", " yes")
    assert made["arc_easy/acc_norm"].reading.low < 1, "all right is no certainty"


def test_two_models_are_compared_by_document(tmp_path):
    before = write(tmp_path / "a", "arc_easy", [choice(i, i % 2 == 0) for i in range(120)])
    after = write(tmp_path / "b", "arc_easy", [choice(i, i % 2 == 0 or i % 4 == 1) for i in reversed(range(120))])
    change = compare(before, after)["arc_easy/acc"]
    assert change.verdict == "better"
    assert (change.fixed, change.broken, change.n, change.test) == (30, 0, 120, "mcnemar")
    assert compare(before, before)["arc_easy/acc"].verdict == "cannot tell"
    assert compare(after, before)["arc_easy/acc"].verdict == "worse"


def test_another_prompt_for_the_same_document_may_be_compared_another_document_not(tmp_path):
    lines = [choice(i, True) for i in range(20)]
    before = write(tmp_path / "a", "t", lines)
    templated = [{**line, "arguments": [["<|user|> ...", " yes"], ["<|user|> ...", " no"]]} for line in lines]
    assert compare(before, write(tmp_path / "b", "t", templated))["t/acc"].n == 20
    other = [{**line, "doc": {"question": "another"}} for line in lines]
    with pytest.raises(InputError, match=r"case '0' of t/acc asks different things"):
        compare(before, write(tmp_path / "c", "t", other))


def test_filters_of_the_answers_are_measurements_of_their_own(tmp_path):
    lines = [written(i, i % 3 == 0, "strict-match") for i in range(30)]
    lines += [written(i, True, "flexible-extract") for i in range(30)]
    made = record.read_audit(write(tmp_path, "gsm8k", lines))
    assert [m.name for m in made.measurements] == [
        "gsm8k/exact_match,strict-match",
        "gsm8k/exact_match,flexible-extract",
    ]
    assert made["gsm8k/exact_match,strict-match"].value == pytest.approx(1 / 3)
    assert made["gsm8k/exact_match,strict-match"].rows[1]["answer"] == "[invalid]"


def test_perplexities_are_recomputed_from_sums(tmp_path):
    nats = [30.0 + i % 7 for i in range(40)]
    made = record.read_audit(write(tmp_path, "wikitext", [text(i, n) for i, n in enumerate(nats)]))
    size = sum(50 + i for i in range(40))
    assert made["wikitext/bits_per_byte"].value == pytest.approx(sum(nats) / size / math.log(2))
    assert made["wikitext/byte_perplexity"].value == pytest.approx(math.exp(sum(nats) / size))
    assert made["wikitext/word_perplexity"].value == pytest.approx(math.exp(sum(nats) / 400))
    assert made["wikitext/bits_per_byte"].probe.better == "low"
    worse = write(tmp_path / "b", "wikitext", [text(i, n + 3) for i, n in enumerate(nats)])
    assert compare(tmp_path, worse)["wikitext/bits_per_byte"].verdict == "worse"


def test_a_metric_without_a_number_a_document_is_not_measured(tmp_path):
    lines = [{**choice(i, True), "metrics": ["acc", "bleu"], "bleu": ["a reference", "a guess"]} for i in range(20)]
    made = record.read_audit(write(tmp_path, "wmt", lines))["wmt/bleu"]
    assert made.reading is None
    assert "no number a document" in made.why


def test_a_folder_is_its_newest_files_and_the_results_beside_them(tmp_path):
    write(tmp_path, "arc_easy", [choice(i, False) for i in range(20)], "2024-01-01T00-00-00.000001")
    write(tmp_path, "arc_easy", [choice(i, True) for i in range(20)])
    write(tmp_path, "odd", [{**choice(i, True), "metrics": ["loss"], "loss": i % 5} for i in range(20)])
    results = {"model_name": "org/model", "lm_eval_version": "0.4.9", "higher_is_better": {"odd": {"loss": False}}}
    (tmp_path / f"results_{TIME}.json").write_text(json.dumps(results))
    made = record.read_audit(tmp_path)
    assert made.subject == "org/model"
    assert made["arc_easy/acc"].value == 1
    assert made["odd/loss"].probe.better == "low"


def test_what_was_read_can_be_saved_and_compared_again(tmp_path):
    made = record.read_audit(write(tmp_path / "a", "arc_easy", [choice(i, i % 3 > 0) for i in range(60)]))
    record.save(made, tmp_path / "saved")
    again = record.read_audit(tmp_path / "saved")
    assert again == made
    proof = compare(tmp_path / "a", tmp_path / "saved")
    record.save(proof, tmp_path / "proof")
    assert record.read(tmp_path / "proof") == proof


def test_a_metric_that_was_read_cannot_be_put(tmp_path):
    made = record.read_audit(write(tmp_path, "arc_easy", [choice(i, True) for i in range(20)]))
    with pytest.raises(Unsupported, match="read from a file of lm-eval"):
        made["arc_easy/acc"].probe.cases()


def test_files_of_older_versions_name_no_metrics(tmp_path):
    lines = [{k: v for k, v in choice(i, True).items() if k != "metrics"} for i in range(20)]
    made = record.read_audit(write(tmp_path, "arc_easy", lines, time=""))
    assert [m.name for m in made.measurements] == ["arc_easy/acc", "arc_easy/acc_norm"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "a damaged line"),
        ('{"doc_id": 1, "acc": 1.0}\n{"doc', r"samples_x\.jsonl:2: a damaged line"),
        ('{"text": "a corpus"}\n', "no doc_id"),
        ("[1, 2]\n", "no document of lm-eval"),
        ('{"doc_id": 1, "acc": 1.0}\n{"doc_id": 1, "acc": 1.0}\n', "stands there twice"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, content, said):
    path = tmp_path / "samples_x.jsonl"
    path.write_text(content)
    with pytest.raises(InputError, match=said):
        record.read_audit(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        record.read_audit(tmp_path / "samples_x.jsonl")
