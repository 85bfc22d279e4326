"""Tokens: text to ids and back, with the chat template, in the Hugging Face layout.

What stands in a message is text: only the template's own markers become control tokens.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import AddedToken, Encoding, Tokenizer

from qualm.cases import Message, Prompt
from qualm.errors import InputError, Unsupported
from qualm.files import hash_json, write_json, write_text
from qualm.tokens import kinds
from qualm.tokens.detokenizer import ByteDetokenizer, Detokenizer, WindowDetokenizer
from qualm.tokens.settings import NAMES, read_ends, read_settings, whole
from qualm.tokens.template import DEFAULT, Guard, Template, check_unicode, without_control


class Encoded(NamedTuple):
    """Ids, and for each the half-open range of characters it stands for."""

    ids: list[int]
    offsets: list[tuple[int, int]]


@dataclass(frozen=True, eq=False)
class Tokens:
    """A tokenizer and what its files say of it. `settings` is the rest of tokenizer_config.json.

    `bos`, `eos`, `pad`, `unk` are spellings, "" where there is none; `more_ends` are further ids that end an answer.
    `target` cuts what is written where that is not cut as what is read is (Marian); the ids are the same ones.
    A model that brings no chat template gets "Question: ...\\nAnswer:" (`qualm.tokens.template.DEFAULT`).
    """

    tokenizer: Tokenizer
    bos: str = ""
    eos: str = ""
    pad: str = ""
    unk: str = ""
    template: str = DEFAULT
    more_ends: tuple[int, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    where: str = "tokenizer"
    target: Tokenizer | None = None

    def __post_init__(self) -> None:
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        for name in NAMES:
            spelled = getattr(self, name[:3])
            if spelled and self.tokenizer.token_to_id(spelled) is None:
                raise InputError(f"the {name} {spelled!r} is not in the vocabulary", where=self.where)
        whole(lambda: self.start, self.where)  # some damage shows only in use

    # -- facts

    @property
    def vocab_size(self) -> int:
        """One more than the highest id."""
        return self._highest + 1

    @cached_property
    def _highest(self) -> int:
        return max(self.tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)

    @cached_property
    def special(self) -> dict[str, int]:
        """Spelling and id of the control tokens."""
        return {t.content: i for i, t in self.tokenizer.get_added_tokens_decoder().items() if t.special and t.content}

    @property
    def bos_id(self) -> int | None:
        return self.tokenizer.token_to_id(self.bos) if self.bos else None

    @property
    def eos_id(self) -> int | None:
        return self.tokenizer.token_to_id(self.eos) if self.eos else None

    @property
    def pad_id(self) -> int | None:
        return self.tokenizer.token_to_id(self.pad) if self.pad else None

    @cached_property
    def mask(self) -> str:
        """The marker of a word to be filled in, "" if there is none."""
        named = self.settings.get("mask_token") or ""
        spelled = str(named["content"] if isinstance(named, Mapping) else named)
        return spelled if spelled in self.special else ""

    @property
    def mask_id(self) -> int | None:
        return self.special.get(self.mask)

    @cached_property
    def eos_ids(self) -> frozenset[int]:
        """The ids after which nothing more is said."""
        return frozenset(self.more_ends) | (frozenset() if self.eos_id is None else {self.eos_id})

    @cached_property
    def hash(self) -> str:
        """The same for two tokenizers that split alike and name the same special tokens."""
        named = [self.bos, self.eos, self.pad, self.unk, *([self.mask] if self.mask else [])]
        cut = [json.loads(which.to_str()) for which in (self.tokenizer, self.target) if which]
        return hash_json([*cut, *named])

    @cached_property
    def template_hash(self) -> str:
        return hash_json(self.template)

    @cached_property
    def start(self) -> tuple[int, ...]:
        """The ids that the tokenizer puts before a text (often none)."""
        return self._frame[0]

    @cached_property
    def end(self) -> tuple[int, ...]:
        """The ids that the tokenizer puts after a text (none for a decoder's)."""
        return self._frame[1]

    @cached_property
    def _frame(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        encoding = self.tokenizer.encode("a", add_special_tokens=True)
        ids, mask = encoding.ids, encoding.special_tokens_mask
        if 0 not in mask:
            return (), ()
        return tuple(ids[: mask.index(0)]), tuple(ids[len(ids) - mask[::-1].index(0) :])

    @cached_property
    def document_start(self) -> tuple[int, ...]:
        """What to put before a text that nothing stands before: a document starts where another ends."""
        found = [i for i in (self.bos_id, self.eos_id) if i is not None]
        return self.start or tuple(found[:1])

    @cached_property
    def lead(self) -> str:
        """What the chat template puts between the end of a prompt and the answer (" " after "Answer:")."""
        question, answer = {"role": "user", "content": "1"}, "\u2042"
        try:
            asked = self.render([question], generation=True)
            answered = self.render([question, {"role": "assistant", "content": answer}])
        except Unsupported:
            return ""
        return answered[len(asked) : answered.find(answer)] if answered.startswith(asked) and answer in answered else ""

    # -- text to ids

    @cached_property
    def plain(self) -> Tokenizer:
        """The tokenizer as it reads text: no spelled marker is one."""
        tokenizer = without_control(self.tokenizer, self.special)
        tokenizer.encode_special_tokens = True
        return tokenizer

    @cached_property
    def _guard(self) -> Guard:
        return Guard(self.special)

    @cached_property
    def _template(self) -> Template:
        return Template(self.template, self.where)

    def encode(self, text: str, special: bool = False) -> list[int]:
        """The ids of a text; `decode` gives it back. Nothing is put before or after it.

        With `special`, spelled markers become control tokens: for text that this program wrote (a rendered
        template), never for a user's.
        """
        return self.offsets(text, special).ids

    def encode_many(self, texts: Sequence[str], special: bool = False) -> list[list[int]]:
        """`encode` of each, by several threads."""
        for text in texts:
            check_unicode(text)
        which = self.tokenizer if special else self.plain
        return [e.ids for e in which.encode_batch_fast(list(texts), add_special_tokens=False)]

    def offsets(self, text: str, special: bool = False) -> Encoded:
        """The ids of a text with the characters each stands for; a character's bytes may be spread over several."""
        check_unicode(text)
        encoding: Encoding = (self.tokenizer if special else self.plain).encode(text, add_special_tokens=False)
        return Encoded(encoding.ids, encoding.offsets)

    def encode_prompt(self, prompt: Prompt, generation: bool = True) -> list[int]:
        """The ids to continue: a text after the tokenizer's start tokens, or messages in the chat template.

        With `generation`, a last message of the assistant's is to be gone on with: it is left open.
        """
        if isinstance(prompt, str):
            return [*self.start, *self.encode(prompt)] if prompt else list(self.document_start)
        asked, begun = opened(prompt) if generation else (prompt, "")
        text = self._answered(asked, begun)[0] if begun else self.render_protected(asked, generation)
        return self.encode_rendered(text).ids

    def encode_source(self, prompt: Prompt) -> list[int]:
        """The ids of a text to be read whole, between the tokenizer's start and end tokens; messages are rendered, and
        what the assistant has begun to say ends them. No text is what a document starts with, if nothing frames it.
        """
        ids = self.encode(prompt) if isinstance(prompt, str) else self.encode_prompt(prompt)
        return [*self.start, *ids, *self.end] or list(self.document_start)

    def encode_target(self, text: str) -> list[int]:
        """`encode` of a text that is written under a source."""
        return self._target.encode(text)

    @cached_property
    def _target(self) -> "Tokens":
        return replace(self, tokenizer=self.target, target=None) if self.target else self

    def encode_masked(self, text: str) -> list[int]:
        """The ids of a text in which `mask` is spelled where a word is to be filled in; other markers are text."""
        return self.encode_rendered(self.mask.join(self._guard.protect(text.split(self.mask)))).ids

    def words(self, text: str) -> list[int | None]:
        """The number of the word that each id of `encode(text)` belongs to, as the tokenizer cuts words."""
        return self.plain.encode(text, add_special_tokens=False).word_ids

    def encode_pair(self, context: Prompt, continuation: str) -> tuple[list[int], int]:
        """Context and continuation as one text: its ids, and where among them the continuation's begin.

        A token that straddles the border belongs to the continuation. After messages the continuation is the whole
        of what the assistant says, or the rest of it. Something always stands before the continuation: the
        document's start, at least.
        """
        before: tuple[int, ...] = ()
        if isinstance(context, str):
            encoded, border, before = self.offsets(context + continuation), len(context), self.start
        else:
            asked, begun = opened(context)
            text, at = self._answered(asked, begun + continuation)
            encoded, border = self.encode_rendered(text), at + len(begun)
        first = next((i for i, (_, end) in enumerate(encoded.offsets) if end > border), len(encoded.ids))
        before = before or (() if first else self.document_start)
        return [*before, *encoded.ids], first + len(before)

    def _answered(self, messages: Sequence[Message], answer: str) -> tuple[str, int]:
        """The protected conversation up to the end of an answer, and where in it the answer begins."""
        asked = self.render_protected(messages, generation=True)
        whole_text = self.render_protected([*messages, {"role": "assistant", "content": answer}], generation=False)
        answer = self._guard.protect(answer)
        at = whole_text.find(answer, len(asked)) if whole_text.startswith(asked) else -1
        return (asked + answer, len(asked)) if at < 0 else (whole_text[: at + len(answer)], at)

    def encode_turns(self, messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
        """The ids of a conversation in the chat template, and which of them the assistant says, its end included.

        Raises Unsupported if the template writes what was said before in another way when more is said.
        """
        text = self.render_protected(messages, generation=False)
        encoded, spans = self.encode_rendered(text), []
        for i, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            asked = self.render_protected(messages[:i], generation=True) if i else ""
            said = self.render_protected(messages[: i + 1], generation=False)
            if not (said.startswith(asked) and text.startswith(said)):
                raise Unsupported(
                    "the chat template rewrites earlier turns, so what the assistant says cannot be told apart",
                    where=self.where,
                    then="give one question and its answer a row",
                )
            spans.append((len(asked), len(said)))
        return encoded.ids, [any(a <= start and end <= b for a, b in spans) for start, end in encoded.offsets]

    # -- the chat template

    def render(self, messages: Sequence[Message], generation: bool = False) -> str:
        """The conversation as one text, with `generation` up to where the assistant is to speak.

        For reading and for training; markers in a message are only told from the template's by `encode_prompt`.
        """
        return self._guard.restore(self.render_protected(messages, generation))

    def render_protected(self, messages: Sequence[Message], generation: bool) -> str:
        """As `render`, with what could pass for a marker inside a message swapped (see `Guard`), lengths kept."""
        if not messages:
            raise InputError("a conversation of no messages", then="give at least one")
        names = {name: getattr(self, name[:3]) for name in NAMES if getattr(self, name[:3])}
        return self._template.render(self._guard.protect(list(messages)), generation, **names)

    def encode_rendered(self, text: str) -> Encoded:
        """Ids and offsets of what `render_protected` gave."""
        if self._guard.restore(text) == text:
            return self.offsets(text, special=True)
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        added = {t.content: t for t in self.tokenizer.get_added_tokens_decoder().values()}
        pieces = list(self._guard.split(text))
        for i, (piece, at, marker) in enumerate(pieces):
            if marker:
                ids.append(self.special[piece])
                offsets.append((at, at + len(piece)))
                continue
            before, after = (added.get(pieces[j][0]) if 0 <= j < len(pieces) else None for j in (i - 1, i + 1))
            kept, skipped = strip_beside(piece, before, after)
            encoded = self.offsets(kept)
            ids += encoded.ids
            offsets += [(at + skipped + a, at + skipped + b) for a, b in encoded.offsets]
        return Encoded(ids, offsets)

    # -- ids to text

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        return self.tokenizer.decode(list(ids), skip_special_tokens=skip_special)

    def detokenizer(self, after: Sequence[int] = ()) -> Detokenizer:
        """Ids in, one at a time; text out that never splits a character. `after`: the ids that stand before them."""
        if self.byte_table is not None:
            return ByteDetokenizer(self.byte_table)
        return WindowDetokenizer(self.decode, after)

    @cached_property
    def byte_table(self) -> dict[int, bytes] | None:
        """The bytes of each id that is not a control token, where the vocabulary is spelled in bytes; else None."""
        decoder = json.loads(self.tokenizer.to_str()).get("decoder") or {}
        return ByteDetokenizer.table(self.tokenizer, self.special) if decoder.get("type") == "ByteLevel" else None

    # -- files

    @classmethod
    def load(cls, path: Path | str) -> "Tokens":
        """From a directory in the Hugging Face layout. Raises InputError naming the file that cannot be used."""
        folder = Path(path)
        file = folder / kinds.FILE
        settings = whole(lambda: read_settings(folder), folder / "tokenizer_config.json")
        tokenizer, target = whole(lambda: kinds.read(folder, settings), file)
        spelled = {name[:3]: settings.pop(name) for name in NAMES if name in settings}
        spelled["template"] = settings.pop("chat_template", None) or DEFAULT
        spelled["more_ends"] = read_ends(folder)
        return whole(lambda: cls(tokenizer, **spelled, settings=settings, where=str(file), target=target), file)

    def save(self, path: Path | str) -> None:
        """tokenizer.json, tokenizer_config.json, special_tokens_map.json and chat_template.jinja."""
        folder = Path(path)
        names = {name: getattr(self, name[:3]) for name in NAMES if getattr(self, name[:3])}
        # transformers 5's own name for the class is unknown to transformers 4 and to older engines.
        settings = {**self.settings, **names, "tokenizer_class": "PreTrainedTokenizerFast"}
        settings.setdefault("clean_up_tokenization_spaces", False)
        write_text(folder / kinds.FILE, self.tokenizer.to_str(pretty=True))
        if self.target:
            write_text(folder / kinds.TARGET, self.target.to_str(pretty=True))
        settings["chat_template"] = self.template
        write_json(folder / "tokenizer_config.json", dict(sorted(settings.items())))
        write_json(folder / "special_tokens_map.json", names)
        write_text(folder / "chat_template.jinja", self.template)


def opened(messages: Sequence[Message]) -> tuple[Sequence[Message], str]:
    """What is asked, and what the assistant has begun to say: "" unless the last message is the assistant's."""
    if len(messages) > 1 and messages[-1].get("role") == "assistant":
        return messages[:-1], messages[-1]["content"]
    return messages, ""


def strip_beside(piece: str, before: AddedToken | None, after: AddedToken | None) -> tuple[str, int]:
    """A text without the white space that the markers beside it swallow, and how much went at its start."""
    kept = piece.rstrip() if after is not None and after.lstrip else piece
    if before is not None and before.rstrip:
        return kept.lstrip(), len(kept) - len(kept.lstrip())
    return kept, 0
