"""What config.json says of BERT and its kin."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple, Self

from qualm.errors import InputError
from qualm.models.base import Config


class Kin(NamedTuple):
    """A family of the kind: the start of its classes' names, and of its weights'."""

    start: str
    prefix: str
    defaults: Mapping[str, Any]  # what a key left out of a config.json means there


ROBERTA = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
KIN = {
    "bert": Kin("Bert", "bert", {"pad_token_id": 0}),
    "roberta": Kin("Roberta", "roberta", ROBERTA),
    "xlm-roberta": Kin("XLMRoberta", "roberta", ROBERTA),
    "distilbert": Kin("DistilBert", "distilbert", {"pad_token_id": 0}),
}
MEAN = "qualm-"  # before the name of a kin whose "sequence" head reads the mean of all tokens, as no other program does
KIN |= {MEAN + name: kin._replace(start=f"Qualm{kin.start}") for name, kin in KIN.items()}
HEADS = {
    "none": "Model",
    "masked": "ForMaskedLM",
    "sequence": "ForSequenceClassification",
    "token": "ForTokenClassification",
    "question": "ForQuestionAnswering",
}
PROBLEMS = ("regression", "single_label_classification", "multi_label_classification")
DISTIL_KEYS = {
    "dim": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "hidden_dim": "intermediate_size",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
}  # DistilBERT's key -> BERT's
DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "seq_classif_dropout", "qa_dropout")
DISTIL_EPS = 1e-12  # DistilBERT has no key for it


@dataclass(frozen=True)
class BertConfig(Config):
    """The keys of BERT's config.json; DistilBERT's are read and written under its own names.

    `head` stands for the class in `architectures`. A `model_type` with "qualm-" before its name averages (`pooling`).
    The labels of a "sequence" or "token" head are the words of `id2label`; with problem_type
    "multi_label_classification" each is true or false by itself (sigmoid).
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int = 0  # 0: 4 * hidden_size
    max_position_embeddings: int = 512
    type_vocab_size: int | None = None  # kinds of segments; None: 2, DistilBERT 0
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    classifier_dropout: float | None = None  # None: hidden_dropout_prob
    seq_classif_dropout: float = 0.2  # DistilBERT's, before a "sequence" head
    qa_dropout: float = 0.1  # DistilBERT's, before a "question" head
    head: str = "none"
    num_labels: int = 0  # 0: as many as id2label names, or 2
    id2label: Mapping[str, str] | None = None  # "0": ..., "1": ...; None: LABEL_0, LABEL_1, ...
    problem_type: str | None = None
    add_pooling_layer: bool = True  # whether a model without a head has the layer over the first token
    tie_word_embeddings: bool = field(default=True, kw_only=True)
    bos_token_id: int | None = None
    eos_token_id: int | tuple[int, ...] | None = None
    pad_token_id: int | None = None
    model_type: str = field(default="bert", kw_only=True)

    model_types: ClassVar[frozenset[str]] = frozenset(KIN)
    harmless: ClassVar[frozenset[str]] = frozenset(
        {"_num_labels", "directionality", "sinusoidal_pos_embds", "xla_device"}
        | {f"pooler_{part}" for part in ("fc_size", "num_attention_heads", "num_fc_layers", "size_per_head", "type")}
    )
    fixed: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "activation": ("gelu", "gelu_python"),
        "hidden_act": ("gelu", "gelu_python"),
        "is_decoder": (False,),
        "position_embedding_type": ("absolute", None),
        "tie_weights_": (True,),
    }

    def __post_init__(self) -> None:
        if self.model_type not in self.model_types:
            raise self.refuse(f"model_type {self.model_type!r} is none of {', '.join(sorted(self.model_types))}")
        if self.head not in HEADS:
            raise self.refuse(f"head {self.head!r} is none of {', '.join(HEADS)}")
        self._derive()
        self.check_sizes("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        self.check_sizes("max_position_embeddings", "num_labels")
        self.check_shares(*DROPOUTS, "classifier_dropout")
        if self.hidden_size % self.num_attention_heads:
            heads = self.num_attention_heads
            raise self.refuse(f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {heads}")
        if self.distilled and (self.type_vocab_size != 0 or self.layer_norm_eps != DISTIL_EPS):
            raise self.refuse(f"DistilBERT has no type_vocab_size, and layer_norm_eps is {DISTIL_EPS}")
        if not self.distilled:
            self.check_sizes("type_vocab_size")
        if self.head == "masked" and not self.tie_word_embeddings:
            raise self.refuse("tie_word_embeddings = False is not implemented for a masked language model")
        if self.counts_from_pad and self.pad_token_id is None:
            raise self.refuse("pad_token_id is missing: positions are counted from it")
        if self.context < 1:
            raise self.refuse(
                f"max_position_embeddings {self.max_position_embeddings} leaves no position after padding"
            )
        self._check_labels()

    def _derive(self) -> None:
        labels = dict(self.id2label) if self.id2label else {str(i): f"LABEL_{i}" for i in range(self.num_labels or 2)}
        derived = {
            "intermediate_size": self.intermediate_size or 4 * self.hidden_size,
            "num_labels": self.num_labels or len(labels),
            "id2label": labels,
        }
        if self.type_vocab_size is None:
            derived["type_vocab_size"] = 0 if self.distilled else 2
        for key, value in derived.items():
            object.__setattr__(self, key, value)

    def _check_labels(self) -> None:
        names = dict(self.id2label or {})
        if not all(isinstance(word, str) for word in names.values()):
            raise self.refuse("id2label holds labels that are no words")
        if set(names) != {str(i) for i in range(self.num_labels)}:
            raise self.refuse(f"id2label does not name the labels 0 to {self.num_labels - 1}")
        if self.head == "question" and self.num_labels != 2:
            raise self.refuse(f"num_labels = {self.num_labels}: an answer has a first and a last place, so 2")
        if self.problem_type not in (None, *PROBLEMS):
            raise self.refuse(f"problem_type {self.problem_type!r} is none of {', '.join(PROBLEMS)}")

    @classmethod
    def from_hf(cls, raw: Mapping[str, Any], where: str = "config.json") -> Self:
        kind = raw.get("model_type", "bert")
        values = {**KIN[kind].defaults, **raw} if kind in KIN else dict(raw)
        if str(kind).endswith("distilbert"):
            values = {DISTIL_KEYS.get(key, key): value for key, value in values.items()}
        if "head" in raw:
            raise InputError("key 'head' is not known, and could change the answers", where=where, then="remove it")
        values["head"] = _head(values.pop("architectures", None), where)
        if values["head"] in ("none", "masked"):  # what labels the config names belong to another model
            values = {k: v for k, v in values.items() if k not in ("id2label", "num_labels", "problem_type")}
        if isinstance(names := values.get("id2label"), Mapping):
            values["id2label"] = {str(key): word for key, word in names.items()}
        return super().from_hf(values, where)

    def to_hf(self, dtype: str = "float32") -> dict[str, Any]:
        kept = super().to_hf(dtype)
        dropped = {"head", "num_labels", "id2label"}
        dropped |= set() if self.head == "none" and not self.add_pooling_layer else {"add_pooling_layer"}
        if self.distilled:
            dropped |= {"type_vocab_size", "layer_norm_eps", "classifier_dropout"}
        else:
            dropped |= {"seq_classif_dropout", "qa_dropout"}
        kept = {key: value for key, value in kept.items() if key not in dropped}
        if self.head in ("sequence", "token"):
            kept["id2label"] = dict(self.id2label or {})
            kept["label2id"] = {word: i for i, word in enumerate(self.labels)}
        else:
            del kept["problem_type"]
        if self.distilled:
            theirs = {ours: key for key, ours in DISTIL_KEYS.items()}
            kept = {theirs.get(key, key): value for key, value in kept.items()}
        return {**kept, "activation" if self.distilled else "hidden_act": "gelu"}

    def maths(self) -> dict[str, Any]:
        unsaid = {"seq_classif_dropout", "qa_dropout"}
        unsaid |= set() if self.head in ("sequence", "token") else {"id2label", "problem_type"}
        kept = {key: value for key, value in super().maths().items() if key not in unsaid}
        return {**kept, "pad_token_id": self.pad_token_id} if self.counts_from_pad else kept

    @property
    def architecture(self) -> str:
        return KIN[self.model_type].start + HEADS[self.head]

    @property
    def layers(self) -> int:
        return self.num_hidden_layers

    @property
    def labels(self) -> tuple[str, ...]:
        """The words for the labels of a "sequence" or "token" head, in the order of its logits."""
        return tuple((self.id2label or {})[str(i)] for i in range(self.num_labels))

    @property
    def distilled(self) -> bool:
        """No segments, no pooler but for a "sequence" head, and keys of its own."""
        return self.model_type.endswith("distilbert")

    @property
    def pooling(self) -> str:
        """What a "sequence" head reads of a text: "cls", the first token's hidden state, or "mean", that of all."""
        return "mean" if self.model_type.startswith(MEAN) else "cls"

    def pooled_by(self, pooling: str) -> Self:
        """The config with another `pooling`."""
        kind = self.model_type.removeprefix(MEAN)
        return replace(self, model_type=MEAN + kind if pooling == "mean" else kind)

    @property
    def counts_from_pad(self) -> bool:
        """Whether the first position is the one after pad_token_id, as in RoBERTa."""
        return "roberta" in self.model_type

    @property
    def skipped(self) -> int:
        """How many of the first positions no token takes."""
        return (self.pad_token_id or 0) + 1 if self.counts_from_pad else 0

    @property
    def context(self) -> int:
        return self.max_position_embeddings - self.skipped

    @property
    def pools(self) -> bool:
        """Whether there is a layer over the first token's hidden state."""
        return self.head == "sequence" or (self.head == "none" and self.add_pooling_layer and not self.distilled)

    @property
    def head_dropout(self) -> float:
        """The part of the hidden states that training drops before the head."""
        if self.distilled:
            said = {"sequence": self.seq_classif_dropout, "question": self.qa_dropout}
            return said.get(self.head, self.hidden_dropout_prob)
        if self.head == "question":
            return 0.0
        return self.hidden_dropout_prob if self.classifier_dropout is None else self.classifier_dropout

    @property
    def parameters(self) -> int:
        width, inner, labels = self.hidden_size, self.intermediate_size, self.num_labels
        square = width * width + width
        layer = 4 * square + 2 * width * inner + inner + width + 4 * width
        tables = self.vocab_size + self.max_position_embeddings + (self.type_vocab_size or 0) + 2
        heads = {"none": 0, "masked": square + 2 * width + self.vocab_size}
        return self.layers * layer + tables * width + self.pools * square + heads.get(self.head, (width + 1) * labels)

    def flops(self, length: int, source: int = 0) -> int:
        width, labels = self.hidden_size, self.num_labels
        layer = 4 * width**2 + 2 * width * self.intermediate_size + 2 * length * width
        heads = {"none": 0, "masked": length * width * (width + self.vocab_size), "sequence": width * (width + labels)}
        return 2 * (length * self.layers * layer + heads.get(self.head, length * width * labels))

    @classmethod
    def sized(cls, depth: int, vocab: int, length: int, **ids: Any) -> Self:
        """A masked language model of `depth` layers of 32 channels a layer, heads of 32 channels, feed-forward of 4
        widths; learned positions reach the trained length.

        Weights start at 1 / sqrt(width), which small models learn from much faster than from BERT's 0.02. Nothing is
        dropped, as in a GPT of the same dial.
        """
        width = 32 * depth
        own = {"initializer_range": width**-0.5, "head": "masked", **dict.fromkeys(DROPOUTS, 0.0)}
        sizes: dict[str, Any] = {"num_hidden_layers": depth, "num_attention_heads": depth, **own, **ids}
        config = cls(vocab_size=vocab, hidden_size=width, **sizes)
        return replace(config, max_position_embeddings=length + config.skipped)


def _head(architectures: Any, where: str) -> str:
    """The head that a config's `architectures` names; "none" if there is no such key.

    BertForPreTraining is a masked language model with a head besides that tells whether one text follows another,
    which is left out. Raises InputError for any other class.
    """
    if architectures is None:
        return "none"
    known = {kin.start + ending: head for kin in KIN.values() for head, ending in HEADS.items()}
    known["BertForPreTraining"] = "masked"
    named = architectures[0] if isinstance(architectures, list | tuple) and architectures else architectures
    if not isinstance(named, str) or named not in known:
        raise InputError(
            f"architectures = {architectures!r} is not implemented",
            where=where,
            then=f"use a checkpoint of {', '.join(HEADS.values())} or BertForPreTraining",
        )
    return known[named]
