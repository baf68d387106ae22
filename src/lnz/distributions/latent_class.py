"""Latent class models and naive Bayes: one class variable, and items that are independent given the class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from lnz.checks import check_integer, check_tensor
from lnz.distributions.bayes_net import BayesNet
from lnz.distributions.class_stack import Answers, ClassStack, expected, packed, unpacked
from lnz.inference import Exact
from lnz.typing import IGNORE


class ClassModel(BayesNet):
    """A :class:`BayesNet` whose variable 0 is the class, the parent of all others, the items.

    Rows may leave out the class, ``[R, items]``: it is unobserved then.
    """

    def labelling(self, y: Tensor, name: str = "y") -> Tensor:
        check_tensor(name, y)
        items = len(self.cardinalities) - 1
        if not y.dim() or y.shape[-1] not in (items, items + 1):
            either = f"[*batch, {items}] of items, or [*batch, {items + 1}] with the class first"
            raise ValueError(f"{name}: expected shape {either}, got {list(y.shape)}")
        if y.shape[-1] == items:
            y = torch.nn.functional.pad(y, (1, 0), value=IGNORE)
        return super().labelling(y, name)

    def rows_of_answers(self, data: Tensor) -> Tensor:
        """``data`` as rows ``int64 [R, 1 + items]``, the class first.

        Raises:
            ValueError: no rows.
        """
        y = self.labelling(data, "data")
        if y.dim() != 2:
            raise ValueError(f"data: expected rows [R, {len(self.cardinalities)}], got {list(y.shape)}")
        return y

    def e_step(
        self, data: Tensor, lengths: object = None, weights: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        if not isinstance(self.inference, Exact) or self.batch_shape or lengths is not None:
            return super().e_step(data, lengths, weights)
        answers = Answers.of(self.rows_of_answers(data), weights, self.cardinalities)
        evidence, counts = expected(packed(self.log_cpts)[None], answers)
        return evidence.squeeze(0), unpacked(counts.squeeze(0), self.cardinalities)

    def stacked(self, networks: Sequence[Self]) -> Any:
        if not isinstance(self.inference, Exact) or self.batch_shape:
            return super().stacked(networks)
        return ClassStack(self, torch.stack([packed(network.log_cpts) for network in networks]))

    def classes(self, rows: Tensor) -> Tensor:
        """P(class | items) of rows ``[R, items]`` or ``[R, 1 + items]``, ``[R, classes]``."""
        return self.condition(rows).node_marginals[..., 0, : self.cardinalities[0]]


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
    if not len(cardinalities):
        raise ValueError("cardinalities: expected at least one item, got none")
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
