"""Another head, another share of dropout, or more positions, on a body that has learnt already."""

from collections.abc import Sequence
from dataclasses import fields, replace

import torch

from qualm.models.base import Config, Encoder, Model

OWN = ("classifier", "qa_outputs")  # what knows the labels of one task
POSITIONS = ("max_position_embeddings", "n_positions")  # keys for how many positions there are


def with_head(
    model: Model, head: str, labels: Sequence[str], seed: int, several: bool = False, pooling: str | None = None
) -> Model:
    """The encoder with a head for these labels, new unless it has just that one; the body's weights are shared.

    A "sequence" head has this `pooling`, or the encoder's own.
    """
    assert isinstance(model, Encoder)
    names = {str(i): label for i, label in enumerate(labels)}
    kind = {"sequence": "multi_label_classification" if several else "single_label_classification"}.get(head)
    if head == "question":
        names = {"0": "LABEL_0", "1": "LABEL_1"}
    config = replace(model.config, head=head, num_labels=len(names), id2label=names, problem_type=kind)
    config = config.pooled_by(pooling or config.pooling if head == "sequence" else "cls")
    return with_config(model, config, seed, OWN)


def with_config(model: Model, config: Config, seed: int, new: tuple[str, ...] = ()) -> Model:
    """The model with another config: the weights of the old one where they fit, but for those whose names begin with
    `new`, which are drawn.
    """
    if config == model.config:
        return model
    made = type(model)(config)
    made.init_weights(seed)
    with torch.no_grad():
        old = dict(model.named_parameters())
        for name, weight in made.named_parameters():
            if name in old and old[name].shape == weight.shape and not name.startswith(new):
                weight.copy_(old[name])
    return made


def with_positions(model: Model, length: int) -> Model:
    """The model with a table of positions that reaches `length` tokens: the rows it has, over again (Beltagy et al.
    2020, arXiv 2004.05150, section 5). Itself if it reaches so far, or has no such table.
    """
    config, missing = model.config, length - model.config.context
    named = next((field.name for field in fields(config) if field.name in POSITIONS), None)
    if missing <= 0 or named is None:
        return model
    made = with_config(model, replace(config, **{named: getattr(config, named) + missing}), 0)
    old, tables = dict(model.named_parameters()), 0
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if weight.shape != (known := old[name]).shape:
                first = len(known) - config.context  # rows that no token takes
                weight[: len(known)] = known
                weight[len(known) :] = known[first:][torch.arange(config.context, length) % config.context]
                tables += 1
    return made if tables else model
