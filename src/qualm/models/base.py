"""What a model is: a config that Hugging Face's config.json fills, and token ids in, logits out.

Three kinds. A `Decoder` reads what stands before a token, an `EncoderDecoder` also a source text, an `Encoder` what
stands on both sides. Rows of unlike length are filled up on the right, and `lengths` says how many ids of each count.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Any, ClassVar, Self, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn

from qualm.errors import InputError
from qualm.models._caches import Cache, KVCache

_HARMLESS = """
_attn_implementation _attn_implementation_autoset _commit_hash _flash_attn_2_enabled _name_or_path architectures
bad_words_ids chunk_size_feed_forward cross_attention_hidden_size decoder_start_token_id diversity_penalty do_sample
dtype early_stopping encoder_no_repeat_ngram_size exponential_decay_length_penalty finetuning_task forced_bos_token_id
forced_eos_token_id gradient_checkpointing id2label label2id length_penalty max_length min_length no_repeat_ngram_size
num_beam_groups num_beams num_labels num_return_sequences output_attentions output_hidden_states output_past
output_scores prefix problem_type pruned_heads remove_invalid_values repetition_penalty return_dict
return_dict_in_generate sep_token_id suppress_tokens task_specific_params temperature tf_legacy_loss tokenizer_class
top_k top_p torch_dtype torchscript transformers.js_config transformers_version typical_p unsloth_fixed
unsloth_version use_bfloat16 use_cache
"""
HARMLESS = frozenset(_HARMLESS.split())  # keys of config.json that do not change the logits
_DROPOUTS = """
activation_dropout attention_dropout attention_probs_dropout_prob attn_pdrop dropout dropout_rate embd_pdrop
hidden_dropout_prob recurrent_dropout resid_pdrop
"""
DROPOUTS = frozenset(_DROPOUTS.split())  # the shares that bodies drop in training
_NOT_MATHS = """
bos_token_id classifier_dropout eos_token_id initializer_factor initializer_range max_position_embeddings pad_token_id
"""
NOT_MATHS = DROPOUTS | frozenset(_NOT_MATHS.split())  # keys that do not change the logits of given ids
LARGEST = 2**24
FIXED: Mapping[str, tuple[Any, ...]] = {
    "add_cross_attention": (False,),
    "begin_suppress_tokens": (None,),
    "is_decoder": (False, True),
    "is_encoder_decoder": (False,),
    "tie_encoder_decoder": (False,),
    "use_bidirectional_attention": (False, None),
}  # keys that would change them, with the values that are implemented


@dataclass(frozen=True, kw_only=True)
class Config(ABC):
    """The field names of a subclass are the keys of config.json."""

    model_type: str = ""
    tie_word_embeddings: bool = False

    model_types: ClassVar[frozenset[str]]
    harmless: ClassVar[frozenset[str]] = frozenset()  # besides HARMLESS
    fixed: ClassVar[Mapping[str, tuple[Any, ...]]] = {}  # besides FIXED

    @classmethod
    def from_hf(cls, raw: Mapping[str, Any], where: str = "config.json") -> Self:
        """Build from the content of a config.json.

        Raises InputError naming the key if one is missing, of the wrong type, or would change the maths in a way that
        is not implemented.
        """
        known = {field.name for field in fields(cls)}
        fixed = {**FIXED, **cls.fixed}
        if "auto_map" in raw:
            raise InputError(
                "key 'auto_map' names code inside the checkpoint, which is never run",
                where=where,
                then=f"use a checkpoint of a built-in model_type: {', '.join(sorted(cls.model_types))}",
            )
        for key, value in raw.items():
            if key in fixed and value not in fixed[key]:
                allowed = " or ".join(repr(v) for v in fixed[key])
                raise InputError(
                    f"{key} = {value!r} is not implemented (only {allowed}), and the answers would be wrong without it",
                    where=where,
                    then="use a checkpoint without it",
                )
            if key not in known and key not in fixed and key not in HARMLESS | cls.harmless:
                near = get_close_matches(key, known, 1)
                raise InputError(
                    f"key {key!r} is not known, and could change the answers",
                    where=where,
                    then=f"did you mean {near[0]!r}?" if near else "remove it if you know that it does not",
                )
        values = cls._checked({k: v for k, v in raw.items() if k in known}, where)
        try:
            return cls(**values)
        except InputError as error:
            raise InputError(error.what, where=where, then=error.then) from error

    @classmethod
    def _checked(cls, values: Mapping[str, Any], where: str) -> dict[str, Any]:
        """JSON lists become tuples; raises InputError on a value of the wrong type or a missing key."""
        hints = get_type_hints(cls)
        checked: dict[str, Any] = {}
        for key, given in values.items():
            value: Any = tuple(given) if isinstance(given, list) else given
            if not _fits(value, hints[key]):
                raise InputError(f"{key} = {value!r} is not {_words(hints[key])}", where=where, then="mend the file")
            checked[key] = float(value) if hints[key] is float else value
        needed = [f.name for f in fields(cls) if f.name not in checked and f.default is MISSING]
        if needed:
            raise InputError(f"key {needed[0]!r} is missing", where=where, then="add it: it decides the shapes")
        return checked

    @property
    @abstractmethod
    def architecture(self) -> str:
        """The name of Hugging Face's class."""

    @property
    @abstractmethod
    def layers(self) -> int:
        """How many layers; the files must hold at least one tensor for each."""

    @property
    def context(self) -> int:
        """The most tokens the model can look at."""
        return self.max_position_embeddings  # type: ignore[attr-defined]

    @property
    def rate(self) -> float:
        """How many times the learning rate that is usual for so many weights suits this kind of model."""
        return 1.0

    @property
    @abstractmethod
    def parameters(self) -> int:
        """How many weights, tied ones once."""

    @abstractmethod
    def flops(self, length: int, source: int = 0) -> int:
        """Floating point operations of the matrix products of one forward pass, two a multiply-add: over one text of
        `length` tokens, written under one of `source` tokens where there is an encoder before it.
        """

    @classmethod
    @abstractmethod
    def sized(cls, depth: int, vocab: int, length: int, **ids: Any) -> Self:
        """The config that one dial stands for: `depth` is 1, 2, 3, ..., and all else follows from it.

        For texts of `length` tokens; `ids` are keys such as eos_token_id.
        """

    def to_hf(self, dtype: str = "float32") -> dict[str, Any]:
        """The content of config.json, for transformers 4.57 and 5, vLLM and llama.cpp's converter."""
        kept = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return {"architectures": [self.architecture], **kept, "dtype": dtype, "torch_dtype": dtype}

    def maths(self) -> dict[str, Any]:
        """What decides the logits besides the weights."""
        return {k: v for k, v in asdict(self).items() if k not in NOT_MATHS}

    def refuse(self, what: str) -> InputError:
        return InputError(what, where="config.json", then="mend the numbers")

    def check_sizes(self, *names: str) -> None:
        """Raises InputError if one is not positive, or so large that a shape would overflow."""
        for name in names:
            if not 1 <= getattr(self, name) <= LARGEST:
                raise self.refuse(f"{name} = {getattr(self, name)} is not between 1 and {LARGEST}")

    def check_shares(self, *names: str) -> None:
        """Raises InputError if one, of what is dropped in training, is not at least 0 and below 1; None is no share."""
        for name in names:
            if not 0 <= (getattr(self, name) or 0.0) < 1:
                raise self.refuse(f"{name} = {getattr(self, name)} is no share below 1")


def _fits(value: Any, hint: Any) -> bool:
    if isinstance(hint, UnionType):
        return any(_fits(value, option) for option in get_args(hint))
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_fits(v, get_args(hint)[0]) for v in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, get_origin(hint) or hint)


def _words(hint: Any) -> str:
    if isinstance(hint, UnionType):
        return " or ".join(_words(option) for option in get_args(hint))
    names = {int: "a whole number", float: "a number", str: "a string", bool: "true or false", NoneType: "null"}
    return names.get(hint, "a list" if get_origin(hint) is tuple else "an object")


class Model(nn.Module, ABC):
    """A network that a config describes and that `store` can read and write."""

    config_class: ClassVar[type[Config]]
    tied: ClassVar[Mapping[str, str]] = {}  # module -> module whose weight it shares, if config.tie_word_embeddings
    residual: ClassVar[tuple[str, ...]] = ()  # endings of the weights that write to the residual stream
    config: Any

    @classmethod
    def rename(cls, name: str, config: Any) -> str | None:
        """The name here of a tensor in a checkpoint of any age; None for one that holds no weights."""
        return name

    @classmethod
    def name_in_file(cls, name: str, config: Any) -> str:
        """What Hugging Face's class calls a tensor of ours: the inverse of `rename`."""
        return name

    @classmethod
    def settle(cls, config: Any, state: dict[str, Tensor]) -> Any:
        """The config, where these tensors (by our names) say more than config.json did; may add another's name."""
        return config

    @property
    def ties(self) -> Mapping[str, str]:
        """Module -> module whose weight it shares."""
        return self.tied if self.config.tie_word_embeddings else {}

    def tie(self) -> None:
        """Let tied modules share their weights again after these were replaced."""
        for name, source in self.ties.items():
            own, shared = self.get_submodule(name), self.get_submodule(source)
            for key in ("weight", "weight_scale"):
                if hasattr(shared, key):
                    setattr(own, key, getattr(shared, key))

    @torch.no_grad()
    def init_weights(self, seed: int | torch.Generator = 0) -> None:
        """Fill all weights anew; the same seed gives the same weights.

        Each is drawn by `init_weight`; a weight that is shared is drawn once.
        """
        named = dict(self.named_parameters())
        device = next(iter(named.values())).device
        if device.type == "meta":
            return
        source = seed if isinstance(seed, torch.Generator) else torch.Generator(device).manual_seed(seed)
        for name, weight in named.items():
            self.init_weight(name, weight, source)

    def init_weight(self, name: str, weight: Tensor, source: torch.Generator) -> None:
        """Normal with standard deviation `initializer_range`, divided by sqrt(2 * layers) where a weight writes to
        the residual stream (Radford et al. 2019, section 2.3; two such weights a layer). Biases 0, norms 1.
        """
        if name.endswith("bias"):
            weight.zero_()
        elif weight.dim() == 1:
            weight.fill_(1.0)
        else:
            depth = 2 * self.config.layers if name.endswith(self.residual) else 1
            weight.normal_(0.0, self.config.initializer_range / depth**0.5, generator=source)


class Causal(Model):
    """What says how likely each next token is, given those before it."""

    never: tuple[int, ...] = ()  # ids that are not to be written, however likely
    keeps_apart: ClassVar[bool] = False
    linear_head: ClassVar[str] = ""  # the linear layer that `head` consists of, if it is one and no more

    @abstractmethod
    def hidden(self, ids: Tensor, cache: Cache | None = None, lengths: Tensor | None = None) -> Tensor:
        """Hidden states that the head reads, (B, T, D), of ids (B, T) long.

        With a cache the ids come after what it holds, and are added to it. `lengths` (B,) says how many ids of each
        row count, if not all: the rest is padding on the right, which the cache does not keep. A model whose
        `keeps_apart` is true takes `documents` (B, T) besides, for training: texts of a row that see not each other.
        """

    @abstractmethod
    def head(self, hidden: Tensor) -> Tensor:
        """Logits (..., V) of hidden states (..., D)."""

    @property
    @abstractmethod
    def last(self) -> nn.Module:
        """The module whose weights `scale_logits` changes: the norm whose output the head reads, or the head."""

    @torch.no_grad()
    def scale_logits(self, factor: float) -> None:
        """Multiply all logits by `factor`, through the last norm: the head is linear and has no bias."""
        for weight in self.last.parameters(recurse=False):
            weight.mul_(factor)


class Decoder(Causal):
    """A causal language model: token ids in, logits of the next token out."""

    def forward(self, ids: Tensor, cache: Cache | None = None, lengths: Tensor | None = None) -> Tensor:
        """Logits (B, T, V) of ids (B, T) long; cache and lengths as in `hidden`."""
        return self.head(self.hidden(ids, cache, lengths))

    def new_cache(self, batch: int, length: int) -> Cache:
        """An empty cache, with `length` slots a row where it has slots."""
        like, c = next(self.last.parameters()), self.config
        shape = (batch, c.num_key_value_heads, max(1, length), c.head_dim)
        return KVCache(c.layers, shape, like.dtype, like.device)


class EncoderDecoder(Causal):
    """A model that reads a source text whole, then writes another under it, token by token.

    The decoder's first id is `config.decoder_start_token_id`.
    """

    @abstractmethod
    def encode(self, source: Tensor, lengths: Tensor | None = None, room: int = 64) -> Cache:
        """Read sources (B, S) long, padded on the right to `lengths` (B,).

        Returns the cache to write under them with `hidden`: it keeps what the decoder looks up in the source, and has
        `room` slots a row for what will be written.
        """

    def forward(self, source: Tensor, ids: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Logits (B, T, V) of ids (B, T) long, begun with the start id, under sources (B, S) of these lengths."""
        return self.head(self.hidden(ids, self.encode(source, lengths, ids.shape[1])))


class Encoder(Model):
    """A model that reads a text from both sides, with a head on top.

    `config.head` is "none", "masked" (logits of the vocabulary at each place), "sequence" (of labels for the text),
    "token" (of labels at each place) or "question" (of the answer's first and last place). `config.labels` names the
    labels; with `config.problem_type` "multi_label_classification" more than one may hold.
    """

    @abstractmethod
    def hidden(self, ids: Tensor, lengths: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        """Hidden states (B, T, D) of ids (B, T) long, padded on the right to `lengths` (B,).

        `segments` (B, T) long tells a first text from a second one, where the model was taught the difference.
        """

    @abstractmethod
    def head(self, hidden: Tensor, lengths: Tensor | None = None) -> Tensor:
        """What the head makes of hidden states (B, T, D): (B, T, V), (B, labels), (B, T, labels) or (B, T, 2)."""

    def forward(self, ids: Tensor, lengths: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        """The head's logits; the hidden states if there is no head."""
        hidden = self.hidden(ids, lengths, segments)
        return hidden if self.config.head == "none" else self.head(hidden, lengths)
