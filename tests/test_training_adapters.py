"""Adapters: LoRA and DoRA compute what peft does, both ways; merging changes nothing; bases are shared, not copied."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
)

import qualm
from qualm.errors import InputError, Stopped, UsageError
from qualm.lm.base import Sampling
from qualm.lm.causal import CausalLM
from qualm.lm.encoder import EncoderLM
from qualm.lm.seq2seq import Seq2SeqLM
from qualm.mends.apply import mend
from qualm.models._adapter_files import CONFIG, WEIGHTS, write_adapter
from qualm.models._adapters import adapted_layers, is_adapted, merged
from qualm.models.store import parameters, weights_hash
from qualm.teaching import Tuning, base_of, tune
from qualm.training.adapters import adapt
from qualm.training.loop import Hooks
from qualm.training.recipe import Lora
from qualm.training.settings import TuneSettings
from qualm.training.size import build
from test_tuning import reviews, written
from tiny import tiny_tokens

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # what peft asks for

KINDS = {"gpt": CausalLM, "llama": CausalLM, "bert": EncoderLM, "t5": Seq2SeqLM, "marian": Seq2SeqLM}
THEIRS = {"bert": AutoModelForMaskedLM, "t5": AutoModelForSeq2SeqLM, "marian": AutoModelForSeq2SeqLM}
FAST = TuneSettings(steps=12, batch=8, lr=1e-2, threads=1, eval_every=6, save_every=3)


def made(family: str, folder: Path):
    """A random model of a family in a folder, loaded from there."""
    tokens = tiny_tokens()
    ids = {"bos_token_id": tokens.bos_id, "eos_token_id": tokens.eos_id, "pad_token_id": tokens.pad_id}
    if family in ("t5", "marian"):
        ids["pad_token_id"] = ids["decoder_start_token_id"] = 1
    model = build(family, 2, tokens.vocab_size, 64, 0, **ids)
    KINDS[family](model, tokens, name=family).save(folder)
    return qualm.load(folder)


def shaken(model):
    """Its adapters, and what else may change, away from where they start."""
    source = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in (p for p in model.parameters() if p.requires_grad):
            weight += 0.05 * torch.randn(weight.shape, generator=source)
    return model.eval()


IDS = torch.randint(20, 400, (2, 9), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def logits(model):
    if "source" in model.forward.__code__.co_varnames:
        return model(IDS, IDS[:, :5])
    return model(IDS)


@torch.no_grad()
def theirs(model, family):
    if family in ("t5", "marian"):
        return model(input_ids=IDS, decoder_input_ids=IDS[:, :5]).logits
    return model(input_ids=IDS).logits


def apart(a, b) -> float:
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("family", sorted(KINDS))
def test_peft_reads_what_is_written_and_the_other_way_round(family, dora, tmp_path):
    peft = pytest.importorskip("peft")
    lm = made(family, tmp_path / "base")
    model = shaken(adapt(lm.model, Lora(3, alpha=5.0, dora=dora)))
    write_adapter(model, base_of(lm), tmp_path / "adapter", {"name": "adapter"})
    plain = THEIRS.get(family, AutoModelForCausalLM).from_pretrained(tmp_path / "base").eval()
    assert apart(logits(model), theirs(plain, family)) > 1e-2
    read = peft.PeftModel.from_pretrained(plain, tmp_path / "adapter").eval()
    assert apart(theirs(read, family), logits(model)) < 1e-5
    assert apart(logits(qualm.load(tmp_path / "adapter").model), logits(model)) < 1e-6
    assert apart(logits(merged(model)), logits(model)) < 1e-5
    shaken(read.train())
    for weight in (w for name, w in read.named_parameters() if "lora_" in name):
        weight.data += 0.01
    read.eval().save_pretrained(tmp_path / "again")
    assert apart(logits(qualm.load(tmp_path / "again").model), theirs(read, family)) < 1e-5


def test_an_adapter_with_a_new_head_is_read_by_peft(tmp_path):
    peft = pytest.importorskip("peft")
    made("bert", tmp_path / "base")
    rows = written(tmp_path, reviews(40))
    tune(qualm.load(tmp_path / "base"), rows, tmp_path / "out", Tuning("classify", lora=4, train=FAST))
    lm = qualm.load(tmp_path / "out")
    assert lm.can >= {"classify"}
    assert set(lm.classify(["a kind day"])[0]) == {"+", "-"}
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=2)
    read = peft.PeftModel.from_pretrained(plain, tmp_path / "out").eval()
    assert apart(theirs(read, "bert"), logits(lm.model)) < 1e-5
    read.save_pretrained(tmp_path / "theirs")  # which knows nothing of our labels' names
    assert apart(logits(qualm.load(tmp_path / "theirs").model), logits(lm.model)) < 1e-6


def test_an_adapter_starts_from_what_the_model_does_and_leaves_it_alone(tmp_path):
    lm = made("llama", tmp_path / "base")
    before, model = weights_hash(lm.model), adapt(lm.model, Lora(4, dora=True))
    assert apart(logits(model), logits(lm.model)) < 1e-6
    free = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert free
    assert all("lora_" in name for name in free)
    assert all(weight.requires_grad for weight in lm.model.parameters())
    shaken(model)
    assert weights_hash(lm.model) == before
    assert not is_adapted(lm.model)


def test_many_adapters_share_one_base(tmp_path):
    lm = made("llama", tmp_path / "base")
    for name in ("one", "two"):
        seed = 1 if name == "one" else 2
        write_adapter(shaken(adapt(lm.model, Lora(4), seed=seed)), base_of(lm), tmp_path / name, {})
    one, two = (lm.adapted(tmp_path / name) for name in ("one", "two"))
    places = [{p.data_ptr() for n, p in each.model.named_parameters() if "lora_" not in n} for each in (lm, one, two)]
    assert places[0] == places[1] == places[2]
    said = [each.generate(["The quick"], Sampling(max_tokens=8))[0].text for each in (lm, one, two)]
    assert len(set(said)) == 3
    assert len({each.card.hash for each in (lm, one, two, qualm.load(tmp_path / "one"))}) == 3
    extra = sum(p.numel() for n, p in one.model.named_parameters() if "lora_" in n)
    assert one.card.parameters == lm.card.parameters + extra == parameters(lm.model) + extra


def test_alpha_is_part_of_what_an_adapter_is(tmp_path):
    lm = made("gpt", tmp_path / "base")
    a, b = (weights_hash(shaken(adapt(lm.model, Lora(4, alpha=alpha)))) for alpha in (4.0, 8.0))
    assert a != b


# -- tuning


def test_tuning_an_adapter_and_merging_it_come_to_the_same(tmp_path):
    lm = made("gpt", tmp_path / "base")
    rows = written(tmp_path, [{"prompt": row["text"], "completion": " " + row["label"]} for row in reviews(40)])
    tuning = Tuning("seq2seq", lora=4, targets=("c_attn", "c_fc"), train=FAST)
    tune(lm, rows, tmp_path / "adapter", tuning)
    tune(lm, rows, tmp_path / "whole", replace(tuning, merge=True))
    adapter, whole = (qualm.load(tmp_path / name) for name in ("adapter", "whole"))
    assert {name.rpartition(".")[2] for name in adapted_layers(adapter.model)} == {"c_attn", "c_fc"}
    assert not is_adapted(whole.model)
    assert apart(logits(whole.model), logits(adapter.model)) < 1e-5
    assert apart(logits(whole.model), logits(lm.model)) > 1e-3
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "adapter").iterdir() if path.is_file()}
    assert set(sizes) - {"training.html"} == {CONFIG, WEIGHTS, "qualm.json"}
    checkpoint = max((tmp_path / "adapter" / "run").glob("step-*")) / "model.safetensors"
    assert all("lora_" in name for name in load_file(checkpoint))  # the frozen base is not written each time
    qualm.export(adapter, tmp_path / "exported")
    assert apart(logits(qualm.load(tmp_path / "exported").model), logits(adapter.model)) < 1e-5
    cooled = mend(adapter, "quantize", output=tmp_path / "small")
    assert qualm.load(tmp_path / "small").card.hash == cooled.card.hash


@pytest.mark.parametrize(("family", "task"), [("bert", "classify"), ("llama", "seq2seq")])
def test_a_stopped_adapter_goes_on_bit_for_bit(family, task, tmp_path):
    lm = made(family, tmp_path / "base")
    rows = reviews(60)
    rows = rows if task == "classify" else [{"prompt": r["text"], "completion": r["label"]} for r in rows]
    rows, tuning = written(tmp_path, rows), Tuning(task, lora=4, dora=True, train=FAST)
    tune(lm, rows, tmp_path / "whole", tuning)
    for stop in (4, 3):
        stops = iter([False] * (stop - 1) + [True])
        with pytest.raises(Stopped):
            tune(lm, rows, tmp_path / "cut", tuning, Hooks(should_stop=lambda stops=stops: next(stops)))
    tune(lm, rows, tmp_path / "cut", tuning)
    first, second = (load_file(tmp_path / name / WEIGHTS) for name in ("whole", "cut"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    with pytest.raises(InputError, match=r"data.lora was '4' and is now '2'"):
        tune(lm, rows, tmp_path / "cut", replace(tuning, lora=2))


# -- what cannot be


def test_ranks_and_targets_that_cannot_be(tmp_path):
    model = made("llama", tmp_path / "base").model
    with pytest.raises(UsageError, match=r"rank 65 is beyond that of model.layers.0.self_attn.q_proj, 64"):
        adapt(model, Lora(65))
    with pytest.raises(UsageError, match=r"targets: .*'q_prj'; did you mean 'q_proj'\?"):
        adapt(model, Lora(4, targets=("v_proj", "q_prj")))
    with pytest.raises(UsageError, match=r"'lm_head'"):  # it shares the embeddings' weights
        adapt(model, Lora(4, targets=("lm_head",)))
    with pytest.raises(UsageError, match=r"share their weights; leave out --lora"):
        adapt(build("rnn", 2, 480, 16), Lora(4))
    for wrong in ({"alpha": 3.0}, {"dora": True}, {"merge": True}):
        with pytest.raises(UsageError, match="none is asked for; say --lora 8"):
            Tuning("classify", **wrong)
    with pytest.raises(UsageError, match="lora: must be above 0, not -1"):
        Tuning("classify", lora=-1)


@pytest.fixture
def adapter(tmp_path):
    lm = made("llama", tmp_path / "base")
    write_adapter(shaken(adapt(lm.model, Lora(4))), base_of(lm), tmp_path / "adapter", {})
    return tmp_path / "adapter"


def test_an_adapter_of_another_base_is_refused_with_both_named(adapter, tmp_path):
    other = CausalLM(build("llama", 2, tiny_tokens().vocab_size, 64, seed=9), tiny_tokens(), name="other")
    with pytest.raises(InputError, match=r"is for .*base \(weights \w{12}\), and other is another model \(weights"):
        other.adapted(adapter)
    shutil.rmtree(tmp_path / "base")
    with pytest.raises(InputError, match=r"its base model .*base cannot be used: .*; put it back"):
        qualm.load(adapter)
    other.save(tmp_path / "base")
    with pytest.raises(InputError, match="another model"):
        qualm.load(adapter)


def test_an_adapter_moves_with_its_base(adapter, tmp_path):
    before = qualm.load(adapter).card.hash
    (tmp_path / "new").mkdir()
    for name in ("base", "adapter"):
        shutil.move(tmp_path / name, tmp_path / "new" / name)
    assert qualm.load(tmp_path / "new" / "adapter").card.hash == before


def test_damaged_adapters_are_refused(adapter):
    whole = (adapter / WEIGHTS).read_bytes()
    (adapter / WEIGHTS).write_bytes(whole[:-50])
    with pytest.raises(InputError, match="cut off: at least 50 bytes"):
        qualm.load(adapter)
    (adapter / WEIGHTS).write_bytes(whole)
    good = load_file(adapter / WEIGHTS)
    name = next(iter(sorted(good)))
    for change, said in (
        ({name: None}, "is missing|is not known"),
        ({name: good[name][:, :-1].clone()}, r"is \[4, 255\], and not \[4, 256\]"),
        ({name: good[name] * float("nan")}, "holds NaN"),
        ({"base_model.model.other.weight": good[name].clone()}, "'other.weight' is not known"),
        ({"base_model.model.model.norm.lora_A.weight": good[name].clone()}, "model.norm is no linear layer"),
    ):
        tensors = {key: tensor for key, tensor in {**good, **change}.items() if tensor is not None}
        save_file(tensors, adapter / WEIGHTS)
        with pytest.raises(InputError, match=said):
            qualm.load(adapter)
    (adapter / WEIGHTS).unlink()
    with pytest.raises(InputError, match=f"holds no {WEIGHTS}"):
        qualm.load(adapter)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("peft_type", "IA3", "peft_type 'IA3' is not known"),
        ("r", 0, "no numbers above 0"),
        ("lora_alpha", "x", "no numbers above 0"),
        ("bias", "all", "bias = 'all' is not implemented"),
        ("alpha_pattern", {"q": 3}, "alpha_pattern = "),
        ("init_lora_weights", "pissa_niter_4", "init_lora_weights = "),
    ],
)
def test_adapters_of_other_kinds_are_refused(adapter, key, value, said):
    config = json.loads((adapter / CONFIG).read_text())
    (adapter / CONFIG).write_text(json.dumps({**config, key: value}))
    with pytest.raises(InputError, match=said):
        qualm.load(adapter)


def test_an_adapter_on_an_adapter_needs_a_whole_model_first(adapter, tmp_path):
    rows = written(tmp_path, [{"prompt": row["text"], "completion": row["label"]} for row in reviews(30)])
    with pytest.raises(UsageError, match=r"qualm export MODEL -o FOLDER\), or say --merge"):
        tune(qualm.load(adapter), rows, tmp_path / "out", Tuning("seq2seq", lora=2, train=FAST))
    tune(qualm.load(adapter), rows, tmp_path / "out2", Tuning("seq2seq", lora=2, merge=True, train=FAST))
    assert not is_adapted(qualm.load(tmp_path / "out2").model)


def test_requests_by_turns_have_the_answer_of_their_own_adapter(tmp_path):
    lm = made("llama", tmp_path / "base")
    for seed in (1, 2, 3):
        model = shaken(adapt(lm.model, Lora(4), seed=seed))
        for weight in (w for n, w in model.named_parameters() if "lora_" in n):
            weight.data *= seed
        write_adapter(model, base_of(lm), tmp_path / str(seed), {})
    prompts, sampling = ["The quick", "one apple", "who is"], Sampling(max_tokens=6)
    alone = {seed: [a.text for a in qualm.load(tmp_path / str(seed)).generate(prompts, sampling)] for seed in (1, 2, 3)}
    on_base = {seed: lm.adapted(tmp_path / str(seed)) for seed in (1, 2, 3)}
    plain = [answer.text for answer in lm.generate(prompts, sampling)]
    for place, seed in ((0, 1), (1, 3), (0, 2), (2, 1), (1, 2), (0, 3), (2, 3), (2, 2), (1, 1)):
        assert on_base[seed].generate([prompts[place]], sampling)[0].text == alone[seed][place]
    assert [answer.text for answer in lm.generate(prompts, sampling)] == plain
    assert len({tuple(said) for said in (*alone.values(), plain)}) == 4
