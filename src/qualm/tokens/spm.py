"""SentencePiece model files (.spm, .model), rebuilt as a `tokenizers` tokenizer (Kudo and Richardson 2018, arXiv
1808.06226). The file is a protobuf message; https://protobuf.dev/programming-guides/encoding/ tells how it is written.

Unigram (Kudo 2018, arXiv 1804.10959) cuts a text into the pieces with the best sum of scores; BPE joins, of all
neighbours whose join is a piece, those with the best score first.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from qualm.errors import InputError
from qualm.tokens.classic import SPACE, bpe

LARGEST = 2**26  # bytes of a file; those of the largest models are 5 MB
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # what a piece is
UNIGRAM, BPE = 1, 2  # how a text is cut
UNWANTED = -1e5  # score a character of what is in the vocabulary and not to be cut: worse than any way around it
AGAIN = "take it again from where it came from"


@dataclass(frozen=True)
class Spm:
    """What a model file says. `pieces`, `scores` and `kinds` are of one length, and the place is the id."""

    pieces: Sequence[str]
    scores: Sequence[float]
    kinds: Sequence[int]
    algorithm: int = UNIGRAM
    byte_fallback: bool = False  # characters without a piece are spelled in bytes
    charsmap: bytes = b""  # what replaces what, before anything else
    prefix: bool = True  # a space before the text
    trim: bool = True  # no spaces at the ends, and one for several

    def of_kind(self, *kinds: int) -> list[str]:
        return [piece for piece, kind in zip(self.pieces, self.kinds, strict=True) if kind in kinds]

    @property
    def unknown(self) -> str:
        return self.of_kind(UNKNOWN)[0]


def read(path: Path | str) -> Spm:
    """Raises InputError if the file is none of SentencePiece's, damaged, or cuts in a way that cannot be rebuilt."""
    where = str(path)
    try:
        if Path(path).stat().st_size > LARGEST:
            raise InputError(f"is larger than {LARGEST} bytes", where=where, then="name a SentencePiece model")
        return parsed(Path(path).read_bytes())
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=where) from error
    except (ValueError, struct.error) as error:
        raise InputError(f"is no whole SentencePiece model ({error})", where=where, then=AGAIN) from error


def parsed(data: bytes) -> Spm:
    """Raises ValueError saying what is wrong."""
    pieces: list[tuple[str, float, int]] = []
    trainer: dict[int, int | bytes] = {}
    cleaner: dict[int, int | bytes] = {}
    for number, value in fields(data):
        if number == 1:
            one = dict(fields(message(value)))
            score = struct.unpack("<f", message(one.get(2, bytes(4))))[0]
            score = float(f"{score:.9g}")  # all of a float32, in so few digits that any JSON reader gets it right
            pieces.append((message(one.get(1, b"")).decode(), score, whole_number(one.get(3, NORMAL))))
        elif number in (2, 3):
            (trainer if number == 2 else cleaner).update(fields(message(value)))
    if not pieces:
        raise ValueError("it holds no pieces")
    texts, scores, kinds = zip(*pieces, strict=True)
    spm = Spm(
        texts,
        scores,
        kinds,
        algorithm=whole_number(trainer.get(3, UNIGRAM)),
        byte_fallback=bool(trainer.get(35, 0)),
        charsmap=message(cleaner.get(2, b"")),
        prefix=bool(cleaner.get(3, 1)),
        trim=bool(cleaner.get(4, 1)),
    )
    refused = {
        "it has not one piece for the unknown": len(spm.of_kind(UNKNOWN)) != 1,
        "a piece stands in it twice": len(set(texts)) < len(texts),
        "a piece is empty": "" in texts,
        "a score is no number": not all(abs(score) < float("inf") for score in scores),
        "it cuts neither by unigram nor by BPE": spm.algorithm not in (UNIGRAM, BPE),
        "it puts spaces after words": bool(trainer.get(24, 0)),
        "it does not spell out spaces": not cleaner.get(5, 1),
    }
    for what, is_so in refused.items():
        if is_so:
            raise ValueError(what)
    try:
        normalizer(spm)
    except Exception as error:  # of no kind of its own
        raise ValueError("its charsmap is damaged") from error
    return spm


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field of a message: an int, or the bytes of a text, a message or a float."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = varint(data, at)
            yield key >> 3, value
            continue
        if kind == 2:
            size, at = varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"a field of kind {kind} at byte {at}")
        if size > len(data) - at:
            raise ValueError(f"cut off: {size - (len(data) - at)} bytes are missing")
        yield key >> 3, data[at : at + size]
        at += size


def varint(data: bytes, at: int) -> tuple[int, int]:
    """The number that begins at `at`, seven bits a byte, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("cut off in a number")
        value |= (data[at] & 127) << shift
        at += 1
        if data[at - 1] < 128:
            return value, at
    raise ValueError(f"a number of more than ten bytes at byte {at - 10}")


def message(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number where bytes should be")
    return value


def whole_number(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise ValueError("bytes where a number should be")
    return value


def build(spm: Spm, ids: Mapping[str, int] | None = None, end: str = "") -> Tokenizer:
    """The tokenizer that cuts as SentencePiece does; `end` is the piece to put after every text.

    `ids`, if given, numbers the pieces anew (0, 1, 2, ... without a gap), and may hold more than the file: those are
    never cut from a text that can be cut otherwise. A piece of the file that it lacks is not cut. One thing differs:
    what follows a user-defined piece inside a text begins with a space.
    """
    names = list(spm.pieces) if ids is None else sorted(ids, key=lambda name: ids[name])
    scored = dict(zip(spm.pieces, spm.scores, strict=True))
    unwanted = set(spm.of_kind(UNUSED)) | (set(names) - set(scored))
    reserved = spm.of_kind(UNKNOWN, CONTROL, BYTE)
    if spm.algorithm == UNIGRAM:
        scores = [UNWANTED * len(name) if name in unwanted else scored[name] for name in names]
        pairs = list(zip(names, scores, strict=True))
        model = models.Unigram(pairs, names.index(spm.unknown), byte_fallback=spm.byte_fallback)
    else:
        kept = {name: scored[name] for name in names if name not in unwanted and name not in reserved}
        model = bpe({name: i for i, name in enumerate(names)}, kept, spm.unknown, spm.byte_fallback)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizer(spm)
    if spm.algorithm == UNIGRAM and spm.of_kind(BYTE):  # so that a text that spells a byte does not become one
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("<(?=0x[0-9A-F]{2}>)"), behavior="isolated")
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if spm.prefix else steps)
    known = set(names)
    control = [name for name in spm.of_kind(UNKNOWN, CONTROL) if name in known]
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in control])
    defined = [name for name in spm.of_kind(USER_DEFINED) if name in known]
    tokenizer.add_tokens([AddedToken(name, normalized=False) for name in defined])
    if end:
        special = [(end, tokenizer.token_to_id(end))]
        tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {end}", special_tokens=special)
    return tokenizer


def normalizer(spm: Spm) -> normalizers.Normalizer:
    steps: list[normalizers.Normalizer] = [normalizers.Precompiled(spm.charsmap)] if spm.charsmap else []
    if spm.trim:
        steps += [normalizers.Replace(Regex("^ +| +$"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    steps += [normalizers.Prepend(SPACE)] if spm.prefix else []
    return normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])
