"""Our model beside transformers' with the same weights: each check is the largest difference that it found.

`parity_cases.py` holds the variants, `test_parity.py` runs every check on each, `benchmarks/parity.py` prints them.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from qualm.lm import search
from qualm.lm.decode import steps
from qualm.models._caches import Cache
from qualm.models.base import Causal, Encoder, EncoderDecoder, Model
from qualm.models.store import load_model, save_model

ALLOWED = 1e-4  # of logits and hidden states, absolute
LENGTHS = (4, 11, 7)  # of the texts of a batch that is padded
WIDTH, TARGET, WRITTEN = 24, 9, 30  # tokens of a text, of what is read under a source, and written greedily
PAD = 3  # what fills our rows: no model may look at it


@dataclass(frozen=True)
class Variant:
    """A tiny model of transformers: `options` are its config's, `spread` the standard deviation of some weights."""

    family: str
    name: str
    config: str
    auto: str
    options: Mapping[str, Any]
    spread: Mapping[str, float] = field(default_factory=dict)  # by the end of a weight's name; others: 0.3
    untied: bool = False  # the head has weights of its own, which transformers' config for it cannot say
    without: frozenset[str] = frozenset()  # checks that mean nothing for it

    def __str__(self) -> str:
        return f"{self.family} {self.name}"

    def build(self) -> Any:
        """transformers' model of this config."""
        kind = getattr(transformers, self.auto)
        model = kind.from_config(getattr(transformers, self.config)(**self.options))
        if self.untied:
            model.lm_head.weight = nn.Parameter(torch.empty_like(model.lm_head.weight))
        return drawn(model, 7, self.spread)


@dataclass(frozen=True)
class Texts:
    """What is read: ids (B, T) padded on the right to `lengths` (B,), and what is read under them (B, L), if so."""

    ids: Tensor
    lengths: Tensor | None = None
    under: Tensor | None = None
    segments: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def row(self, i: int) -> "Texts":
        """One text without its padding."""
        length = self.ids.shape[1] if self.lengths is None else int(self.lengths[i])
        cut = {"ids": self.ids[i : i + 1, :length], "lengths": None}
        cut["under"] = None if self.under is None else self.under[i : i + 1]
        cut["segments"] = None if self.segments is None else self.segments[i : i + 1, :length]
        return Texts(**cut)


@dataclass(frozen=True)
class Pair:
    """The same weights in our model and in theirs, written by them; the same again, written by us; and the texts."""

    ours: Any
    theirs: Any
    written: "Written"
    whole: Texts
    padded: Texts
    without: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Written:
    """What transformers made of a folder that we wrote, and the names of tensors that it missed or did not know."""

    ours: Any
    theirs: Any
    wrong: Mapping[str, Any]


@torch.no_grad()
def drawn(model: nn.Module, seed: int, spread: Mapping[str, float]) -> Any:
    """All weights that can be taught anew, those of norms around 1: every term counts, and logits are of order 1."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in sorted(model.state_dict(keep_vars=True).items()):
        if weight.requires_grad or name == "final_logits_bias":
            norm = name.endswith("weight") and ("norm" in name.lower() or ".ln_" in name)
            wide = next((value for end, value in spread.items() if name.endswith(end)), 0.3)
            weight.normal_(float(norm), wide, generator=generator)
    return model.eval()


def pair_of(variant: Variant, folder: Path) -> Pair:
    """Written by transformers and read by us; and the other way, with other weights."""
    theirs = variant.build()
    theirs.save_pretrained(folder)
    ours, others = load_model(folder), drawn(load_model(folder), 8, variant.spread)
    back = written(others, folder / "ours", variant.auto)
    return Pair(ours, theirs, back, *texts_for(theirs.config, ours), variant.without)


def written(ours: Model, folder: Path, auto: str) -> Written:
    save_model(ours, folder)
    theirs, report = getattr(transformers, auto).from_pretrained(folder, output_loading_info=True, dtype=torch.float32)
    return Written(ours, theirs.eval(), {what: names for what, names in report.items() if names})


def texts_for(config: Any, ours: Model) -> tuple[Texts, Texts]:
    """Three texts of one length, and three of unlike lengths with rubbish behind them; no special ids."""
    generator = torch.Generator().manual_seed(3)
    three = [torch.randint(5, config.vocab_size, (3, n), generator=generator) for n in (WIDTH, WIDTH, TARGET)]
    under = segments = None
    if isinstance(ours, EncoderDecoder):
        under = three[2]
        under[:, 0] = config.decoder_start_token_id
    if isinstance(ours, Encoder) and getattr(config, "type_vocab_size", 0) > 1:
        segments = (torch.arange(WIDTH) >= 3).long().repeat(3, 1)
    lengths, width = torch.tensor(LENGTHS), max(LENGTHS)
    beyond = torch.arange(width) >= lengths[:, None]
    ids = three[1][:, :width].masked_fill(beyond, PAD)
    cut = None if segments is None else segments[:, :width]
    return Texts(three[0], None, under, segments), Texts(ids, lengths, under, cut)


def hidden_by_us(model: Any, texts: Texts) -> Tensor:
    if isinstance(model, EncoderDecoder):
        return model.hidden(texts.under, model.encode(texts.ids, texts.lengths))
    if isinstance(model, Encoder):
        return model.hidden(texts.ids, texts.lengths, texts.segments)
    return model.hidden(texts.ids, lengths=texts.lengths)


def read_by_us(model: Any, texts: Texts) -> Tensor:
    if isinstance(model, EncoderDecoder):
        return model(texts.ids, texts.under, texts.lengths)
    if isinstance(model, Encoder):
        return model(texts.ids, texts.lengths, texts.segments)
    return model(texts.ids, lengths=texts.lengths)


def read_by_them(model: Any, texts: Texts, left: bool = False, **more: Any) -> Any:
    """transformers' output; rows are padded on the left if `left`."""
    given: dict[str, Any] = {"input_ids": texts.ids, **more}
    if texts.lengths is not None:
        given |= as_padded(model, texts.ids, texts.lengths, left)
    if texts.under is not None:
        given["decoder_input_ids"] = texts.under
    if texts.segments is not None:
        given["token_type_ids"] = texts.segments
        if left and texts.lengths is not None:
            given["token_type_ids"] = shifted(texts.segments, texts.lengths)
    return model(**given)


def as_padded(model: Any, ids: Tensor, lengths: Tensor, left: bool) -> dict[str, Tensor]:
    """Ids filled up with the model's padding id, a mask, and positions if rows begin late and the model takes them."""
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    ids = ids.masked_fill(mask == 0, model.config.pad_token_id or 0)
    if not left:
        return {"input_ids": ids, "attention_mask": mask}
    given = {"input_ids": shifted(ids, lengths), "attention_mask": shifted(mask, lengths)}
    if takes_positions(model):
        given["position_ids"] = (given["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    return given


def takes_positions(model: Any) -> bool:
    own = type(model).__name__.startswith("Roberta")  # works them out from the padding ids
    return "position_ids" in inspect.signature(model.forward).parameters and not own


def shifted(rows: Tensor, lengths: Tensor, back: bool = False) -> Tensor:
    """Padding moved from the right end of each row (B, T, ...) to the left one, or back."""
    width = rows.shape[1]
    by = [int(n) - width if back else width - int(n) for n in lengths]
    return torch.stack([row.roll(n, 0) for row, n in zip(rows, by, strict=True)])


def logits_of(output: Any) -> Tensor:
    if "start_logits" in output:
        return torch.stack((output.start_logits, output.end_logits), -1)
    return output.logits if "logits" in output else output.last_hidden_state


def largest(ours: Tensor, theirs: Tensor, texts: Texts | None = None) -> float:
    """The largest difference; of real tokens only, if `texts` are padded and are what is read out."""
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    if texts is not None and texts.lengths is not None and texts.under is None and ours.dim() == 3:
        counts = torch.arange(ours.shape[1]) < texts.lengths[:, None]
        ours, theirs = ours[counts], theirs[counts]
    difference = (ours - theirs).abs().max().item()
    return difference if difference == difference else float("inf")


def they_write_we_load(pair: Pair) -> float:
    return largest(read_by_us(pair.ours, pair.whole), logits_of(read_by_them(pair.theirs, pair.whole)))


def we_write_they_load(pair: Pair) -> float:
    ours, theirs = pair.written.ours, pair.written.theirs
    return largest(read_by_us(ours, pair.whole), logits_of(read_by_them(theirs, pair.whole)))


def keys(pair: Pair) -> float:
    """How many tensors of ours transformers does not know, misses, or finds of another shape."""
    return float(sum(map(len, pair.written.wrong.values())))


def hidden_states(pair: Pair) -> float:
    """What each layer reads, and what the last norm gives."""
    output = read_by_them(pair.theirs, pair.whole, output_hidden_states=True)
    theirs = output.get("hidden_states") or (*output["encoder_hidden_states"], *output["decoder_hidden_states"])
    with watched(pair.ours) as ours:
        ours[-1:] = [hidden_by_us(pair.ours, pair.whole)]
    assert len(ours) == len(theirs), (len(ours), len(theirs))
    return max(largest(a, b) for a, b in zip(ours, theirs, strict=True))


@contextmanager
def watched(model: nn.Module) -> Iterator[list[Tensor]]:
    """Fills a list with what every layer of every stack reads, and with what the stack gives in the end: the norm that
    stands behind the layers, or the last of them.
    """
    seen: list[Tensor] = []
    hooks, inside = [], set[nn.Module]()
    for stack in model.modules():
        children = list(stack.children())
        for layers, behind in pairwise([*children, None]):
            if isinstance(layers, nn.ModuleList) and layers not in inside:
                inside |= set(layers.modules())
                hooks += [layer.register_forward_pre_hook(lambda _, given: seen.append(given[0])) for layer in layers]
                hooks.append((behind or layers[-1]).register_forward_hook(lambda *args: seen.append(args[2])))
    yield seen
    for hook in hooks:
        hook.remove()


def token_by_token(pair: Pair) -> float | None:
    """With a cache, from nothing and after texts of unlike lengths, against all at once."""
    model, texts = pair.ours, pair.padded
    if not isinstance(model, Causal):
        return None
    if texts.under is not None:
        return largest(piece_by_piece(model, texts.under, opened(model, texts)), read_by_us(model, texts))
    worst = largest(piece_by_piece(model, pair.whole.ids, opened(model, texts)), read_by_us(model, pair.whole))
    cache, more = opened(model, texts), pair.whole.ids[:, :TARGET]
    model.hidden(texts.ids, cache, texts.lengths)
    for i, said in enumerate(piece_by_piece(model, more, cache)):
        row = torch.cat((texts.row(i).ids, more[i : i + 1]), 1)
        worst = max(worst, largest(said, model(row)[0, -TARGET:]))
    return worst


def piece_by_piece(model: Causal, ids: Tensor, cache: Cache) -> Tensor:
    return torch.cat([model.head(model.hidden(ids[:, t : t + 1], cache)) for t in range(ids.shape[1])], 1)


def opened(model: Any, texts: Texts) -> Cache:
    """A cache too short for what comes: it must grow."""
    if isinstance(model, EncoderDecoder):
        return model.encode(texts.ids, texts.lengths, room=2)
    return model.new_cache(len(texts), 2)


def batch_against_single(pair: Pair) -> float:
    together = read_by_us(pair.ours, pair.whole)
    alone = torch.cat([read_by_us(pair.ours, pair.whole.row(i)) for i in range(len(together))])
    return largest(together, alone)


def right_padding(pair: Pair) -> float:
    """Against transformers padded alike, and against each text alone."""
    ours = read_by_us(pair.ours, pair.padded)
    worst = largest(ours, logits_of(read_by_them(pair.theirs, pair.padded)), pair.padded)
    for i in range(len(ours)):
        alone = read_by_us(pair.ours, pair.padded.row(i))[0]
        worst = max(worst, largest(ours[i, : len(alone)] if ours.dim() == 3 else ours[i], alone))
    return worst


def left_padding(pair: Pair) -> float | None:
    """transformers padded on the left, against ours padded on the right."""
    if not left_padding_means_something(pair):
        return None
    theirs = logits_of(read_by_them(pair.theirs, pair.padded, left=True))
    lengths = pair.padded.lengths
    assert lengths is not None
    if pair.padded.under is None:
        theirs = shifted(theirs, lengths, back=True)
    return largest(read_by_us(pair.ours, pair.padded), theirs, pair.padded)


def left_padding_means_something(pair: Pair) -> bool:
    """Not where the first place is read out, nor where positions are counted from the left end of the row."""
    if isinstance(pair.ours, Encoder):
        return pair.ours.config.head != "sequence"
    relative = hasattr(pair.theirs.config, "relative_attention_num_buckets")
    return takes_positions(pair.theirs) or relative


def greedy(pair: Pair) -> float | None:
    """How many of the tokens that each writes after or under padded texts are not the other's."""
    model, texts = pair.ours, pair.padded
    if not isinstance(model, Causal):
        return None
    assert texts.lengths is not None
    under = isinstance(model, EncoderDecoder)
    given = as_padded(pair.theirs, texts.ids, texts.lengths, left=not under)
    given.pop("position_ids", None)  # `generate` works them out from the mask
    wanted = written_by_them(pair.theirs, given, model.never)[:, 1 if under else texts.ids.shape[1] :]
    rows = [row[:n].tolist() for row, n in zip(texts.ids, texts.lengths.tolist(), strict=True)]
    prompts = [[model.config.decoder_start_token_id]] * len(rows) if under else rows
    return float((written_by_us(model, prompts, opened(model, texts)) != wanted).sum())


def written_by_us(model: Causal, prompts: Sequence[Sequence[int]], cache: Cache) -> Tensor:
    moves = islice(steps(model, prompts, cache, search.greedy(prompts, model.never)), WRITTEN)
    return torch.tensor([[move.written[0].token for move in step] for step in moves]).T


def written_by_them(model: Any, given: Mapping[str, Tensor], never: Sequence[int]) -> Tensor:
    """No token ends the text, and none is forced."""
    start = getattr(model.config, "decoder_start_token_id", None)
    model.generation_config = transformers.GenerationConfig(
        max_new_tokens=WRITTEN, pad_token_id=0, decoder_start_token_id=start, suppress_tokens=list(never) or None
    )
    return model.generate(**given)


CHECKS: Mapping[str, Callable[[Pair], float | None]] = {
    "they write, we load": they_write_we_load,
    "we write, they load": we_write_they_load,
    "keys": keys,
    "hidden states": hidden_states,
    "token by token": token_by_token,
    "batch": batch_against_single,
    "right padding": right_padding,
    "left padding": left_padding,
    "greedy": greedy,
}


@torch.no_grad()
def measured(pair: Pair) -> dict[str, float | None]:
    """Every check by name; None where it means nothing for this model."""
    return {name: None if name in pair.without else check(pair) for name, check in CHECKS.items()}


@torch.no_grad()
def scale(pair: Pair) -> float:
    """The standard deviation of the logits."""
    return logits_of(read_by_them(pair.theirs, pair.whole)).std().item()
