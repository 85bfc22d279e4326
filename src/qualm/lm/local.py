"""A model whose weights are here: ids by its tokenizer, numbers by its forward pass."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from qualm.errors import InputError, Unsupported
from qualm.files import read_json, write_json
from qualm.lm.base import LM, Card, Completion, Prompt, Sampling, Scored
from qualm.lm.decode import Writer, check, steps
from qualm.lm.scoring import logprobs
from qualm.models.base import Decoder
from qualm.models.store import bytes_of, parameters, save_model, weights_hash
from qualm.tokens.tokenizer import Tokens, opened

SCHEMA = "qualm.model/1"
ROWS = 32  # prompts answered at once
HELD = 16384  # tokens, read and to be written, that those rows may come to


class Local(LM):
    """A decoder and its tokenizer.

    `world` holds the settings of the planted world it was trained on, `mends` the reprs of the mends in its
    weights. The weights must not change while it is in use: `replace` gives a new one.
    """

    can = frozenset({"generate", "score", "weights"})

    def __init__(
        self,
        model: Decoder,
        tokens: Tokens,
        *,
        name: str = "",
        path: Path | None = None,
        world: Mapping[str, Any] | None = None,
        mends: Sequence[str] = (),
    ):
        self.model, self.tokens, self.path = model.eval(), tokens, path
        self.name = name or (path.name if path else model.config.model_type)
        self.world, self.mends = world, tuple(mends)

    @cached_property
    def card(self) -> Card:  # type: ignore[override]
        return Card(
            family=self.model.config.model_type,
            parameters=parameters(self.model),
            bytes=bytes_of(self.model),
            weights=weights_hash(self.model),
            tokenizer=self.tokens.hash,
            template=self.tokens.template_hash,
            world=self.world,
            mends=self.mends,
        )

    @cached_property
    def ends(self) -> frozenset[int]:
        """The ids after which nothing more is said: the tokenizer's files', and those the model's config names."""
        named = self.model.config.eos_token_id
        more = () if named is None else (named,) if isinstance(named, int) else named
        return self.tokens.eos_ids | frozenset(more)

    @property
    def context(self) -> int:
        """The most tokens the model can look at."""
        return self.model.config.max_position_embeddings

    def replace(self, model: Decoder, by: str = "") -> "Local":
        """The same with other weights; `by` is the repr of the mend that made them."""
        name = f"{self.name}+{by.split('(')[0].lower()}" if by else self.name
        mends = (*self.mends, by) if by else self.mends
        return Local(model, self.tokens, name=name, path=self.path, world=self.world, mends=mends)

    # -- scoring

    def score(self, pairs: Sequence[tuple[Prompt, str]]) -> list[Scored]:
        """Texts longer than the model's context are read in windows (see `scoring.windows`).

        Raises Unsupported if nothing stands before a text and the tokenizer has no token that starts a document.
        """
        texts = [self.tokens.encode_pair(context, continuation) for context, continuation in pairs]
        if any(first == 0 and ids for ids, first in texts):
            raise Unsupported(
                f"{self.name} cannot score a text that nothing stands before: its tokenizer names no bos or eos",
                then="give a context",
            )
        return [Scored(tuple(values)) for values in logprobs(self.model, texts, self.context)]

    # -- generation

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling = Sampling()) -> list[Completion]:
        """`max_tokens` is cut to what the model's context has left.

        Raises Unsupported if a prompt fills the context, UsageError on settings that mean nothing.
        """
        check(sampling)
        encoded = [self._encode(prompt) for prompt in prompts]
        completions: dict[int, Completion] = {}
        for batch in self._batches(encoded, sampling.max_tokens):
            writers = [self._writer(prompts[i], encoded[i], sampling) for i in batch]
            done = {row for row, writer in enumerate(writers) if writer.finish}
            if len(done) < len(batch):
                for new in steps(self.model, [encoded[i] for i in batch], sampling, done):
                    for row, token, logprob in new:
                        writers[row].push(token, logprob)
                        if writers[row].finish:
                            done.add(row)
            completions |= {i: w.completion(len(encoded[i])) for i, w in zip(batch, writers, strict=True)}
        return [completions[i] for i in range(len(prompts))]

    def stream(self, prompt: Prompt, sampling: Sampling = Sampling()) -> Iterator[str]:
        """As `generate`, each piece as soon as no stop string and no further byte can change it."""
        check(sampling)
        ids = self._encode(prompt)
        writer, sent = self._writer(prompt, ids, sampling), 0
        done: set[int] = {0} if writer.finish else set()
        for new in steps(self.model, [ids], sampling, done) if not done else ():
            for _, token, logprob in new:
                writer.push(token, logprob)
            if writer.finish:
                done.add(0)
            sure = writer.sure
            if sure > sent:
                yield writer.text[sent:sure]
                sent = sure

    def _encode(self, prompt: Prompt) -> list[int]:
        ids = self.tokens.encode_prompt(prompt)
        if not ids:
            raise Unsupported(
                f"{self.name} cannot continue nothing: its tokenizer names no bos or eos", then="give a prompt"
            )
        if len(ids) >= self.context:
            raise Unsupported(
                f"the prompt has {len(ids)} tokens and {self.name} can look at {self.context}, the answer included",
                then="shorten the prompt",
            )
        return ids

    def _writer(self, prompt: Prompt, ids: Sequence[int], sampling: Sampling) -> Writer:
        begun = isinstance(prompt, str) or opened(prompt)[1]
        lead = "" if begun else self.tokens.lead
        return Writer(self.tokens.detokenizer(ids), sampling, self.ends, self.context - len(ids), lead)

    def _batches(self, encoded: Sequence[Sequence[int]], max_tokens: int) -> Iterator[list[int]]:
        """Indices of prompts of like length, longest first."""
        batch: list[int] = []
        longest = 0
        for i in sorted(range(len(encoded)), key=lambda i: -len(encoded[i])):
            longest = longest if batch else min(len(encoded[i]) + max_tokens, self.context)
            if batch and (len(batch) == ROWS or (len(batch) + 1) * longest > HELD):
                yield batch
                batch, longest = [], min(len(encoded[i]) + max_tokens, self.context)
            batch.append(i)
        if batch:
            yield batch

    # -- files

    def save(self, path: Path | str) -> None:
        """Weights, config, tokenizer, generation_config.json and qualm.json: a directory that `load` and
        transformers read. qualm.json comes last, so a directory that has one is whole.
        """
        folder = Path(path)
        save_model(self.model, folder)
        self.tokens.save(folder)
        ids = {"bos_token_id": self.tokens.bos_id, "pad_token_id": self.tokens.pad_id}
        generation = {name: i for name, i in ids.items() if i is not None}
        write_json(folder / "generation_config.json", {**generation, "eos_token_id": sorted(self.ends)})
        about = {"schema": SCHEMA, "name": self.name, "world": self.world, "mends": list(self.mends)}
        write_json(folder / "qualm.json", about)


def read_about(folder: Path) -> dict[str, Any]:
    """The content of qualm.json: {} if there is none. Raises InputError if it is not what `Local.save` writes."""
    file = folder / "qualm.json"
    about = read_json(file) if file.is_file() else {}
    if not isinstance(about, dict) or (about and about.get("schema") != SCHEMA):
        raise InputError(f"is not a {SCHEMA} file", where=str(file), then="mend it or remove it")
    if not isinstance(about.get("world"), dict | None) or not is_words(about.get("mends", [])):
        raise InputError("its world is no object, or its mends are no list of words", where=str(file))
    return about


def is_words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) for word in value)
