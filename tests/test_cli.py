"""The verbs, on real models and files: what they print where, and what they leave behind."""

import io
import json
import shlex
from pathlib import Path

import pytest

from qualm.cli.app import CONFIGURABLE, VERBS, build
from qualm.cli.train import size_of
from qualm.errors import UsageError

QUICK = ["--quick", "--probe", "arithmetic,perplexity"]


EXAMPLES = [line for _, _, lines in VERBS.values() for line in lines.splitlines()]


@pytest.mark.parametrize("line", EXAMPLES)
def test_the_examples_of_the_help_are_understood(line):
    words = shlex.split(line.rpartition("|")[2])
    assert words.pop(0) == "qualm"
    command, _, _ = build().parse_args(words, exit_on_error=False, print_error=False)
    assert callable(command)
    assert command.__module__ == f"qualm.cli.{words[0]}"


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_explains_itself_with_examples(qualm, verb):
    page = qualm(verb, "-h")
    assert page.code == 0
    assert VERBS[verb][1].split(",")[0] in page.out
    assert all(line in page.out for line in VERBS[verb][2].splitlines())
    assert "--json" in page.out
    assert page.err == ""


def test_without_a_word_there_is_help(qualm):
    done = qualm()
    assert done.code == 0
    assert all(verb in done.out for verb in VERBS)


def test_version(qualm):
    assert qualm("--version").out == qualm("version").out == "qualm 0.1.0\n"


def test_flags_before_the_verb(qualm):
    assert qualm("--json", "list", "models").out == qualm("list", "models", "--json").out


def test_train_prints_the_folder_and_goes_on_where_it_was(qualm, notes):
    words = ["train", notes, "-o", "m", "--size", "30k", "--steps", "4", "--vocab", "300", "--length", "32"]
    first = qualm(*words, "--json")
    told = json.loads(first.out)
    assert (first.code, told["schema"], told["steps"], told["model"]) == (0, "qualm.train/1", 4, "m")
    assert told["loss"] > 0
    again = qualm(*words)
    assert again.out == "m\n"
    assert "goes on from step 4 of 4" in again.err
    assert qualm(*words, "-q").err == ""


@pytest.mark.parametrize(("text", "size"), [("1.2M", 1_200_000), ("300k", 300_000), ("1e6", 10**6), ("tiny", "tiny")])
def test_sizes(text, size):
    assert size_of(text) == size


def test_a_size_that_is_none():
    with pytest.raises(UsageError, match="no number of parameters"):
        size_of("1.2.3M")


def test_generate_prints_the_continuation_alone(qualm, small_model, monkeypatch):
    words = ["--max-tokens", 8, "--temperature", 0.9, "--seed", 4]
    plain = qualm("generate", small_model, "Ana has", *words)
    assert plain.code == 0
    assert plain.err == ""
    told = json.loads(qualm("generate", small_model, "Ana has", *words, "--json").out)
    assert told["text"] + "\n" == plain.out
    assert (told["schema"], told["prompt"], told["tokens"]) == ("qualm.generate/1", "Ana has", 8)
    assert qualm("generate", small_model, "Ana has", *words, "--stream").out == plain.out
    monkeypatch.setattr("sys.stdin", io.StringIO("Ana has\n"))
    assert qualm("generate", small_model, *words).out == plain.out


def test_a_prompt_too_long_is_refused_when_it_stands_alone(qualm, small_model):
    long = "Ana has a cat. " * 200
    for words in (["generate", small_model, long], ["generate", small_model, long, "--stream"]):
        done = qualm(*words)
        assert (done.code, done.out) == (1, "")
        assert "can look at 512" in done.err
        assert "shorten the prompt" in done.err


def test_a_stream_of_json_is_a_document_a_line(qualm, small_model):
    done = qualm("generate", small_model, "Ana has", "--max-tokens", 8, "--stream", "--json")
    pieces = [json.loads(line)["text"] for line in done.out.splitlines()]
    assert len(pieces) > 1
    assert "".join(pieces) + "\n" == qualm("generate", small_model, "Ana has", "--max-tokens", 8).out


def test_stop_ends_before_the_word(qualm, small_model):
    whole = qualm("generate", small_model, "Ana has", "--max-tokens", 12).out
    stop = whole.strip()[3:5]
    assert (
        qualm("generate", small_model, "Ana has", "--max-tokens", 12, "--stop", stop).out
        == whole.partition(stop)[0] + "\n"
    )


def test_chat_keeps_what_was_said_until_told_to_forget(qualm, monkeypatch):
    seen = []

    class Parrot:
        name = "parrot"

        def stream(self, said, sampling):
            seen.append([turn["content"] for turn in said])
            yield from (said[-1]["content"], "!")

    monkeypatch.setattr("qualm.cli.chat.load", lambda spec, common: Parrot())
    monkeypatch.setattr("sys.stdin", io.StringIO("one\n\ntwo\n/new\nthree\n/exit\nfour\n"))
    done = qualm("chat", "parrot", "--system", "be brief")
    assert done.out == "one!\ntwo!\nthree!\n"
    assert seen == [["be brief", "one"], ["be brief", "one", "one!", "two"], ["be brief", "three"]]


def test_chat_answers_one_question(qualm):
    told = json.loads(qualm("chat", "fake:oracle", "-p", "What is 23 + 45?", "--json").out)
    assert told["schema"] == "qualm.chat/1"
    assert told["answer"].strip()
    assert qualm("chat", "fake:oracle", "-p", "What is 23 + 45?").out == told["answer"] + "\n"


def test_list_names_what_the_folders_hold(qualm):
    told = json.loads(qualm("list", "--json").out)
    assert {"knowledge", "bias", "cost"} <= {thing["name"] for thing in told["probes"]}
    assert {"retrieval", "quantize"} <= {thing["name"] for thing in told["mends"]}
    assert all(thing["about"] for kind in ("probes", "mends", "models", "plants") for thing in told[kind])
    assert "retrieval" in qualm("list", "mends").out


def test_list_says_what_models_can_and_read(qualm):
    told = {thing["name"]: thing for thing in json.loads(qualm("list", "models", "--json").out)["models"]}
    assert told["llama"]["can"] == ["generate", "score"]
    assert {"mistral", "qwen3", "olmo2"} <= set(told["llama"]["model_types"])
    assert {"classify", "embed", "fill", "tag"} <= set(told["bert"]["can"])
    assert all(thing["can"] and thing["model_types"] for thing in told.values())
    assert "can" not in {key for thing in json.loads(qualm("list", "probes", "--json").out)["probes"] for key in thing}
    shown = qualm("list", "models").out
    assert "olmo2" in shown
    assert "needs" not in shown


def test_doctor_finds_this_machine_fit(qualm):
    done = qualm("doctor", "--json")
    told = json.loads(done.out)
    assert done.code == 0
    assert told["ok"]
    assert {"python", "torch", "torch threads", "cache"} <= {finding["name"] for finding in told["findings"]}


def test_doctor_says_what_to_do_about_a_cache_that_cannot_be_written(qualm, tmp_path):
    (tmp_path / "file").write_text("")
    done = qualm("doctor", "--cache", tmp_path / "file" / "cache")
    assert done.code == 1
    assert "MEND" in done.out
    assert "QUALM_CACHE" in done.out


def test_an_audit_leaves_a_record_and_a_page(qualm, small_model):
    done = qualm("audit", small_model, *QUICK, "-o", "made")
    assert done.code == 0
    assert "Arithmetic" in done.out
    assert "report: made/report.html" in done.err
    record = json.loads(Path("made/record.json").read_text())
    told = json.loads(qualm("audit", small_model, *QUICK, "--json").out)
    assert [m["reading"] for m in told["measurements"]] == [m["reading"] for m in record["measurements"]]
    assert "<html" in Path("made/report.html").read_text()


def test_quick_and_n_set_the_number_of_cases(qualm):
    def cases(*words):
        told = json.loads(qualm("audit", "fake:oracle", "--probe", "arithmetic", "--json", *words).out)
        return told["measurements"][0]["settings"]["n"]

    assert cases("--n", 12) == 12
    assert cases("--quick") < cases()
    assert cases("--quick", "-n", 12) == 12


def test_a_model_compared_with_itself_is_no_worse(qualm):
    for name in ("a", "b"):
        assert qualm("audit", "fake:oracle", *QUICK, "-o", name, "-q").code == 0
    done = qualm("compare", "a", "b", "--fail-on", "worse")
    assert done.code == 0
    assert "cannot tell" in done.out


def test_the_gate_closes_on_what_got_worse(qualm):
    for name in ("oracle", "innumerate"):
        assert qualm("audit", f"fake:{name}", "--probe", "arithmetic", "-o", name, "-q").code == 0
    done = qualm("compare", "oracle", "innumerate", "--fail-on", "worse", "--json", "-o", "compared")
    assert done.code == 3
    assert [change["verdict"] for change in json.loads(done.out)["changes"]] == ["worse"]
    assert "worse: arithmetic" in done.err
    assert qualm("compare", "oracle", "innumerate").code == 0
    assert qualm("compare", "innumerate", "oracle", "--fail-on", "worse").code == 0


def test_a_mend_is_proved_saved_and_used(qualm, small_model, tmp_path):
    (tmp_path / "facts.jsonl").write_text('{"text": "The owl of Velwick is green."}\n')
    words = ["mend", small_model, "--with", "retrieval", "--docs", "facts.jsonl", "--k", 1, "-o", "mended", *QUICK]
    done = qualm(*words, "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["schema"] == "qualm.proof/1"
    assert told["mend"]["settings"]["k"] == 1
    assert {change["name"] for change in told["changes"]} == {"arithmetic", "perplexity"}
    assert json.loads(Path("mended/proof/record.json").read_text())["changes"] == told["changes"]
    answer = json.loads(qualm("chat", "mended", "-p", "Who is the owl of Velwick?", "--json").out)
    assert answer["model"].endswith("+retrieval")
    refused = qualm(*words)
    assert refused.code == 2
    assert "is not empty; name another folder, or add --force" in refused.err
    assert qualm(*words, "--force", "-q").code == 0


def test_a_setting_that_is_also_a_flag_goes_through_set(qualm, small_model, tmp_path):
    (tmp_path / "people.txt").write_text("He is a nurse and she is a smith.\n")
    words = ["mend", small_model, "--with", "counterfactual", "--docs", "people.txt", "--steps", 1, "--replay", 0]
    done = qualm(*words, "--probe", "perplexity", "-n", 4, "--set", "seed=7", "-o", "out", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["mend"]["settings"]["seed"] == 7


def test_the_settable_verbs_are_verbs():
    assert set(VERBS) > CONFIGURABLE
