"""A network from words to distributions over dependency trees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lnz.distributions import DependencyTree
from lnz.nn.biaffine_arcs import BiaffineArcs
from lnz.objectives import nll
from lnz.typing import IGNORE

Decoder = Literal["mbr", "argmax"]


class DependencyParser(nn.Module):
    """An encoder of words, biaffine scores of arcs and relations, and the exponential softmax over dependency trees.

    Args:
        encoder: a module with a ``width``, from a batch with ``lengths`` ``int64 [B]`` to features ``[B, N, width]``,
            as :class:`~lnz.nn.WordEncoder`.
        num_relations: R.
        projective: whether arcs may not cross.
        single_root: whether exactly one word hangs under the root.
        arc_width: see :class:`~lnz.nn.BiaffineArcs`.
        label_width: see there, too.
        dropout: see there, too.
    """

    def __init__(
        self,
        encoder: nn.Module,
        num_relations: int,
        *,
        projective: bool = False,
        single_root: bool = True,
        arc_width: int = 256,
        label_width: int = 64,
        dropout: float = 0.33,
    ) -> None:
        super().__init__()
        self.encoder, self.projective, self.single_root = encoder, projective, single_root
        width: int = encoder.width  # type: ignore[assignment]
        self.scorer = BiaffineArcs(width, num_relations, arc_width=arc_width, label_width=label_width, dropout=dropout)

    def distribution(self, batch: Mapping[str, Any]) -> DependencyTree:
        """The distribution over the labelled trees ``int64 [B, N + 1, 2]`` (head, relation) of each sentence."""
        return self.scorer.distribution(self.encoder(batch), batch["lengths"], self.projective, self.single_root)

    forward = distribution

    def nll(self, batch: Mapping[str, Any], trees: Tensor) -> Tensor:
        """−ln P of ``trees`` ``int64 [B, N + 1, 2]``, summed over the sentences.

        It is −Σ ``distribution(batch).log_prob(trees)``, of which only the relations of gold arcs are scored. A head of
        −100 is not known, and summed over; a relation counts where it and its head are known.

        Raises:
            InfeasibleError: of sentences whose heads make no such tree; names them.
        """
        roles = self.scorer.roles(self.encoder(batch))
        heads = trees[..., 0]
        p = DependencyTree(self.scorer.arcs(roles), batch["lengths"], self.projective, self.single_root)
        return nll(p, heads, "sum") + self.relation_nll(self.scorer.labels_of(roles, heads), trees)

    @staticmethod
    def relation_nll(log_p: Tensor, trees: Tensor) -> Tensor:
        """−Σ ln P of the relations in ``trees`` where they and their heads are known, by ``log_p [B, N + 1, R]``."""
        known = torch.where(trees[..., 0] >= 0, trees[..., 1], IGNORE)[:, 1:]
        return nn.functional.nll_loss(log_p[:, 1:].flatten(0, 1), known.flatten(), ignore_index=IGNORE, reduction="sum")

    @torch.no_grad()
    def decode(self, batch: Mapping[str, Any], by: Decoder = "mbr") -> Tensor:
        """One tree for each sentence, ``int64 [B, N + 1, 2]``, −100 over padding.

        Args:
            batch: as the encoder takes it.
            by: "mbr", that with the most words expected to have the right head and relation (minimum Bayes risk);
                "argmax", the most probable one.
        """
        if by not in ("mbr", "argmax"):
            raise ValueError(f"by: expected 'mbr' or 'argmax', got {by!r}")
        p = self.distribution(batch)
        return p.minimum_bayes_risk() if by == "mbr" else p.argmax()
