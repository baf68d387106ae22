"""Latent class models and naive Bayes: one class variable, and items that are independent given the class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lnz.checks import check_integer
from lnz.distributions.bayes_net import BayesNet
from lnz.distributions.statistics import blocks, require_possible
from lnz.typing import IGNORE


class ClassModel(BayesNet):
    """A :class:`BayesNet` whose variable 0 is the class, the parent of all others, the items.

    Rows may leave out the class, ``[R, items]``: it is unobserved then.
    """

    def labelling(self, y: Tensor) -> Tensor:
        if isinstance(y, Tensor) and y.dim() and y.shape[-1] == len(self.cardinalities) - 1:
            y = torch.nn.functional.pad(y, (1, 0), value=IGNORE)
        return super().labelling(y)

    def classes(self, rows: Tensor) -> Tensor:
        """P(class | items) of rows ``[R, items]`` or ``[R, 1 + items]``, ``[R, classes]``."""
        return self.condition(rows).node_marginals[..., 0, : self.cardinalities[0]]

    def e_step(
        self, data: Tensor, lengths: object = None, weights: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """As of every network; given the class the items are independent, so that it is two products of matrices."""
        y = self.labelling(data)
        if lengths is not None or self.batch_shape or y.dim() != 2 or not self._joint or len(self.log_cpts) == 1:
            return super().e_step(data, lengths, weights)
        (root, *tables), cards = self.log_cpts, self.cardinalities
        log_items = torch.cat(tables, -1).double()  # [C, all answers]
        impossible = torch.isneginf(log_items)
        unseen = torch.stack([table.double().logsumexp(-1) for table in tables])
        counts, shares, evidence = torch.zeros_like(log_items), torch.zeros_like(root, dtype=torch.float64), []
        for start, part in blocks(y, log_items.shape[1]):
            seen = torch.cat([_indicators(part[:, i], card) for i, card in enumerate(cards[1:], 1)], -1)
            joint = root.double() + seen @ log_items.masked_fill(impossible, 0.0).T
            joint = joint + (part[:, 1:] == IGNORE).double() @ unseen
            joint = joint.masked_fill(seen @ impossible.double().T > 0, -torch.inf)
            classes = torch.arange(cards[0], device=y.device)
            joint = joint.masked_fill((part[:, :1] != IGNORE) & (part[:, :1] != classes), -torch.inf)
            evidence.append(joint.logsumexp(-1))
            require_possible(evidence[-1], start)
            posterior = (joint - evidence[-1][:, None]).exp()
            if weights is not None:
                posterior = posterior * weights[start : start + len(part), None].double()
            counts += posterior.T @ seen
            shares += posterior.sum(0)
        found = [shares]
        for table, known in zip(tables, counts.split(cards[1:], -1), strict=True):
            hidden = (shares - known.sum(-1)).clamp(min=0.0)  # rows where the item is missing
            found.append(known + hidden[:, None] * table.double().softmax(-1))
        total = torch.cat(evidence)
        return (total if weights is None else total * weights.double()).sum(), found


def _indicators(column: Tensor, card: int) -> Tensor:
    """Which answer each row gives, ``float64 [R, card]``; 0 everywhere where it gives none."""
    return (column[:, None] == torch.arange(card, device=column.device)).double()


def latent_class(
    num_classes: int,
    cardinalities: Sequence[int],
    *,
    names: Sequence[str] | None = None,
    states: Sequence[Sequence[str]] | None = None,
    dtype: torch.dtype = torch.float64,
) -> ClassModel:
    """A latent class model (Lazarsfeld & Henry 1968): items that are independent given a class that nobody saw.

    Tables start uniform, where every class is like every other: learn them by :func:`lnz.objectives.em` with
    ``restarts``, whose starts are drawn at random::

        model = lnz.latent_class(2, [2] * 7)
        result = lnz.objectives.em(model, answers, restarts=50)   # answers int64 [R, 7], −100 where missing
        result.bic, result.model.classes(answers)

    Args:
        num_classes: of the class, variable 0.
        cardinalities: the number of answers of each item.
        names: of the class and the items; by default ``"class"`` and numbers from 1 on.
        states: their names, those of the class first.
        dtype: of the tables.
    """
    check_integer("num_classes", num_classes)
    for item, card in enumerate(cardinalities):
        check_integer(f"cardinalities[{item}]", card)
    names = ["class", *map(str, range(1, len(cardinalities) + 1))] if names is None else names
    tables = [
        torch.zeros(num_classes, dtype=dtype),
        *(torch.zeros(num_classes, card, dtype=dtype) for card in cardinalities),
    ]
    parents: list[list[int]] = [[], *([0] for _ in cardinalities)]
    uniform = [table.log_softmax(-1) for table in tables]
    return ClassModel([num_classes, *cardinalities], parents, uniform, names=names, states=states)


def naive_bayes(
    num_classes: int,
    cardinalities: Sequence[int],
    *,
    names: Sequence[str] | None = None,
    states: Sequence[Sequence[str]] | None = None,
    dtype: torch.dtype = torch.float64,
) -> ClassModel:
    """The naive Bayes classifier: features that are independent given the class, which training rows have.

    ``fit`` counts full rows ``[R, 1 + features]``, the class first; :func:`lnz.objectives.em` takes rows with −100 for
    what is missing, features or classes; ``classes(features)`` classifies. Arguments as of :func:`latent_class`.
    """
    return latent_class(num_classes, cardinalities, names=names, states=states, dtype=dtype)
