"""Checkpoints of llama2.c, such as stories260K.bin: a Llama as seven numbers and float32 weights, its tokens beside it.

The layout is that of `llama2.c`'s version 0 (https://github.com/karpathy/llama2.c): the sizes as int32 (a negative
vocabulary says that the output matrix is not the embedding), then each kind of weight for all layers. Its rotary
positions turn neighbouring channels against each other, Hugging Face's those half a head apart, so the rows of q and k
change places. The tokenizer's file holds a score and a spelling for each token of a SentencePiece BPE.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from qualm.errors import InputError
from qualm.importers.base import AGAIN, Importer, floats, save
from qualm.models.base import LARGEST
from qualm.models.llama import LlamaConfig
from qualm.models.store import build_model
from qualm.tokens.classic import SPACE, scored_bpe
from qualm.tokens.tokenizer import Tokens
from qualm.tokens.train import start_with

HEADER = struct.Struct("<7i")
FIRST = ("<unk>", "<s>", "</s>")  # the tokens 0, 1 and 2; the file spells the last two with line breaks
LONGEST = 1024  # bytes of a token
MOST_LAYERS = 1024
SOURCE = {"format": "llama2.c", "licence": "not stated in the files"}


@dataclass(frozen=True)
class Sizes:
    """The header of a checkpoint."""

    width: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    vocab: int  # negative: the output matrix stands by itself
    length: int

    @classmethod
    def read(cls, path: Path) -> "Sizes | None":
        """None if these are no sizes of a model."""
        with path.open("rb") as file:
            start = file.read(HEADER.size)
        if len(start) < HEADER.size:
            return None
        sizes = cls(*HEADER.unpack(start))
        numbers = (sizes.width, sizes.inner, sizes.layers, sizes.heads, sizes.kv_heads, abs(sizes.vocab), sizes.length)
        possible = all(1 <= n <= LARGEST for n in numbers) and sizes.layers <= MOST_LAYERS
        if not possible or sizes.width % (2 * sizes.heads) or sizes.heads % sizes.kv_heads:
            return None
        return sizes

    @property
    def head(self) -> int:
        return self.width // self.heads

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Each kind of weight and its shape, in the file's order; "" for what is not needed."""
        w, inner, shared = self.width, self.inner, self.head * self.kv_heads
        yield "model.embed_tokens", (abs(self.vocab), w)
        yield "input_layernorm", (self.layers, w)
        for name, rows in (("q", w), ("k", shared), ("v", shared), ("o", w)):
            yield f"self_attn.{name}_proj", (self.layers, rows, w)
        yield "post_attention_layernorm", (self.layers, w)
        yield "mlp.gate_proj", (self.layers, inner, w)
        yield "mlp.down_proj", (self.layers, w, inner)
        yield "mlp.up_proj", (self.layers, inner, w)
        yield "model.norm", (w,)
        yield "", (2, self.length, self.head // 2)  # cosines and sines
        if self.vocab < 0:
            yield "lm_head", (-self.vocab, w)


class Stories260k(Importer):
    """The .bin file, or a folder with one in it; the tokenizer is the tok*.bin beside it with as many tokens."""

    reads = "a llama2.c checkpoint with its tok*.bin"

    def recognises(self, path: Path) -> bool:
        return bool(models(path))

    def files(self, path: Path) -> list[Path]:
        model = only(path)
        return [model, *sorted(tokenizers(model.parent))]

    def write(self, path: Path, folder: Path) -> None:
        model = only(path)
        sizes = Sizes.read(model)
        assert sizes is not None
        tokens = read_tokens(model, abs(sizes.vocab))
        config = LlamaConfig(
            vocab_size=abs(sizes.vocab),
            hidden_size=sizes.width,
            intermediate_size=sizes.inner,
            num_hidden_layers=sizes.layers,
            num_attention_heads=sizes.heads,
            num_key_value_heads=sizes.kv_heads,
            max_position_embeddings=sizes.length,
            rms_norm_eps=1e-5,
            tie_word_embeddings=sizes.vocab > 0,
            bos_token_id=1,
            eos_token_id=(1, 2),  # a story ends where the next begins
        )
        save(folder, build_model(config, read_weights(model, sizes), str(model)), tokens, SOURCE)


def models(path: Path) -> list[Path]:
    """The checkpoints at `path`."""
    found = sorted(path.glob("*.bin")) if path.is_dir() else [path] if path.suffix == ".bin" else []
    return [file for file in found if not file.name.startswith("tok") and Sizes.read(file) is not None]


def tokenizers(folder: Path) -> Iterator[Path]:
    return folder.glob("tok*.bin")


def only(path: Path) -> Path:
    found = models(path)
    if len(found) != 1:
        names = ", ".join(file.name for file in found)
        raise InputError(f"holds {len(found)} models ({names})", where=str(path), then=f"name one: {found[0]}")
    return found[0]


def read_weights(path: Path, sizes: Sizes) -> dict[str, Tensor]:
    """The weights by Hugging Face's names."""
    data = path.read_bytes()
    wanted = HEADER.size + 4 * sum(math.prod(shape) for _, shape in sizes.tensors())
    if len(data) != wanted:
        raise InputError(f"is {len(data)} bytes, and its header says {wanted}", where=str(path), then=AGAIN)
    state: dict[str, Tensor] = {}
    at = HEADER.size
    for name, shape in sizes.tensors():
        end = at + 4 * math.prod(shape)
        if name:
            tensor = floats(data[at:end], shape, name, path)
            if name.startswith(("model.", "lm_head")):
                state[f"{name}.weight"] = tensor
            else:
                turned = halves(tensor, sizes.head) if name.endswith(("q_proj", "k_proj")) else tensor
                state |= {f"model.layers.{i}.{name}.weight": turned[i].contiguous() for i in range(sizes.layers)}
        at = end
    return state


def halves(weight: Tensor, head: int) -> Tensor:
    """Rows (.., heads * head, D) whose neighbours turn together, put half a head apart."""
    return weight.unflatten(1, (-1, head // 2, 2)).transpose(2, 3).flatten(1, 3)


def read_tokens(model: Path, vocab: int) -> Tokens:
    """The tokenizer beside `model` that has so many tokens."""
    found = [(file, entries(file)) for file in sorted(tokenizers(model.parent))]
    fitting = [(file, read) for file, read in found if len(read) == vocab]
    if len(fitting) != 1:
        beside = ", ".join(f"{file.name} with {len(read)}" for file, read in found) or "none"
        raise InputError(
            f"needs beside it one tok*.bin with {vocab} tokens, and there is {beside}", where=str(model), then=AGAIN
        )
    file, read = fitting[0]
    spelled = [*FIRST, *(token.replace(" ", SPACE) for token, _ in read[len(FIRST) :])]
    if len(set(spelled)) < len(spelled):
        twice = next(token for i, token in enumerate(spelled) if token in spelled[:i])
        raise InputError(f"spells two tokens {twice!r}", where=str(file), then=AGAIN)
    tokenizer = scored_bpe(spelled, [score for _, score in read], FIRST[0])
    tokenizer.add_special_tokens(list(FIRST))
    tokenizer.post_processor = start_with(FIRST[1], 1)
    return Tokens(tokenizer, bos=FIRST[1], eos=FIRST[2], unk=FIRST[0], where=str(file))


def entries(path: Path) -> list[tuple[str, float]]:
    """Spelling and score of each token. Raises InputError naming the token where the file is damaged."""
    data, found = path.read_bytes(), []
    at = 4  # after the length of the longest token
    while at < len(data):
        end = at + 8
        score, length = struct.unpack_from("<fi", data, at) if end <= len(data) else (0.0, -1)
        if not 0 <= length <= LONGEST or end + length > len(data) or not math.isfinite(score):
            raise InputError(f"token {len(found)} is damaged", where=str(path), then=AGAIN)
        try:
            found.append((data[end : end + length].decode(), score))
        except UnicodeDecodeError as error:
            raise InputError(f"token {len(found)} is no text ({error})", where=str(path), then=AGAIN) from error
        at = end + length
    return found
