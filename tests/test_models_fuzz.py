"""Whatever sizes and options a config has, if it is valid the model builds, counts its weights as its config does,
comes back from its file as it was, and says the same read at once, token by token, or beside longer texts.
"""

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from parity_checks import Texts, drawn, opened, piece_by_piece, read_by_us
from qualm.models import store
from qualm.models._bert_config import BertConfig
from qualm.models.base import Causal, Config, Encoder, EncoderDecoder, Model
from qualm.models.gpt import GptConfig
from qualm.models.llama import KINDS, LlamaConfig
from qualm.models.marian import MarianConfig
from qualm.models.rnn import RnnConfig
from qualm.models.rnn_attention import RnnAttentionConfig
from qualm.models.ssru import SsruConfig
from qualm.models.store import load_model, model_class, parameters, save_model
from qualm.models.t5 import T5Config

EACH = 100
BRIEF = settings(
    max_examples=EACH,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
TIME, LENGTHS = 6, (6, 1, 4)
Draw = Callable[[st.SearchStrategy[Any]], Any]

size, layers, heads = st.integers(1, 12), st.integers(1, 3), st.integers(1, 3)
even, vocab, yes = st.integers(1, 5).map(lambda n: 2 * n), st.integers(6, 30), st.booleans()
ROPES = (
    None,
    {"rope_type": "linear", "factor": 2.5},
    {"rope_type": "dynamic", "factor": 2.0},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8.0},
    {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8.0,
    },
)


def llama(draw: Draw) -> Config:
    kind = draw(st.sampled_from(sorted(KINDS)))
    shared, depth = draw(heads), draw(layers)
    options = {
        "attention_bias": draw(yes),
        "mlp_bias": draw(yes),
        "sliding_window": draw(st.none() | st.integers(1, 7)),
        "use_sliding_window": draw(yes),
        "max_window_layers": draw(st.integers(0, 3)),
        "no_rope_layers": tuple(draw(st.lists(st.integers(0, 1), min_size=depth, max_size=depth))),
    }
    return LlamaConfig(
        model_type=kind,
        vocab_size=draw(vocab),
        hidden_size=draw(size),
        intermediate_size=draw(size),
        num_hidden_layers=depth,
        num_attention_heads=shared * draw(heads),
        num_key_value_heads=shared,
        head_dim=draw(even.filter(lambda n: n > 2)),
        max_position_embeddings=16,
        rms_norm_eps=draw(st.sampled_from((1e-6, 1e-3))),
        rope_theta=draw(st.sampled_from((10.0, 1e4))),
        rope_scaling=draw(st.sampled_from(ROPES)),
        tie_word_embeddings=draw(yes),
        **{key: value for key, value in options.items() if key in KINDS[kind].keys},
    )


def gpt(draw: Draw) -> Config:
    many = draw(heads)
    return GptConfig(
        vocab_size=draw(vocab),
        n_embd=many * draw(size),
        n_layer=draw(layers),
        n_head=many,
        n_positions=draw(st.integers(TIME, 20)),
        n_inner=draw(st.integers(0, 12)),
        tie_word_embeddings=draw(yes),
    )


def bert(draw: Draw) -> Config:
    kind, head, many = (
        draw(st.sampled_from(("bert", "roberta", "distilbert", "qualm-bert", "qualm-distilbert"))),
        draw(st.sampled_from(HEADS)),
        draw(heads),
    )
    return BertConfig(
        model_type=kind,
        vocab_size=draw(vocab),
        hidden_size=many * draw(size),
        num_hidden_layers=draw(layers),
        num_attention_heads=many,
        intermediate_size=draw(st.integers(0, 12)),
        max_position_embeddings=draw(st.integers(TIME + 2, 20)),
        type_vocab_size=None if kind.endswith("distilbert") else draw(st.integers(1, 3)),
        pad_token_id=1,
        head=head,
        num_labels=draw(st.integers(1, 4)) if head in ("sequence", "token") else 0,
        add_pooling_layer=head != "none" or draw(yes),
    )


HEADS = ("none", "masked", "sequence", "token", "question")


def t5(draw: Draw) -> Config:
    buckets = draw(st.integers(2, 6)) * 2
    return T5Config(
        model_type=draw(st.sampled_from(("t5", "mt5"))),
        vocab_size=draw(vocab),
        d_model=draw(size),
        d_kv=draw(size),
        d_ff=draw(size),
        num_layers=draw(layers),
        num_heads=draw(heads),
        num_decoder_layers=draw(st.integers(0, 3)),
        feed_forward_proj=draw(st.sampled_from(("relu", "gated-gelu", "gated-silu", "gelu"))),
        relative_attention_num_buckets=buckets,
        relative_attention_max_distance=buckets + draw(size),
        tie_word_embeddings=draw(yes),
    )


def marian(draw: Draw, family: type[MarianConfig] = MarianConfig) -> Config:
    reading, writing, words, shared = draw(heads), draw(heads), draw(vocab), draw(yes)
    return family(
        vocab_size=words,
        d_model=2 * reading * writing * draw(st.integers(1, 3)),
        encoder_layers=draw(layers),
        decoder_layers=draw(layers),
        encoder_attention_heads=reading,
        decoder_attention_heads=writing,
        encoder_ffn_dim=draw(size),
        decoder_ffn_dim=draw(size),
        decoder_vocab_size=words if shared else draw(vocab),
        activation_function=draw(st.sampled_from(("relu", "gelu", "swish"))),
        scale_embedding=draw(yes),
        share_encoder_decoder_embeddings=shared,
        tie_word_embeddings=shared or draw(yes),
        pad_token_id=1,
        decoder_start_token_id=0,
    )


def ssru(draw: Draw) -> Config:
    return marian(draw, SsruConfig)


def rnn(draw: Draw) -> Config:
    embedding, tied = draw(size), draw(yes)
    return RnnConfig(
        vocab_size=draw(vocab),
        hidden_size=draw(size),
        num_hidden_layers=draw(layers),
        cell=draw(st.sampled_from(("elman", "gru", "lstm"))),
        embedding_size=embedding,
        projection_size=0 if tied else draw(st.integers(0, 8)),
        head_bias=draw(yes),
        tie_word_embeddings=tied,
    )


def rnn_attention(draw: Draw) -> Config:
    return RnnAttentionConfig(
        vocab_size=draw(vocab),
        hidden_size=draw(even),
        num_hidden_layers=draw(layers),
        embedding_size=draw(size),
        head_bias=draw(yes),
        tie_word_embeddings=draw(yes),
    )


found = functools.cache(model_class)  # which looks through all installed packages


def built(config: Config) -> Any:
    return drawn(found(config.model_type)(config), 11, {})


def texts(model: Model, full: bool) -> Texts:
    """Three texts, of one length if `full`."""
    words = min(model.config.vocab_size, getattr(model.config, "decoder_vocab_size", model.config.vocab_size))
    ids, under = torch.randint(2, words, (2, 3, TIME), generator=torch.Generator().manual_seed(2))
    lengths = None if full else torch.tensor(LENGTHS)
    return Texts(ids, lengths, under if isinstance(model, EncoderDecoder) else None)


def close(ours: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(ours, wanted, atol=2e-4, rtol=1e-3)


def same_after_the_file(model: Model, whole: Texts, said: torch.Tensor) -> None:
    with tempfile.TemporaryDirectory() as folder:
        save_model(model, Path(folder))
        again = load_model(folder)
    assert again.config.maths() == model.config.maths()
    torch.testing.assert_close(read_by_us(again, whole), said, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", [llama, gpt, bert, t5, marian, ssru, rnn, rnn_attention])
def test_a_valid_config_is_a_model(family, monkeypatch):
    monkeypatch.setattr(store, "model_class", lambda kind, where="": found(kind))

    @settings(BRIEF)
    @given(st.data())
    @torch.no_grad()
    def check(data: st.DataObject) -> None:
        model = built(family(data.draw))
        note(str(model.config))
        assert parameters(model) == model.config.parameters
        whole, ragged = texts(model, True), texts(model, False)
        said, cut = read_by_us(model, whole), read_by_us(model, ragged)
        assert said.isfinite().all()
        same_after_the_file(model, whole, said)
        for i, length in enumerate(LENGTHS):
            alone = read_by_us(model, ragged.row(i))[0]
            per_place = not isinstance(model, EncoderDecoder) and cut.dim() == 3
            close(cut[i, :length] if per_place else cut[i], alone)
        if isinstance(model, Causal):
            ids = whole.ids if whole.under is None else whole.under
            close(piece_by_piece(model, ids, opened(model, whole)), said)
        assert isinstance(model, Causal | Encoder)

    check()
