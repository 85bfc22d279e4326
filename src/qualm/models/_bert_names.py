"""How the files of BERT and its kin call the weights.

The names here are BERT's own, so BERT's files load as they are; RoBERTa's and DistilBERT's are respelt.
"""

from qualm.models._bert_config import KIN, BertConfig

BODY = ("embeddings.", "encoder.", "transformer.", "pooler.")  # how the body's weights begin, without a prefix
DISTIL_NAMES = (
    ("attention.self.query", "attention.q_lin"),
    ("attention.self.key", "attention.k_lin"),
    ("attention.self.value", "attention.v_lin"),
    ("attention.output.dense", "attention.out_lin"),
    ("attention.output.LayerNorm", "sa_layer_norm"),
    ("intermediate.dense", "ffn.lin1"),
    ("output.dense", "ffn.lin2"),
    ("output.LayerNorm", "output_layer_norm"),
    ("encoder.layer", "transformer.layer"),
    ("cls.predictions.transform.dense", "vocab_transform"),
    ("cls.predictions.transform.LayerNorm", "vocab_layer_norm"),
    ("cls.predictions.decoder", "vocab_projector"),
    ("cls.predictions.bias", "vocab_projector.bias"),
    ("bert.pooler.dense", "pre_classifier"),
)  # BERT's name, theirs; in the order in which ours are respelt
ROBERTA_NAMES = (
    ("cls.predictions.transform.dense", "lm_head.dense"),
    ("cls.predictions.transform.LayerNorm", "lm_head.layer_norm"),
    ("cls.predictions.decoder", "lm_head.decoder"),
    ("cls.predictions.bias", "lm_head.bias"),
)
ROBERTA_SEQUENCE = (("classifier", "classifier.out_proj"), ("bert.pooler.dense", "classifier.dense"))


def _names(config: BertConfig) -> tuple[tuple[str, str], ...]:
    """BERT's names and the family's, in the order in which ours are respelt."""
    prefix = ("bert", KIN[config.model_type].prefix)
    if config.distilled:
        return (*DISTIL_NAMES, prefix)
    if config.counts_from_pad:
        return (*ROBERTA_NAMES, *(ROBERTA_SEQUENCE if config.head == "sequence" else ()), prefix)
    return ()


def _respelt(name: str, old: str, new: str) -> str:
    return f".{name}.".replace(f".{old}.", f".{new}.")[1:-1]


def ours(name: str, config: BertConfig) -> str | None:
    """BERT's name of a tensor in a file of any age; None for one that no head of this config reads.

    The first files call the norms' weights gamma and beta, hold position_ids, and may lack the prefix of the body.
    RoBERTa's body had a pooler that its "sequence" head never read.
    """
    prefix = KIN[config.model_type].prefix
    if name.endswith(("position_ids", "token_type_ids")):
        return None
    name = _respelt(_respelt(name, "LayerNorm.gamma", "LayerNorm.weight"), "LayerNorm.beta", "LayerNorm.bias")
    if name.startswith(BODY):
        name = f"{prefix}.{name}"
    if name.startswith(f"{prefix}.pooler.") and (
        not config.pools or (config.counts_from_pad and config.head != "none")
    ):
        return None
    for bert, theirs in reversed(_names(config)):
        name = _respelt(name, theirs, bert)
    return None if name.startswith("cls.seq_relationship.") else name


def theirs(name: str, config: BertConfig) -> str:
    """What the family's file calls a tensor of ours: the inverse of `ours`."""
    for bert, other in _names(config):
        name = _respelt(name, bert, other)
    return name.partition(".")[2] if config.head == "none" else name
