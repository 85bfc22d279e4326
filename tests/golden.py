"""The first losses of small runs that are the same on every machine but for rounding.

`python tests/golden.py` prints them as JSON, as tests/golden_losses.json holds them: write it anew only when a change
is meant to change what is computed, and say so in the change.
"""

import json
from collections.abc import Callable
from typing import Any

import torch

from qualm.models.bert import Bert, BertConfig
from qualm.models.gpt import Gpt, GptConfig
from qualm.models.llama import Llama, LlamaConfig
from qualm.models.rnn import Rnn, RnnConfig
from qualm.models.t5 import T5, T5Config
from qualm.training.data import IGNORE, Batch, TensorRows
from qualm.training.loop import Hooks, fit
from qualm.training.losses import Seq2Seq, causal, masked
from qualm.training.settings import TrainSettings

VOCAB, STEPS = 96, 20
SETTINGS = TrainSettings(steps=STEPS, batch=8, lr=1e-3, precision="fp32", threads=1)


class Hidden(TensorRows):
    """Every third token is to be told."""

    def batch(self, rows: Any, epochs: Any) -> Batch:
        ids = self.rows[torch.from_numpy(rows)]
        asked = torch.arange(ids.shape[1]) % 3 == 1
        return Batch(ids=ids.masked_fill(asked, 3), labels=torch.where(asked, ids, IGNORE))


def ids() -> torch.Tensor:
    """Rows (64, 33) that a model can learn something of."""
    made = torch.arange(64)[:, None] * 7 + torch.arange(33) * (1 + torch.arange(64)[:, None] % 5)
    return 4 + made % (VOCAB - 4)


CASES: dict[str, Callable[[], tuple[Any, Any, Any]]] = {
    "llama": lambda: (Llama(LlamaConfig.sized(2, VOCAB, 32)), TensorRows(ids()), causal),
    "gpt": lambda: (Gpt(GptConfig.sized(2, VOCAB, 32)), TensorRows(ids()), causal),
    "lstm": lambda: (Rnn(RnnConfig.sized(2, VOCAB, 32)), TensorRows(ids()), causal),
    "bert": lambda: (Bert(BertConfig.sized(2, VOCAB, 33)), Hidden(ids()), masked),
    "t5": lambda: (T5(T5Config.sized(2, VOCAB, 33)), Hidden(ids()), Seq2Seq()),
}


def losses(name: str, settings: TrainSettings = SETTINGS) -> list[float]:
    """The losses of the first steps."""
    model, rows, loss = CASES[name]()
    model.init_weights(0)
    seen: list[float] = []
    fit(model, rows, loss, settings, hooks=Hooks(on_step=lambda row: seen.append(row["loss"])))
    return seen


if __name__ == "__main__":
    print(json.dumps({name: losses(name) for name in CASES}, indent=1))
