"""One dial, the rest follows: from "tiny" or a number of parameters to the shape of a decoder."""

from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any

from qualm import registry
from qualm.errors import UsageError
from qualm.models.base import Decoder

LAYERS = {"tiny": 4, "small": 8, "medium": 12}
WIDTH = 32  # channels a layer, and a head
MOST_LAYERS = 64
NAMES = {  # ours: as Hugging Face's config.json calls it, the usual name first, then GPT-2's
    "width": ("hidden_size", "n_embd"),
    "feed_forward": ("intermediate_size", "n_inner"),
    "layers": ("num_hidden_layers", "n_layer"),
    "heads": ("num_attention_heads", "n_head"),
    "positions": ("max_position_embeddings", "n_positions"),
}


@dataclass(frozen=True)
class Shape:
    """A decoder of `layers` layers: 32 channels a layer wide, heads of 32 channels, feed-forward of 4 widths."""

    layers: int

    @property
    def width(self) -> int:
        return WIDTH * self.layers

    @property
    def vocab(self) -> int:
        """A vocabulary that takes about as much as one or two layers do."""
        return 512 * self.layers

    @property
    def parameters(self) -> int:
        """Of a Llama with tied embeddings: 4 width^2 for attention and 12 for the feed-forward, a layer."""
        return 16 * self.layers * self.width**2 + self.vocab * self.width


def shape_of(size: str | int) -> Shape:
    """The shape that a size names: "tiny" (4 layers, 1.3 M parameters), "small" (8, 9.4 M), "medium" (12, 30.7 M).

    A number asks for about so many parameters: all else follows from the number of layers, so the one whose count is
    nearest is taken. Raises UsageError for another name or a number below 1.
    """
    if isinstance(size, str):
        if size not in LAYERS:
            near = get_close_matches(size, LAYERS, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"say {', '.join(LAYERS)} or a number of parameters"
            raise UsageError(f"no size is named {size!r}", then=hint)
        return Shape(LAYERS[size])
    if size < 1:
        raise UsageError(f"a model of {size} parameters cannot be", then=f"say {', '.join(LAYERS)} or 1e6 and more")
    return min((Shape(n) for n in range(1, MOST_LAYERS + 1)), key=lambda shape: abs(shape.parameters - size))


def build(family: str, shape: Shape, vocab: int, length: int, seed: int, **special: int | None) -> Decoder:
    """A decoder of that shape with random weights, for texts of `length` tokens; `special` are ids such as
    eos_token_id.

    Weights start at 1 / sqrt(width), which small models learn from much faster than from GPT-2's 0.02. Rotary
    positions reach twice the trained length, learned ones only that far. Raises UsageError for a family that is no
    decoder.
    """
    found = registry.find("models", family)
    if not issubclass(found, Decoder):
        raise UsageError(f"{family} is no decoder", then="say llama or gpt")
    known = {f.name for f in fields(found.config_class)}
    wanted = {name: getattr(shape, name) for name in ("width", "layers")}
    wanted |= {"feed_forward": 4 * shape.width, "heads": shape.layers}
    wanted["positions"] = 2 * length if "rope_theta" in known else length
    settings: dict[str, Any] = {next(n for n in NAMES[key] if n in known): value for key, value in wanted.items()}
    settings |= {"vocab_size": vocab, "tie_word_embeddings": True, "initializer_range": shape.width**-0.5, **special}
    model = found(found.config_class(**settings))
    model.init_weights(seed)
    return model
