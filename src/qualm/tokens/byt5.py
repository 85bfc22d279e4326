"""ByT5's tokenizer: a token a byte of UTF-8, and no file that says so (Xue et al. 2021, arXiv 2105.13626)."""

from collections.abc import Mapping
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from qualm.errors import InputError
from qualm.tokens.detokenizer import byte_spelling

NAME = "ByT5Tokenizer"  # as tokenizer_config.json has it
CONTROL = ("<pad>", "</s>", "<unk>")
SENTINELS = 125


def bytes_as_tokens(settings: Mapping[str, Any], where: str) -> Tokenizer:
    """Padding, end and unknown token are 0, 1 and 2, byte b is b + 3, and sentinels follow from 259 on: those that
    tokenizer_config.json names, or <extra_id_0> and up. The end token is put after a text.
    """
    named = settings.get("additional_special_tokens") or settings.get("extra_special_tokens")
    count = settings.get("extra_ids", SENTINELS)
    named = named or [f"<extra_id_{i}>" for i in range(count if isinstance(count, int) else 0)]
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        raise InputError("its special tokens are no list of words", where=where, then="mend the file")
    numbered = {token: i for i, token in enumerate(CONTROL)}
    numbered |= {spelled: byte + len(CONTROL) for spelled, byte in byte_spelling().items()}
    tokenizer = Tokenizer(models.BPE(numbered, []))  # no merges: every byte stays by itself
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    stripping = [AddedToken(token, special=True, lstrip=True, rstrip=True, normalized=False) for token in CONTROL]
    tokenizer.add_special_tokens([*stripping, *(AddedToken(name, special=True, normalized=False) for name in named)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A:0 </s>:0", pair="$A:0 </s>:0 $B:1 </s>:1", special_tokens=[("</s>", 1)]
    )
    return tokenizer
