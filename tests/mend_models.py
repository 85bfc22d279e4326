"""Small models for the tests of mends: one that follows a script, and one with real weights that learns in seconds."""

from collections.abc import Callable, Sequence

from qualm.cases import Message
from qualm.lm.base import LM, Card, Completion, Prompt, Sampling, Scored
from qualm.lm.causal import CausalLM
from qualm.models.llama import Llama, LlamaConfig
from qualm.tokens.train import train_bpe
from qualm.training.data import TensorRows
from qualm.training.loop import fit
from qualm.training.losses import causal
from qualm.training.settings import TrainSettings


class Scripted(LM):
    """Answers by a function of the messages, or of the string; `seen` are all prompts it was given."""

    def __init__(self, answer: Callable[[Prompt], str | Completion], world: dict | None = None):
        self.answer, self.name, self.can = answer, "scripted", frozenset({"generate", "score"})
        self.card, self.seen = Card("scripted", weights="none", world=world), []

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling = Sampling()) -> list[Completion]:
        self.seen += prompts
        answers = [self.answer(prompt) for prompt in prompts]
        return [a if isinstance(a, Completion) else Completion(a, 5, len(a.split()), "stop") for a in answers]

    def score(self, pairs: Sequence[tuple[Prompt, str]]) -> list[Scored]:
        self.seen += [prompt for prompt, _ in pairs]
        return [Scored((-1.0,)) for _ in pairs]


def user(question: str, *before: Message) -> tuple[Message, ...]:
    return (*before, {"role": "user", "content": question})


def tiny(texts: Sequence[str], steps: int = 0, width: int = 32, seed: int = 0) -> CausalLM:
    """A two-layer model with a vocabulary of these texts, trained on them for `steps` updates."""
    tokens = train_bpe(texts, 400)
    config = LlamaConfig(
        vocab_size=tokens.vocab_size,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
        initializer_range=0.08,
        bos_token_id=tokens.bos_id,
        eos_token_id=tokens.eos_id,
    )
    model = Llama(config)
    model.init_weights(seed)
    if steps:
        ids = [i for text in texts for i in [tokens.eos_id, *tokens.encode(text)]]
        rows = [ids[at : at + 33] for at in range(0, len(ids) - 33, 32)]
        import torch

        fit(
            model,
            TensorRows(torch.tensor(rows)),
            causal,
            TrainSettings(steps=steps, lr=1e-2, batch=16, seed=seed, threads=1),
        )
    return CausalLM(model.eval(), tokens, name="tiny")
