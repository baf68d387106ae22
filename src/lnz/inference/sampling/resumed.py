"""Labellings that chains go on from: whoever made them, they fit the model and agree with what it has observed."""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.checks import check_feasible, check_labels, check_tensor, concrete
from lnz.scores import Model
from lnz.typing import IGNORE


def check_model(model: object) -> None:
    """Raise unless ``model`` is what samplers run on."""
    if not isinstance(model, Model):
        raise TypeError(f"model: expected a Model, which a distribution p has as p.model, got {type(model).__name__}")


def resumed(name: str, model: Model, labels: Tensor, lead: tuple[str, ...] = ("n",)) -> Tensor:
    """``labels``, ``int64 [*lead, *batch, N]``, with the observed nodes of ``model`` at their observed labels.

    Args:
        name: of the labels, for messages.
        model: which the chains may not have been made for: the same graph, and other scores and observations.
        labels: without −100; left as they are.
        lead: what the dimensions in front of the batch count.

    Raises:
        InfeasibleError: putting the observed labels in gives score −inf; names the batch entries.
        TypeError: not an int64 tensor.
        ValueError: a wrong shape or device, or labels out of range.
    """
    check_tensor(name, labels)
    expected = (*model.batch_shape, model.graph.num_nodes)
    dims = labels.dim() - len(expected)
    if dims != len(lead) or tuple(labels.shape[dims:]) != expected or 0 in labels.shape[:dims]:
        shape = ", ".join(map(str, (*lead, *expected)))
        raise ValueError(
            f"{name}: expected labellings of shape [{shape}], n chains of each model, got {list(labels.shape)}"
        )
    if labels.device != model.device:
        raise ValueError(f"{name}: expected labels on {model.device}, as the model, got {labels.device}")
    graph = model.graph
    cards = graph.uniform_cardinality or torch.tensor(graph.cardinalities, device=labels.device)
    check_labels(name, labels, cards, unobserved=False)
    if model.observed is None:
        return labels
    clamped = torch.where(model.observed == IGNORE, labels, model.observed)
    if concrete(clamped) and not torch.equal(clamped, labels):
        impossible = torch.isneginf(model.precise_score(clamped)).flatten(0, dims - 1).any(0)
        scores = torch.zeros(impossible.shape, device=labels.device).masked_fill(impossible, -torch.inf)
        check_feasible(scores, name, "what is observed now leaves them score -inf, so start new ones with init")
    return clamped
