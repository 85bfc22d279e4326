"""Train a byte-level BPE tokenizer.

Sennrich et al. 2016 (BPE), Radford et al. 2019 (over bytes). Every digit is its own token, so that numbers are
spelled alike wherever they stand (what GGUF calls the pre-tokenizer "smollm").
"""

from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from qualm.errors import InputError, UsageError
from qualm.tokens.template import DEFAULT
from qualm.tokens.tokenizer import Tokens

ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
SPECIAL = ("<|end|>", "<|pad|>", *ROLES)
TURNS = """\
{{- bos_token -}}
{%- for message in messages -%}
{{- "<|" + message.role + "|>" + message.content -}}
{%- if message.role == "assistant" -%}{{- eos_token -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- "<|assistant|>" -}}{%- endif -%}
"""


def train_bpe(
    texts: Iterable[str],
    vocab_size: int,
    special: Sequence[str] = SPECIAL,
    frame: tuple[bool, bool] = (True, False),
    mask: str = "",
) -> Tokens:
    """Learn up to `vocab_size` tokens, `special` among them with the ids 0, 1, ...; the same texts give the same.

    The first special token ends a document, and so stands before one too (eos = bos): it is put before a prompt, so
    that a prompt is read as the start of a document. `frame` says whether it is put before a text, and after it. The
    second, if any, is the padding; `mask` names one that hides a word. All 256 bytes are tokens, so nothing is unknown.
    With a token for each role, conversations are written in TURNS, else in the default
    template. Raises UsageError if `vocab_size` has no room for them, InputError if there is no text.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if not special or len(set(special)) < len(special):
        raise UsageError("special tokens must be at least one, and all different")
    if vocab_size < len(alphabet) + len(special):
        raise UsageError(
            f"a vocabulary of {vocab_size} has no room for 256 bytes and {len(special)} special tokens",
            then=f"ask for at least {len(alphabet) + len(special)}",
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = byte_level(digits=True)
    tokenizer.decoder = decoders.ByteLevel()
    seen = 0

    def counted() -> Iterable[str]:
        nonlocal seen
        for text in texts:
            seen += bool(text)
            yield text

    tokenizer.train_from_iterator(
        counted(),
        trainers.BpeTrainer(
            vocab_size=vocab_size, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
        ),
    )
    tokenizer.post_processor = frame_with(special[0], 0, *frame)
    if not seen:
        raise InputError("there is no text to learn tokens from", then="name a folder with text in it")
    pad = special[1] if len(special) > 1 else special[0]
    template = TURNS if set(ROLES) <= set(special) else DEFAULT
    settings = {"mask_token": mask} if mask else {}
    return Tokens(tokenizer, bos=special[0], eos=special[0], pad=pad, template=template, settings=settings)


def byte_level(digits: bool) -> pre_tokenizers.PreTokenizer:
    """Words by GPT-2's rule, spelled in bytes; with `digits`, single digits first."""
    words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), words]) if digits else words


def start_with(token: str, number: int) -> processors.PostProcessor:
    """Put a control token before each text that is encoded with special tokens."""
    return frame_with(token, number, before=True, after=False)


def frame_with(token: str, number: int, before: bool, after: bool) -> processors.PostProcessor:
    """Put a control token before or after each text that is encoded with special tokens."""
    start, end = [f"{token}:0"] * before, [f"{token}:0"] * after
    single = [*start, "$A:0", *end]
    pair = [*single, "$B:1", *([f"{token}:1"] * after)]
    return processors.TemplateProcessing(single=single, pair=pair, special_tokens=[(token, number)])
