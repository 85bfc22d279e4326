"""Small encoders, each with a WordPiece tokenizer trained on the spot."""

import functools

import pytest
import torch.nn.functional as F
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from qualm.lm.encoder import EncoderLM
from qualm.models.bert import Bert, BertConfig
from qualm.tokens.tokenizer import Tokens
from qualm.tokens.train import learn_wordpiece
from tiny import TEXTS

ALPHABET = "abcdefghijklmnopqrstuvwxyz.,?[]"
VOCAB = 97
COMMON = {"vocab_size": VOCAB, "max_position_embeddings": 40}
SIZES = {**COMMON, "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 80}
NAMED = {"id2label": {0: "glad", 1: "sad", 2: "so-so"}, "label2id": {"glad": 0, "sad": 1, "so-so": 2}}
MARKERS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@functools.cache
def wordpiece_tokens(vocab_size: int = 300) -> Tokens:
    """As BERT has it: lower case, [CLS] text [SEP], segments 0 and 1 for a pair; the same in every process."""
    made = learn_wordpiece([f"{text} {ALPHABET}".lower() for text in TEXTS * 4], vocab_size, MARKERS)
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.decoder = decoders.WordPiece()
    ends = [(marker, made.token_to_id(marker)) for marker in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", ends)
    settings = {"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    return Tokens(made, pad="[PAD]", unk="[UNK]", settings=settings)


@functools.cache
def roberta_tokens(vocab_size: int = 400) -> Tokens:
    """As RoBERTa has it: bytes, <s> text </s>, <s> one </s></s> two </s>, a mask that takes the space before."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    markers = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        show_progress=False,
        special_tokens=markers,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    made.train_from_iterator(TEXTS * 4, trainer)
    made.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True)
    return Tokens(made, bos="<s>", eos="</s>", pad="<pad>", unk="<unk>", settings={"mask_token": "<mask>"})


def tiny_encoder(head: str = "masked", labels: str = "", context: int = 64, seed: int = 0, **config) -> EncoderLM:
    """A random BERT that has opinions: its weights are wide."""
    tokens = wordpiece_tokens()
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.3}
    shape |= {"max_position_embeddings": context, "pad_token_id": 0, "head": head, **config}
    shape |= {"id2label": {str(i): word for i, word in enumerate(labels.split())}} if labels else {}
    model = Bert(BertConfig(vocab_size=tokens.vocab_size, **shape))
    model.init_weights(seed)
    return EncoderLM(model, tokens, name=f"tiny-{head}")


def use_torchs_dropout(patch: pytest.MonkeyPatch) -> None:
    """Let BERT drop what torch would: to be set beside models that do."""

    def attention(q, k, v, mask, scale, share):
        return F.scaled_dot_product_attention(q, k, v, None if mask is False else mask, share, scale=scale)

    patch.setattr("qualm.models.bert.dropout", F.dropout)
    patch.setattr("qualm.models.layers.attention", attention)
