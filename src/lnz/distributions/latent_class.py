"""Latent class models and naive Bayes: one class variable, and items that are independent given the class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lnz.checks import check_integer, check_tensor
from lnz.distributions.bayes_net import BayesNet
from lnz.distributions.statistics import BLOCK, is_stack, require_possible
from lnz.inference import Exact
from lnz.typing import IGNORE

_NEVER = -1e200  # ln of what is impossible, in products with 0


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

    def e_step(
        self, data: Tensor, lengths: object = None, weights: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        exact = isinstance(self.inference, Exact) and (not self.batch_shape or is_stack(self.batch_shape))
        if not exact or lengths is not None:
            return super().e_step(data, lengths, weights)
        y = self.labelling(data, "data")
        if y.dim() != 2:
            raise ValueError(f"data: expected rows [R, {len(self.cardinalities)}], got {list(y.shape)}")
        weights = torch.ones(len(y), dtype=torch.float64) if weights is None else weights.double()
        weights = weights.to(y.device)
        rows = max(1, BLOCK // max(self.cardinalities[0] * max(1, self.batch_shape.numel()), sum(self.cardinalities)))
        parts = [
            self._class_statistics(y[at : at + rows], weights[at : at + rows], at) for at in range(0, len(y), rows)
        ]
        counts = [torch.stack(each).sum(0) for each in zip(*(part[1] for part in parts), strict=True)]
        return torch.stack([part[0] for part in parts]).sum(0), counts

    def _class_statistics(self, y: Tensor, weights: Tensor, first: int) -> tuple[Tensor, list[Tensor]]:
        """The E step in closed form, products of matrices: P(class | items) ∝ P(class) Π_i P(item i | class).

        All tables may have axes ``[S, 1]`` in front, as a stack of networks has them.
        """
        prior, *tables = (table.detach().double() for table in self.log_cpts)
        items, cards = y[:, 1:], self.cardinalities[1:]
        starts = torch.tensor([0, *cards], device=y.device).cumsum(0)
        seen = torch.zeros(len(y), int(starts[-1]), dtype=torch.float64, device=y.device)
        seen.scatter_(1, starts[:-1] + items.clamp(min=0), (items != IGNORE).double())
        joined = torch.cat(tables, -1) if tables else prior.new_zeros(*prior.shape, 0)  # [*stack, classes, answers]
        joint = prior.unsqueeze(-1) + joined.clamp(min=_NEVER) @ seen.T  # [*stack, classes, R]
        wrong = torch.arange(prior.shape[-1], device=y.device)[:, None] != y[:, 0]
        joint = joint.masked_fill((wrong & (y[:, 0] != IGNORE)) | (joint < _NEVER / 2), -torch.inf)
        evidence = joint.logsumexp(-2)
        require_possible(evidence, first)
        share = (joint - evidence.unsqueeze(-2)).exp() * weights
        counts, missing = share @ seen, share @ (items == IGNORE).double()
        missing = missing.repeat_interleave(torch.tensor(cards, dtype=torch.int64, device=y.device), -1)
        counts = counts + missing * joined.exp()
        return (evidence @ weights).reshape(self.batch_shape[:1]), [share.sum(-1), *counts.split(cards, -1)]

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
