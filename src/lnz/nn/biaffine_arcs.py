"""Scores of the arcs of dependency trees: every word with every head, by biaffine forms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lnz.distributions import DependencyTree


class Roles(NamedTuple):
    """What words are like as dependents and as heads, the root first: ``[*batch, N + 1, width of the role]``."""

    dependent: Tensor
    head: Tensor
    labelled_dependent: Tensor | None
    labelled_head: Tensor | None


class BiaffineArcs(nn.Module):
    """Scores of arcs and of their labels from the features of words (Dozat & Manning 2017).

    Four perceptrons of one layer say what a word is like as a dependent and as a head, for arcs and for labels. The
    score of an arc is ``d U h + u h`` of the two, that of a label ``d W_r h + v_r d + w_r h + b_r``, normalised over
    the labels of each arc: what label an arc has is a softmax given the arc, so that P(tree with labels) =
    P(tree) · Π P(label | arc). The root has features of its own, which are learnt. O(N² (arc_width + R · label_width)).

    Args:
        width: of the features.
        num_labels: R; ``None`` where arcs have no labels.
        arc_width: of the perceptrons of arcs.
        label_width: of those of labels.
        dropout: of the outputs of all four.
    """

    def __init__(
        self,
        width: int,
        num_labels: int | None = None,
        *,
        arc_width: int = 256,
        label_width: int = 64,
        dropout: float = 0.33,
    ) -> None:
        super().__init__()
        sizes = {"width": width, "num_labels": num_labels, "arc_width": arc_width, "label_width": label_width}
        for name, value in sizes.items():
            if value is not None and value < 1:
                raise ValueError(f"{name}: expected a positive integer, got {value}")
        self.num_labels, self.dropout = num_labels, nn.Dropout(dropout)
        self.root = nn.Parameter(torch.randn(width) / width**0.5)
        self.dependent, self.head = nn.Linear(width, arc_width), nn.Linear(width, arc_width)
        self.arc = nn.Parameter(torch.zeros(arc_width + 1, arc_width))
        if num_labels is not None:
            self.labelled_dependent = nn.Linear(width, label_width)
            self.labelled_head = nn.Linear(width, label_width)
            self.label = nn.Parameter(torch.zeros(num_labels, label_width + 1, label_width + 1))

    def roles(self, features: Tensor) -> Roles:
        """The outputs of the perceptrons of features ``[*batch, N, width]``."""
        root = self.root.to(features.dtype).expand(*features.shape[:-2], 1, -1)
        rooted = torch.cat((root, features), -2)

        def of(layer: nn.Linear) -> Tensor:
            return self.dropout(nn.functional.leaky_relu(layer(rooted), 0.1))

        labelled = self.num_labels is not None
        return Roles(
            of(self.dependent),
            of(self.head),
            of(self.labelled_dependent) if labelled else None,
            of(self.labelled_head) if labelled else None,
        )

    def arcs(self, roles: Roles) -> Tensor:
        """Scores of arcs ``[*batch, N + 1, N + 1]``, [dependent, head]; row 0 and the diagonal mean nothing."""
        return _with_one(roles.dependent) @ self.arc @ roles.head.mT

    def labels(self, roles: Roles) -> Tensor:
        """ln P(label | arc), ``[*batch, N + 1, N + 1, R]``."""
        dependent, head = self._labelled(roles)
        scores = (dependent.unsqueeze(-3) @ self.label) @ head.unsqueeze(-3).mT  # [*batch, R, N + 1, N + 1]
        return scores.movedim(-3, -1).log_softmax(-1)

    def labels_of(self, roles: Roles, heads: Tensor) -> Tensor:
        """ln P(label | arc) of the arcs to ``heads``, ``int64 [*batch, N + 1]``: ``[*batch, N + 1, R]``.

        Where a head is below 0 (not known, padding), that of the root is taken.
        """
        dependent, head = self._labelled(roles)
        chosen = head.gather(-2, heads.clamp(min=0).unsqueeze(-1).expand(*heads.shape, head.shape[-1]))
        turned = dependent.unsqueeze(-3) @ self.label  # [*batch, R, N + 1, label_width + 1]
        return (turned * chosen.unsqueeze(-3)).sum(-1).mT.log_softmax(-1)

    def _labelled(self, roles: Roles) -> tuple[Tensor, Tensor]:
        if roles.labelled_dependent is None or roles.labelled_head is None:
            raise TypeError("labels: there are none; make BiaffineArcs with num_labels")
        return _with_one(roles.labelled_dependent), _with_one(roles.labelled_head)

    def forward(self, features: Tensor) -> Tensor:
        """Scores of features ``[*batch, N, width]``, as :class:`~lnz.DependencyTree` takes them.

        Returns:
            ``[*batch, N + 1, N + 1]``, [dependent, head]; with labels ``[*batch, N + 1, N + 1, R]``.
        """
        roles = self.roles(features)
        arcs = self.arcs(roles)
        return arcs if self.num_labels is None else arcs.unsqueeze(-1) + self.labels(roles)

    def distribution(
        self,
        features: Tensor,
        lengths: Tensor | Sequence[int] | None = None,
        projective: bool = False,
        single_root: bool = True,
    ) -> DependencyTree:
        """The distribution over the dependency trees of each sentence; arguments as :class:`~lnz.DependencyTree`."""
        labelled = self.num_labels is not None
        return DependencyTree(self(features), lengths, projective, single_root, labelled=labelled)


def _with_one(x: Tensor) -> Tensor:
    return torch.cat((x, x.new_ones(*x.shape[:-1], 1)), -1)
