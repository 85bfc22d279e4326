"""`qualm tokens`: what it writes, prints and refuses."""

import json


def test_learn_measure_and_extend(qualm, notes, small_model, tmp_path):
    done = qualm("tokens", "train", notes, "-o", "u", "--kind", "unigram", "--vocab", 400)
    assert (done.code, done.out) == (0, "u\n")
    done = qualm("tokens", "measure", "u", small_model, "--text", notes, "--json")
    told = json.loads(done.out)
    assert told["schema"] == "qualm.tokens.measure/1"
    assert [each["name"] for each in told["tokenizers"]] == ["u", str(small_model)]
    assert all(each["unknown"] == 0 and len(each["premiums"]) > 200 for each in told["tokenizers"])
    (tmp_path / "words.txt").write_text("photosynthesis\n量子力学\n", encoding="utf-8")
    done = qualm(
        "tokens", "extend", small_model, "--add", "words.txt", "-o", "more", "--text", notes / "0.txt", "--json"
    )
    told = json.loads(done.out)
    assert done.code == 0
    assert list(told["words"]) == ["photosynthesis", "量子力学"]
    assert told["held_out"][0]["after"] > 0
    assert "train the model on" in done.err
    assert qualm("generate", "more", "Ana has", "--max-tokens", 4).code == 0


def test_what_is_refused(qualm, notes, small_model, tmp_path):
    (tmp_path / "empty.txt").write_text("\n")
    for words, code, what in (
        (["train", notes, "-o", "u", "--vocab", 20], 2, "ask for at least"),
        (["train", notes], 2, "needs a folder"),
        (["train", notes, "-o", "u", "--count", 5], 2, "a setting of extend"),
        (["measure"], 2, "names nothing"),
        (["measure", "nowhere"], 4, "no such file"),
        (["measure", "fake:oracle"], 1, "made up"),
        (["measure", small_model, "-o", "x"], 2, "writes nothing"),
        (["extend", small_model, "-o", "x"], 2, "--add WORDS"),
        (["extend", small_model, "-o", "x", "--add", "empty.txt"], 4, "holds no words"),
        (["extend", small_model, "-o", small_model, "--add", "empty.txt"], 2, "is not empty"),
    ):
        done = qualm("tokens", *words)
        assert (done.code, what in done.err) == (code, True), done.err
