"""The translators of Firefox (Bergamot, https://browser.mt): Marian's binary file, with its .spm beside it.

Marian (https://github.com/marian-nmt/marian-dev, src/common/binary.cpp) writes numbers of 64 bits: the version (1), how
many tensors there are, and four of each tensor: bytes of its name, kind, dimensions, bytes of its values. Then all
names, all shapes (int32), a gap, all values. Weights of 8 bits are stored transposed, but for the embeddings, and a
float32 after them says by how much they were multiplied before they were rounded. Its settings are one more tensor.
"""

import math
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from qualm.errors import InputError
from qualm.importers.base import AGAIN, Importer, checked, floats, save
from qualm.models.ssru import SsruConfig
from qualm.models.store import build_model
from qualm.tokens import spm
from qualm.tokens.tokenizer import Tokens

START, EACH = struct.Struct("<2Q"), struct.Struct("<4Q")  # of the file; of each tensor
FLOAT, INT8, TEXT = 0x404, 0x4101, 0x101  # kinds of tensors
MOST = 2**16  # tensors, and bytes of a name
SETTINGS = "special:model.yml"
NEEDED: Mapping[str, tuple[str, ...]] = {
    "type": ("transformer",),
    "dec-cell": ("ssru",),
    "transformer-decoder-autoreg": ("rnn",),
    "transformer-ffn-depth": ("2",),
    "transformer-ffn-activation": ("relu", "swish", "gelu"),
    "transformer-preprocess": ("",),
    "transformer-postprocess": ("dan", "an"),  # add, then the norm; dropout is for training
    "transformer-postprocess-emb": ("d", ""),
    "transformer-postprocess-top": ("",),
    "transformer-train-position-embeddings": ("false",),
    "transformer-no-projection": ("false",),
    "transformer-tied-layers": ("[]",),
    "tied-embeddings-all": ("true",),
    "lemma-dim-emb": ("0",),
}  # settings, and the values of them that are implemented
ATTENTION = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "out_proj"}
PAD, SILENT = "<pad>", -1e9  # what the decoder starts with, and the bias that keeps it from being written
TEMPLATE = "{{ messages[-1]['content'] }}"
SOURCE = {"format": "Marian binary (Bergamot)", "licence": "not stated in the files"}


@dataclass(frozen=True)
class Stored:
    """A tensor as it lies in the file."""

    kind: int
    shape: tuple[int, ...]
    values: bytes


class Bergamot(Importer):
    """The .bin file, or a folder with one in it; the tokenizer is the one .spm beside it."""

    reads = "a Marian .bin of a browser's translator with its .spm"

    def recognises(self, path: Path) -> bool:
        return bool(models(path))

    def files(self, path: Path) -> list[Path]:
        model = only(path)
        return [model, *sorted(model.parent.glob("*.spm"))]

    def write(self, path: Path, folder: Path) -> None:
        model = only(path)
        stored = read(model)
        settings = read_settings(stored, model)
        tokens = read_tokens(model)
        config = configured(settings, stored, tokens, model)
        state = dict(weights(stored, config, model))
        save(folder, build_model(config, state, str(model)), tokens, SOURCE)


def models(path: Path) -> list[Path]:
    """Marian's binary files at `path`."""
    found = sorted(path.glob("*.bin")) if path.is_dir() else [path] if path.suffix == ".bin" else []
    return [file for file in found if begins_well(file)]


def begins_well(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(START.size + EACH.size)
    if len(start) < START.size + EACH.size:
        return False
    version, count = START.unpack_from(start)
    name, kind, dimensions, _ = EACH.unpack_from(start, START.size)
    return version == 1 and 0 < count <= MOST and 1 < name <= MOST and kind < MOST and dimensions < 8


def only(path: Path) -> Path:
    found = models(path)
    if len(found) != 1:
        names = ", ".join(file.name for file in found)
        raise InputError(f"holds {len(found)} models ({names})", where=str(path), then=f"name one: {found[0]}")
    return found[0]


def read(path: Path) -> dict[str, Stored]:
    """All tensors by name. Raises InputError if the file is cut off or damaged."""
    data = path.read_bytes()
    _, count = START.unpack_from(data)
    at = START.size + count * EACH.size
    try:
        entries = [EACH.unpack_from(data, START.size + i * EACH.size) for i in range(count)]
        ends = [at := at + length for length, *_ in entries]
        names = [data[end - entry[0] : end].rstrip(b"\0").decode() for entry, end in zip(entries, ends, strict=True)]
        shapes: list[tuple[int, ...]] = []
        for _, _, dimensions, _ in entries:
            shapes.append(struct.unpack_from(f"<{min(dimensions, MOST)}i", data, at))
            at += 4 * dimensions
        at += 8 + struct.unpack_from("<Q", data, at)[0]
    except (struct.error, ValueError) as error:
        raise InputError(f"its list of tensors is damaged ({error})", where=str(path), then=AGAIN) from error
    wanted = at + sum(entry[3] for entry in entries)
    if len(data) != wanted:
        raise InputError(f"is {len(data)} bytes, and its header says {wanted}", where=str(path), then=AGAIN)
    stored: dict[str, Stored] = {}
    for name, shape, (_, kind, _, size) in zip(names, shapes, entries, strict=True):
        stored[name] = Stored(kind, shape, data[at : at + size])
        at += size
    return stored


def read_settings(stored: Mapping[str, Stored], path: Path) -> dict[str, str]:
    """The settings of the model. Raises InputError naming one that is missing or would need other equations."""
    if SETTINGS not in stored:
        raise InputError(f"holds no {SETTINGS}", where=str(path), then=AGAIN)
    text = stored[SETTINGS].values.rstrip(b"\0").decode("utf-8", "replace")
    found = {key: value.strip("\"'") for key, value in re.findall(r"^([\w-]+): *(.*?) *$", text, re.MULTILINE)}
    for key, values in NEEDED.items():
        if found.get(key) not in values:
            known = " or ".join(repr(value) for value in values)
            raise InputError(
                f"{SETTINGS}: {key} is {found.get(key)!r}, and only {known} is implemented",
                where=str(path),
                then="name a translator with an SSRU decoder",
            )
    for key in ("enc-depth", "dec-depth", "transformer-heads", "transformer-dim-ffn", "dim-emb"):
        if not found.get(key, "").isdecimal():
            raise InputError(f"{SETTINGS}: {key} is {found.get(key)!r}, not a number", where=str(path), then=AGAIN)
    return found


def read_tokens(model: Path) -> Tokens:
    """The one .spm beside the model, which source and target share, and the pad after its pieces."""
    found = sorted(model.parent.glob("*.spm"))
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise InputError(f"needs one .spm beside it, and there is {names}", where=str(model), then=AGAIN)
    read = spm.read(found[0])
    end = next((name for name in ("</s>", "<eos>") if name in read.of_kind(spm.CONTROL)), None)
    if end is None:
        raise InputError("has no piece that ends a sentence", where=str(found[0]), then=AGAIN)
    tokenizer = spm.build(read, end=end)
    tokenizer.add_special_tokens([PAD])
    return Tokens(tokenizer, eos=end, pad=PAD, unk=read.unknown, template=TEMPLATE, where=str(found[0]))


def configured(settings: Mapping[str, str], stored: Mapping[str, Stored], tokens: Tokens, path: Path) -> SsruConfig:
    words = stored["Wemb"].shape[0] if "Wemb" in stored and stored["Wemb"].shape else 0
    assert tokens.pad_id is not None
    if words != tokens.pad_id:
        raise InputError(
            f"has {words} embeddings, and its .spm {tokens.pad_id} pieces", where=str(path), then="take both again"
        )
    heads, inner = int(settings["transformer-heads"]), int(settings["transformer-dim-ffn"])
    return SsruConfig(
        vocab_size=words + 1,
        d_model=int(settings["dim-emb"]),
        encoder_layers=int(settings["enc-depth"]),
        decoder_layers=int(settings["dec-depth"]),
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=inner,
        decoder_ffn_dim=inner,
        max_position_embeddings=512,  # of the file's own there is none: waves have no end
        activation_function=settings["transformer-ffn-activation"],
        scale_embedding=True,
        eos_token_id=tokens.eos_id,
        pad_token_id=tokens.pad_id,
        decoder_start_token_id=tokens.pad_id,
    )


def named(config: SsruConfig) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """The file's name of each tensor, ours, and the shape it should have there (in, out)."""
    width, inner = config.d_model, config.encoder_ffn_dim
    sides = (("encoder", config.encoder_layers), ("decoder", config.decoder_layers))
    for side, depth in sides:
        attention = ("self", "self_attn") if side == "encoder" else ("context", "encoder_attn")
        for i in range(depth):
            theirs, ours = f"{side}_l{i + 1}", f"model.{side}.layers.{i}"
            for letter, name in ATTENTION.items():
                yield f"{theirs}_{attention[0]}_W{letter}", f"{ours}.{attention[1]}.{name}.weight", (width, width)
                yield f"{theirs}_{attention[0]}_b{letter}", f"{ours}.{attention[1]}.{name}.bias", (1, width)
            yield f"{theirs}_ffn_W1", f"{ours}.fc1.weight", (width, inner)
            yield f"{theirs}_ffn_b1", f"{ours}.fc1.bias", (1, inner)
            yield f"{theirs}_ffn_W2", f"{ours}.fc2.weight", (inner, width)
            yield f"{theirs}_ffn_b2", f"{ours}.fc2.bias", (1, width)
            norms = {f"{attention[0]}_Wo": f"{attention[1]}_layer_norm", "ffn_ffn": "final_layer_norm"}
            if side == "decoder":
                norms |= {"rnn_ffn": "ssru_layer_norm"}
                yield f"{theirs}_rnn_W", f"{ours}.ssru.candidate.weight", (width, width)
                yield f"{theirs}_rnn_Wf", f"{ours}.ssru.forget_gate.weight", (width, width)
                yield f"{theirs}_rnn_bf", f"{ours}.ssru.forget_gate.bias", (1, width)
            for their_norm, our_norm in norms.items():
                yield f"{theirs}_{their_norm}_ln_scale", f"{ours}.{our_norm}.weight", (1, width)
                yield f"{theirs}_{their_norm}_ln_bias", f"{ours}.{our_norm}.bias", (1, width)


def weights(stored: Mapping[str, Stored], config: SsruConfig, path: Path) -> Iterator[tuple[str, Tensor]]:
    """The weights by our names. The decoder starts with nothing: a row of zeros, that of the pad, is added.

    Raises InputError naming a tensor that is missing, not known, or not of its shape.
    """
    words, wanted = config.vocab_size - 1, list(named(config))
    known = {name for name, _, _ in wanted} | {"Wemb", "decoder_ff_logit_out_b", SETTINGS}
    extra = [name for name in stored if name not in known and not name.endswith("_QuantMultA")]  # of activations
    if extra:
        raise InputError(f"tensor {min(extra)!r} is not known", where=str(path), then="name another translator")
    table = floated("Wemb", stored, (words, config.d_model), path)
    yield "model.shared.weight", torch.cat([table, table.new_zeros(1, config.d_model)])
    bias = floated("decoder_ff_logit_out_b", stored, (1, words), path)
    yield "final_logits_bias", torch.cat([bias, bias.new_full((1, 1), SILENT)], 1)
    for theirs, ours, shape in wanted:
        tensor = floated(theirs, stored, shape, path)
        yield ours, tensor.flatten() if shape[0] == 1 else tensor.T.contiguous()


def floated(name: str, stored: Mapping[str, Stored], shape: tuple[int, ...], path: Path) -> Tensor:
    """A tensor as float32 numbers of this shape, whatever it is stored as."""
    if name not in stored:
        raise InputError(f"tensor {name!r} is missing", where=str(path), then=AGAIN)
    found, count = stored[name], math.prod(shape)
    if found.shape != shape or found.kind not in (FLOAT, INT8):
        raise InputError(
            f"tensor {name!r} is {list(found.shape)} of kind {found.kind:#x}, and should be {list(shape)} of "
            f"{FLOAT:#x} or {INT8:#x}",
            where=str(path),
            then="name a file whose weights are not packed for one processor",
        )
    if found.kind == FLOAT:
        return floats(found.values[: 4 * count], shape, name, path)
    multiplier = floats(found.values[count : count + 4], (1,), f"the multiplier of {name}", path).numpy()
    whole = np.frombuffer(found.values, "i1", count)
    whole = whole.reshape(shape) if name == "Wemb" else whole.reshape(shape[::-1]).T
    with np.errstate(divide="ignore", invalid="ignore"):  # a multiplier of 0 gives what `checked` refuses
        return checked(whole / multiplier, shape, name, path)
