"""A model that can learn can learn one batch by heart; what it computes, and its losses, are the reference's."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM

from qualm.models._adapter_files import write_adapter
from qualm.models._adapters import adapted_layers
from qualm.models.base import Decoder, Encoder
from qualm.teaching import base_of
from qualm.training.adapters import adapt
from qualm.training.data import IGNORE, Batch, TensorRows
from qualm.training.loop import Hooks, fit
from qualm.training.losses import Seq2Seq, causal, masked
from qualm.training.recipe import Lora
from qualm.training.settings import TrainSettings
from qualm.training.size import build, with_keys
from qualm.training.size import made as made_of
from test_training_adapters import IDS, KINDS, THEIRS, logits, made, shaken, theirs

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # what peft asks for
FAST = TrainSettings(steps=150, batch=4, lr=1e-2, threads=1, precision="fp32", schedule="constant", weight_decay=0)
VOCAB, ROWS = 64, 4


class One(TensorRows):
    """One batch: ids and what is to be said of them, which no rule tells."""

    def batch(self, rows, epochs):
        ids = self.rows[torch.from_numpy(rows)]
        asked = torch.arange(ids.shape[1]) % 3 == 1
        return Batch(ids=ids.masked_fill(asked, 3), labels=torch.where(asked, ids, IGNORE))


def ids(seed: int = 0) -> torch.Tensor:
    return torch.randint(4, VOCAB, (ROWS, 13), generator=torch.Generator().manual_seed(seed))


def model_of(family: str, depth: int = 1):
    special = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
    special |= {"decoder_start_token_id": 0} if family in ("t5", "marian") else {}
    return build(family, depth, VOCAB, 16, 0, **special)


@pytest.mark.parametrize("family", ["gpt", "llama", "bert", "t5", "rnn"])
def test_one_batch_is_learnt_by_heart(family):
    """Dropout off; `rnn` is an LSTM."""
    model = model_of(family)
    model = made_of(family, with_keys(model.config, dict.fromkeys(dropouts(model.config), "0.0")), 0)
    if isinstance(model, Encoder):
        rows, loss = One(ids()), masked
    elif isinstance(model, Decoder):
        rows, loss = TensorRows(ids()), causal
    else:
        rows, loss = One(ids()), Seq2Seq()
    steps, rate = {"rnn": (400, 1e-2), "t5": (400, 5e-3)}.get(family, (150, 1e-2))  # a T5 does not settle at 1e-2
    result = fit(model, rows, loss, replace(FAST, steps=steps, lr=rate))
    assert result.loss < 0.01


def dropouts(config) -> list[str]:
    return [name for name in vars(config) if "dropout" in name or name.endswith("pdrop")]


def test_an_adapter_of_full_rank_can_be_any_change_of_the_weights():
    """A model whose matrices were changed at random, and the one it was with adapters of full rank."""
    model, changed = model_of("llama"), model_of("llama")
    rank = min(min(p.shape) for name, p in model.named_parameters() if "proj" in name)
    adapted, source = adapt(model, Lora(rank, alpha=float(rank))), torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, layer in adapted_layers(adapted).items():
            matrix = changed.get_submodule(name).weight
            left, right = (torch.randn(n, rank, generator=source) / rank for n in matrix.shape)
            matrix += left @ right.T
            layer.lora_A.weight.copy_(right.T)
            layer.lora_B.weight.copy_(left)
        assert float((adapted(ids()) - changed(ids())).abs().max()) <= 1e-5
        assert float((adapted(ids()) - model(ids())).abs().max()) > 0.1


def test_an_adapter_of_full_rank_learns_two_rows_by_heart():
    """With larger logits: else the weights that stay, embeddings and norms, bound how sure the model can be."""
    model = model_of("llama")
    model.scale_logits(4.0)
    before = [weight.clone() for weight in model.parameters()]
    rank = min(min(p.shape) for name, p in model.named_parameters() if "proj" in name)
    rows = TensorRows(ids(seed=1)[:2])
    assert fit(adapt(model, Lora(rank)), rows, causal, replace(FAST, batch=2)).loss < 0.01
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


# -- the reference


@pytest.mark.parametrize("family", sorted(KINDS))
def test_logits_are_those_of_transformers(family, tmp_path):
    lm = made(family, tmp_path / "base")
    reference = THEIRS.get(family, AutoModelForCausalLM).from_pretrained(tmp_path / "base").eval()
    assert float((logits(lm.model.eval()) - theirs(reference, family)).abs().max()) <= 1e-5


def test_the_loss_of_an_adapter_is_that_of_peft(tmp_path):
    peft = pytest.importorskip("peft")
    lm = made("llama", tmp_path / "base")
    model = shaken(adapt(lm.model, Lora(3, alpha=5.0)))
    write_adapter(model, base_of(lm), tmp_path / "adapter", {"name": "adapter"})
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()
    read = peft.PeftModel.from_pretrained(plain, tmp_path / "adapter").eval()
    with torch.no_grad():
        nats, count = causal(model, Batch(ids=IDS[:, :-1], labels=IDS[:, 1:]))
        wanted = read(input_ids=IDS, labels=IDS).loss
    assert float(nats) / count == pytest.approx(float(wanted), rel=1e-6)


def test_passes_that_are_summed_have_loss_and_gradient_of_the_large_batch(monkeypatch):
    """With a head that is read two rows at a time: one batch of 4, two of 2, four of 1; and of the whole logits."""
    monkeypatch.setattr("qualm.training.head.CHUNK", 2)
    whole = model_of("llama")
    F.cross_entropy(whole(ids()[:, :-1]).flatten(0, 1), ids()[:, 1:].flatten()).backward()
    wanted = [weight.grad for weight in whole.parameters()]
    norm = float(torch.nn.utils.get_total_norm(wanted))
    for batch in (4, 2, 1):
        rows = []
        settings = TrainSettings(steps=1, batch=batch, accumulate=4 // batch, threads=1, precision="fp32")
        model = model_of("llama")
        fit(model, TensorRows(ids()), causal, settings, hooks=Hooks(on_step=rows.append))
        with torch.no_grad():
            loss = float(F.cross_entropy(whole(ids()[:, :-1]).flatten(0, 1).double(), ids()[:, 1:].flatten()))
        assert rows[0]["loss"] == pytest.approx(loss, rel=1e-6)
        assert rows[0]["norm"] == pytest.approx(norm, rel=1e-6)
