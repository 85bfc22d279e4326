"""A folder's tokenizer, in whatever files it is: tokenizer.json, ByT5's settings, or the two .spm of Marian."""

from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from qualm.errors import InputError
from qualm.files import read_json
from qualm.tokens import byt5, spm

FILE, TARGET = "tokenizer.json", "target_tokenizer.json"
SOURCE_SPM, TARGET_SPM, VOCAB = "source.spm", "target.spm", "vocab.json"
MARIAN = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}  # where its settings name no others
LAST = "{{ messages[-1]['content'] }}"  # a translator reads what was said last, and nothing around it


def read(folder: Path, settings: dict[str, Any]) -> tuple[Tokenizer, Tokenizer | None]:
    """The tokenizer, and that of what is written if it is another. `settings` gets what the files leave unsaid.

    Raises InputError naming the file that is missing or wrong.
    """
    if (folder / FILE).is_file():
        target = folder / TARGET
        return Tokenizer.from_file(str(folder / FILE)), Tokenizer.from_file(str(target)) if target.is_file() else None
    if settings.get("tokenizer_class") == byt5.NAME:
        return byt5.bytes_as_tokens(settings, str(folder / "tokenizer_config.json")), None
    if (folder / SOURCE_SPM).is_file():
        return marian(folder, settings)
    raise InputError("no such file", where=str(folder / FILE), then=f"name a folder that holds a {FILE}")


def marian(folder: Path, settings: dict[str, Any]) -> tuple[Tokenizer, Tokenizer | None]:
    """Source and target are cut by files of their own, and numbered by one vocab.json."""
    if settings.get("separate_vocabs"):
        raise InputError(
            "separate_vocabs: source and target number their pieces apart, which is not implemented",
            where=str(folder / "tokenizer_config.json"),
            then="use a checkpoint with one vocabulary",
        )
    for name, spelled in MARIAN.items():
        settings[name] = settings.get(name) or spelled
    settings["chat_template"] = settings.get("chat_template") or LAST
    where = str(folder / VOCAB)
    ids = read_json(where)
    numbers = sorted(i for i in ids.values() if isinstance(i, int)) if isinstance(ids, dict) else []
    if not numbers or numbers != list(range(len(ids))):
        raise InputError("does not number its pieces 0, 1, 2, ...", where=where, then=spm.AGAIN)
    files = [folder / SOURCE_SPM, folder / TARGET_SPM]
    alike = not files[1].is_file() or files[0].read_bytes() == files[1].read_bytes()
    made = []
    for file in files[:1] if alike else files:
        model = spm.read(file)
        for needed in (model.unknown, settings["eos_token"]):
            if needed not in ids:
                raise InputError(f"holds no {needed!r}", where=where, then="take vocabulary and .spm from one place")
        tokenizer = spm.build(model, ids, end=settings["eos_token"])
        tokenizer.add_special_tokens([settings[name] for name in MARIAN if settings[name] in ids])
        codes = [name for name in ids if name.startswith(">>") and name.endswith("<<")]  # the language wanted
        tokenizer.add_tokens([AddedToken(name, normalized=False) for name in codes])
        made.append(tokenizer)
    return made[0], made[1] if len(made) > 1 else None
