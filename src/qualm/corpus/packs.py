"""Pack: chunks of documents as shards of token ids, with the tokenizer they were made by."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from qualm.corpus.chunks import read_chunks, read_tally
from qualm.corpus.packing import finish, hash_keys, identity_of, stretches, write_shard
from qualm.corpus.settings import Packing
from qualm.corpus.stages import Work
from qualm.errors import InputError
from qualm.files import hash_tree, read_json, write_json, writing
from qualm.tokens.tokenizer import Tokens
from qualm.tokens.train import train_bpe

TOKENIZER, WHOLE = "tokenizer", "documents"


def stage(work: Work, sides: Mapping[str, list[Path]], settings: Packing, output: Path) -> dict[str, Any]:
    """Write a folder of shards a side, and the tokenizer; returns the counts of each.

    Raises InputError for a tokenizer that cannot be used, or if a side holds no document.
    """
    learn_from = next(iter(sides.values()))
    work.once("tokenizer", _tokenizer, output / TOKENIZER, learn_from, settings)
    tokens, told = Tokens.load(output / TOKENIZER), dict[str, Any]()
    for side, sources in sides.items():
        (output / side / "manifest.json").unlink(missing_ok=True)
        parts = stretches([read_tally([source]).bytes_written for source in sources])
        items = [(sources[start:end], number) for number, (start, end) in enumerate(parts)]
        shards = work.each(f"{side}-shard", _shard, items, output / side, output / TOKENIZER)
        if not sum(read_json(shard)["documents"] for shard in shards):
            raise InputError("no documents to pack", where=side, then="add text")
        identity = identity_of(hash_keys(_keys(shards)), tokens)
        packed = finish(output / side, [read_json(shard) for shard in shards], identity, tokens)
        told[side] = {"documents": len(packed.ends), "bytes": packed.bytes, "tokens": packed.tokens}
    return told


def is_packed(folder: Path) -> bool:
    """Whether it holds a corpus that was built and packed."""
    return (folder / "manifest.json").is_file() and (folder / TOKENIZER).is_dir() and sides_of(folder) is not None


def sides_of(folder: Path) -> tuple[Path, Path | None] | None:
    """The shards to learn from, and those held out (None without a split); None if there are none."""
    for train, held_out in (("train", "held_out"), (WHOLE, "")):
        if (folder / train / "manifest.json").is_file():
            return folder / train, folder / held_out if held_out else None
    return None


def _tokenizer(target: Path, folder: Path, sources: Sequence[Path], settings: Packing) -> None:
    if settings.tokenizer:
        made = Tokens.load(settings.tokenizer)
    else:
        made = train_bpe(_sample(sources, settings.sample), settings.vocab)
    made.save(folder)
    write_json(target, {"hash": made.hash})


def _sample(sources: Sequence[Path], size: int) -> Iterator[str]:
    for document in read_chunks(sources):
        yield from document.contents
        size -= document.bytes
        if size <= 0:
            return


def _shard(target: Path, sources: Sequence[Path], number: int, folder: Path, tokenizer: Path) -> None:
    keys = list[str]()

    def documents() -> Iterator[Any]:
        for document in read_chunks(sources):
            keys.append(document.key)
            yield document

    told = write_shard(folder, number, documents(), _loaded(tokenizer, hash_tree(tokenizer)))
    with writing(_keys_of(target)) as file:
        file.write("\n".join(keys))
    write_json(target, told)


@lru_cache(maxsize=1)
def _loaded(folder: Path, content: str) -> Tokens:
    return Tokens.load(folder)


def _keys(shards: Sequence[Path]) -> Iterator[str]:
    for shard in shards:
        yield from _keys_of(shard).read_text().split()


def _keys_of(shard: Path) -> Path:
    return shard.with_name(f"{shard.name}.keys")
