"""A small tokenizer trained on the spot, and chat templates of the shapes that well-known models use."""

import functools

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
