"""BERT and its kin: RoBERTa, XLM-RoBERTa, DistilBERT and MiniLM, which is a BERT.

Devlin et al. 2018 (arXiv 1810.04805); RoBERTa: Liu et al. 2019 (1907.11692); DistilBERT: Sanh et al. 2019
(1910.01108); MiniLM: Wang et al. 2020 (2002.10957). Names are those of Hugging Face's BERT.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qualm.models._bert_config import BertConfig
from qualm.models._bert_names import ours, theirs
from qualm.models._dropout import dropout
from qualm.models.base import Encoder
from qualm.models.layers import Embedding, Linear, attend_all, counted, together

__all__ = ["Bert", "BertConfig"]

BIAS, OTHER_BIAS = "cls.predictions.bias", "cls.predictions.decoder.bias"


class Embeddings(nn.Module):
    """What a token is, which text it belongs to and where it stands, summed and normed."""

    def __init__(self, config: BertConfig):
        super().__init__()
        width, self.config = config.hidden_size, config
        self.word_embeddings = Embedding(config.vocab_size, width)
        self.position_embeddings = Embedding(config.max_position_embeddings, width)
        if config.type_vocab_size:
            self.token_type_embeddings = Embedding(config.type_vocab_size, width)
        self.LayerNorm = nn.LayerNorm(width, config.layer_norm_eps)

    def positions(self, ids: Tensor) -> Tensor:
        """(1 or B, T): 0, 1, 2, ...; in RoBERTa padding has the position pad_token_id, and counting starts after it."""
        if not self.config.counts_from_pad:
            return torch.arange(ids.shape[1], device=ids.device)[None]
        pad = int(self.config.pad_token_id or 0)
        words = ids.ne(pad).long()
        return words.cumsum(1) * words + pad

    def forward(self, ids: Tensor, segments: Tensor | None) -> Tensor:
        x = self.word_embeddings(ids)  # (B, T, D)
        if self.config.type_vocab_size:
            taught = segments is not None and self.config.type_vocab_size > 1
            x = x + self.token_type_embeddings(segments if taught else torch.zeros_like(ids))
        x = self.LayerNorm(x + self.position_embeddings(self.positions(ids)))
        return dropout(x, self.config.hidden_dropout_prob, self.training)


class SelfAttention(nn.Module):
    beside = ("query", "key", "value")

    def __init__(self, config: BertConfig):
        super().__init__()
        width, self.heads = config.hidden_size, config.num_attention_heads
        self.dropout = config.attention_probs_dropout_prob
        self.query, self.key, self.value = Linear(width, width), Linear(width, width), Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        made = together(x, self.query, self.key, self.value)
        q, k, v = (y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in made)
        return attend_all(q, k, v, mask, dropout=self.dropout if self.training else 0.0)  # (B, T, D)


class Output(nn.Module):
    """LayerNorm(before + dense(x)): the norm stands after the sum, on the residual stream itself."""

    def __init__(self, width: int, dropout: float, config: BertConfig):
        super().__init__()
        self.dropout = dropout
        self.dense = Linear(width, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        return self.LayerNorm(dropout(self.dense(x), self.dropout, self.training) + before)


class Attention(nn.Module):
    def __init__(self, config: BertConfig):
        super().__init__()
        self.self = SelfAttention(config)
        dropout = 0.0 if config.distilled else config.hidden_dropout_prob
        self.output = Output(config.hidden_size, dropout, config)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return self.output(self.self(x, mask), x)


class Intermediate(nn.Module):
    """GELU by the error function (Hendrycks and Gimpel 2016, arXiv 1606.08415)."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.dense = Linear(config.hidden_size, config.intermediate_size)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.dense(x))


class Layer(nn.Module):
    def __init__(self, config: BertConfig):
        super().__init__()
        self.attention = Attention(config)
        self.intermediate = Intermediate(config)
        self.output = Output(config.intermediate_size, config.hidden_dropout_prob, config)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = self.attention(x, mask)
        return self.output(self.intermediate(x), x)


class Layers(nn.Module):
    def __init__(self, config: BertConfig):
        super().__init__()
        self.layer = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))


class Pooler(nn.Module):
    """A layer over the hidden state that stands for a text: tanh, in DistilBERT ReLU."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.squash = F.relu if config.distilled else torch.tanh
        self.dense = Linear(config.hidden_size, config.hidden_size)

    def forward(self, text: Tensor) -> Tensor:
        return self.squash(self.dense(text))


class Body(nn.Module):
    def __init__(self, config: BertConfig):
        super().__init__()
        self.embeddings = Embeddings(config)
        self.encoder = Layers(config)
        if config.pools:
            self.pooler = Pooler(config)


class Transform(nn.Module):
    def __init__(self, config: BertConfig):
        super().__init__()
        self.dense = Linear(config.hidden_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.LayerNorm(F.gelu(self.dense(x)))


class Predictions(nn.Module):
    """Logits of the vocabulary by the table of words itself, and a bias a word."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.transform = Transform(config)
        self.decoder = Linear(config.hidden_size, config.vocab_size, bias=False)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.transform(x)) + self.bias


class Bert(Encoder):
    """`Bert(config)` has the weights of seed 0. Ids and positions beyond the tables are the caller's error."""

    config_class = BertConfig

    def __init__(self, config: BertConfig):
        super().__init__()
        self.config = config
        self.bert = Body(config)
        if config.head == "masked":
            self.cls = nn.ModuleDict({"predictions": Predictions(config)})
        elif config.head == "question":
            self.qa_outputs = Linear(config.hidden_size, 2)
        elif config.head != "none":
            self.classifier = Linear(config.hidden_size, config.num_labels)
        self.tie()
        self.init_weights()

    @classmethod
    def rename(cls, name: str, config: Any) -> str | None:
        return ours(name, config)

    @classmethod
    def name_in_file(cls, name: str, config: Any) -> str:
        return theirs(name, config)

    @classmethod
    def settle(cls, config: BertConfig, state: dict[str, Tensor]) -> BertConfig:
        """The head's bias may go by either of its names, and a file without a head may lack the pooler's weights."""
        bias = state.get(OTHER_BIAS)
        if bias is not None and torch.equal(state.setdefault(BIAS, bias), bias):
            del state[OTHER_BIAS]
        optional = config.pools and config.head == "none"
        lacking = optional and not any(name.startswith("bert.pooler.") for name in state)
        return replace(config, add_pooling_layer=False) if lacking else config

    @property
    def ties(self) -> Mapping[str, str]:
        masked = self.config.head == "masked"
        return {"cls.predictions.decoder": "bert.embeddings.word_embeddings"} if masked else {}

    def init_weight(self, name: str, weight: Tensor, source: torch.Generator) -> None:
        """Normal with standard deviation `initializer_range`, drawn again beyond two of them, as the code that came
        with Devlin et al. 2018 has it. Biases 0, norms 1.
        """
        wide = self.config.initializer_range
        if weight.dim() < 2:
            super().init_weight(name, weight, source)
        else:
            nn.init.trunc_normal_(weight, 0.0, wide, -2 * wide, 2 * wide, source)

    def hidden(self, ids: Tensor, lengths: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        mask = counted(lengths, ids.shape[1])
        x = self.bert.embeddings(ids, segments)
        for layer in self.bert.encoder.layer:
            x = layer(x, mask)
        return x

    def pooled(self, hidden: Tensor) -> Tensor:
        """(B, D): the pooler's view of hidden states (B, T, D), for a config that `pools`."""
        return self.bert.pooler(hidden[:, 0])

    def head(self, hidden: Tensor, lengths: Tensor | None = None) -> Tensor:
        c = self.config
        if c.head == "masked":
            return self.cls["predictions"](hidden)
        if c.head == "sequence":
            text = self._text(hidden, lengths)
            text = self._dropped(text) if c.counts_from_pad else text  # RoBERTa drops before the pooler too
            return self.classifier(self._dropped(self.pooled(text)))
        return (self.qa_outputs if c.head == "question" else self.classifier)(self._dropped(hidden))

    def _text(self, hidden: Tensor, lengths: Tensor | None) -> Tensor:
        """(B, 1, D): the hidden state of the first token, or the mean of those (B, T, D) that count."""
        if self.config.pooling == "cls":
            return hidden[:, :1]
        counts = counted(lengths, hidden.shape[1])
        if lengths is None or counts is None:
            return hidden.mean(1, keepdim=True)
        return hidden.where(counts[:, 0, 0, :, None], 0).sum(1, keepdim=True) / lengths[:, None, None]

    def _dropped(self, x: Tensor) -> Tensor:
        return dropout(x, self.config.head_dropout, self.training)
