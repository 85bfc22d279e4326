"""Another head, or another share of dropout, on a body that has learnt already."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from qualm.models.base import Config, Encoder, Model

OWN = ("classifier", "qa_outputs")  # what knows the labels of one task


def with_head(model: Model, head: str, labels: Sequence[str], seed: int, several: bool = False) -> Model:
    """The encoder with a head for these labels, new unless it has just that one; the body's weights are shared."""
    assert isinstance(model, Encoder)
    names = {str(i): label for i, label in enumerate(labels)}
    kind = {"sequence": "multi_label_classification" if several else "single_label_classification"}.get(head)
    if head == "question":
        names = {"0": "LABEL_0", "1": "LABEL_1"}
    config = replace(model.config, head=head, num_labels=len(names), id2label=names, problem_type=kind)
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
