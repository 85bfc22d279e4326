"""A small tokenizer trained on the spot, chat templates of the shapes that well-known models use, small models."""

import functools
from collections.abc import Sequence
from types import SimpleNamespace

import torch
from torch import nn

from qualm.lm.causal import CausalLM
from qualm.models._caches import Cache
from qualm.models.llama import Llama, LlamaConfig
from qualm.tokens.template import DEFAULT
from qualm.tokens.tokenizer import Tokens
from qualm.tokens.train import TURNS, train_bpe

TEXTS = (
    "The quick brown fox jumps over the lazy dog. It's 3 o'clock, and they've 42 apples left for $19.99!\n",
    "Die Straße führt über den Fluss. Où est la gare? ¿Dónde está? 1½ ² Ⅷ १२३\n",
    "快速的棕色狐狸跳过懒狗。今天是2024年10月1日，天气很好。\n\n\tindented\n    four spaces  and two\r\n",
    "Emoji 😀 👩‍👩‍👧 🇫🇷 and more 😀😀. Zażółć gęślą jaźń. Привет, мир! こんにちは\n",
    "Question: What is the capital of France?\nAnswer: Paris\nuser assistant system\n",
)
PASSAGE = "".join(TEXTS)
CONTROL = ("<|end|>", "<|pad|>", "<|im_start|>", "<|im_end|>", "<|user|>", "<|assistant|>", "<|system|>", "[INST]")
CONTROL += ("[/INST]", "<s>", "</s>")

TEMPLATES = {
    "default": DEFAULT,
    "turns": TURNS,
    "chatml": (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "trimmed": (
        "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>\n{{ m.content | trim }}{{ eos_token }}\n"
        "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
    ),
    "instruct": (
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %} {{ m.content }}</s>{% endgeneration %}"
        "{% else %}<s>[INST] {{ m.content }} [/INST]{% endif %}{% endfor %}"
    ),
    "bare": "{% for m in messages %}{{ m.content }}{% endfor %}",
}


@functools.cache
def tiny_tokens(vocab_size: int = 480) -> Tokens:
    return train_bpe(TEXTS * 4, vocab_size, CONTROL)


@functools.cache
def templated(name: str) -> Tokens:
    """The tiny tokenizer with a chat template by name."""
    tokens = tiny_tokens()
    return Tokens(tokens.tokenizer, tokens.bos, tokens.eos, template=TEMPLATES[name])


def tiny_local(seed: int = 0, context: int = 96, **config) -> CausalLM:
    """A random Llama that has opinions: its weights are wide, so that two tokens are seldom nearly as likely."""
    tokens = tiny_tokens()
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    shape |= {"num_key_value_heads": 2, "initializer_range": 0.5, "max_position_embeddings": context, **config}
    model = Llama(LlamaConfig(vocab_size=tokens.vocab_size, bos_token_id=0, eos_token_id=0, **shape))
    model.init_weights(seed)
    return CausalLM(model, tokens, name="tiny")


def exact_local(seed: int = 0, context: int = 96) -> CausalLM:
    """The same in float64: rounding, which hangs on how many rows a product has, decides between no tokens."""
    lm = tiny_local(seed, context)
    lm.model.double()
    return lm


class Said(Cache):
    """`lengths` counts how often a row was read."""

    def __init__(self, lengths: torch.Tensor):
        self.lengths = lengths

    def keep(self, rows: torch.Tensor) -> None:
        self.lengths = self.lengths[rows]

    def add(self, other: "Said") -> None:
        self.lengths = torch.cat((self.lengths, other.lengths))


class Scripted(nn.Module):
    """A decoder that says `script` after any prompt, at the odds exp(9) to 1 for each token."""

    never = ()

    def __init__(self, script: Sequence[int], vocab_size: int, context: int = 10**6):
        super().__init__()
        self.script = list(script)
        self.weight = nn.Parameter(torch.zeros(1))
        self.config = SimpleNamespace(context=context, vocab_size=vocab_size, eos_token_id=None, model_type="scripted")

    def new_cache(self, batch: int, length: int) -> "Said":
        return Said(torch.zeros(batch, dtype=torch.long))

    def hidden(self, ids: torch.Tensor, cache: "Said", lengths: torch.Tensor | None = None) -> torch.Tensor:
        said = cache.lengths[:, None, None].expand(*ids.shape, 1).float()
        cache.lengths = cache.lengths + 1
        return said

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        wanted = torch.tensor([*self.script, 0])[hidden[..., 0].long().clamp(max=len(self.script))]
        return 9.0 * nn.functional.one_hot(wanted, self.config.vocab_size).float()


def saying(text: str, name: str = "chatml", context: int = 10**6) -> CausalLM:
    """A model that says this text and then its end token."""
    tokens = templated(name)
    return CausalLM(
        Scripted([*tokens.encode(text), tokens.eos_id], tokens.vocab_size, context), tokens, name="scripted"
    )
