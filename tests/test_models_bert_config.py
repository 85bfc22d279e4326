"""What config.json says of BERT and its kin: published ones are read, and what would give wrong answers is refused."""

import pytest

from encoder_models import NAMED, SIZES
from qualm.errors import InputError
from qualm.models.bert import BertConfig


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"is_decoder": True}, "is_decoder"),
        ({"add_cross_attention": True}, "add_cross_attention"),
        ({"hidden_act": "relu"}, "hidden_act"),
        ({"architectures": ["BertForNextSentencePrediction"]}, "architectures.*BertForNextSentencePrediction"),
        ({"architectures": ["BertLMHeadModel"]}, "architectures"),
        ({"architectures": "BertModel "}, "architectures"),
        ({"architectures": []}, "architectures"),
        ({"hidden_size": 50}, "num_attention_heads"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"type_vocab_size": 0}, "type_vocab_size"),
        ({"vocab_size": "97"}, "vocab_size"),
        ({"hidden_size": "left out"}, "'hidden_size' is missing"),
        ({"embedding_size": 128}, "embedding_size"),
        ({"layer_norm_epsilon": 1e-5}, "did you mean 'layer_norm_eps'"),
        ({"auto_map": {"AutoModel": "modeling.Evil"}}, "auto_map.*code"),
        ({"architectures": ["BertForMaskedLM"], "tie_word_embeddings": False}, "tie_word_embeddings"),
        ({"architectures": ["BertForQuestionAnswering"], "num_labels": 3}, "num_labels"),
        ({"architectures": ["BertForTokenClassification"], "id2label": {"1": "a", "2": "b"}}, "id2label"),
        ({"architectures": ["BertForTokenClassification"], "id2label": {"0": 1}}, "id2label"),
        ({"architectures": ["BertForTokenClassification"], "id2label": ["a"]}, "id2label"),
        ({"architectures": ["BertForTokenClassification"], **NAMED, "num_labels": 4}, "id2label"),
        ({"architectures": ["BertForSequenceClassification"], "problem_type": "ranking"}, "problem_type"),
        ({"model_type": "roberta", "pad_token_id": None}, "pad_token_id"),
        ({"model_type": "roberta", "max_position_embeddings": 2}, "max_position_embeddings"),
        ({"model_type": "distilbert", "layer_norm_eps": 1e-5}, "layer_norm_eps"),
        ({"model_type": "distilbert", "activation": "relu"}, "activation"),
        ({"model_type": "distilbert", "tie_weights_": False}, "tie_weights_"),
        ({"hidden_dropout_prob": 1.0}, "hidden_dropout_prob"),
        ({"classifier_dropout": -0.1}, "classifier_dropout"),
        ({"head": "masked"}, "head"),
    ],
)
def test_a_config_that_would_give_wrong_answers_is_refused(change, word):
    raw = {"model_type": "bert", **SIZES, **change}
    with pytest.raises(InputError, match=word) as caught:
        BertConfig.from_hf({k: v for k, v in raw.items() if v != "left out"}, "there/config.json")
    assert caught.value.where == "there/config.json"
    assert caught.value.then


def test_published_configs_are_read():
    shape = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
    base = {"architectures": ["BertForMaskedLM"], **shape, "vocab_size": 30522, "type_vocab_size": 2}
    base |= {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute", "use_cache": True}
    base |= {"gradient_checkpointing": False, "pad_token_id": 0, "max_position_embeddings": 512}
    google = {"directionality": "bidi", "pooler_fc_size": 768, "pooler_type": "first_token_transform"}
    assert BertConfig.from_hf({**base, **google}).parameters == 109_514_298
    assert BertConfig.from_hf({**base, "architectures": ["BertModel"]}).parameters == 109_482_240
    roberta = {"model_type": "roberta", **shape, "vocab_size": 50265, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
    roberta |= {"max_position_embeddings": 514, "architectures": ["RobertaForMaskedLM"]}
    config = BertConfig.from_hf(roberta)
    assert (config.context, config.pad_token_id, config.eos_token_id, config.bos_token_id) == (512, 1, 2, 0)
    assert config.parameters == 124_697_433
    distil = {"model_type": "distilbert", "dim": 768, "n_layers": 6, "n_heads": 12, "hidden_dim": 3072}
    distil |= {"vocab_size": 30522, "sinusoidal_pos_embds": False, "tie_weights_": True, "activation": "gelu"}
    distil |= {"architectures": ["DistilBertForSequenceClassification"], "seq_classif_dropout": 0.3, "dropout": 0.05}
    config = BertConfig.from_hf({**distil, "finetuning_task": "sst-2", "id2label": {"0": "NEGATIVE", "1": "POSITIVE"}})
    assert config.labels == ("NEGATIVE", "POSITIVE")
    assert (config.head_dropout, config.hidden_dropout_prob, config.parameters) == (0.3, 0.05, 66_955_010)
    assert {"dim", "hidden_dim", "dropout"} <= set(config.to_hf())
