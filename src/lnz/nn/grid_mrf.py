"""A Markov random field over the pixels of an image, as the last layer of a network."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from lnz.distributions import MRF
from lnz.graphs import FactorGraph
from lnz.inference import BeliefPropagation
from lnz.inference.base import Method
from lnz.scores import Entry, Weighted

Edges = Literal["shared", "contrast", "full"]


class GridMRF(nn.Module):
    """Features of the pixels to the exponential softmax over the labellings of the pixel grid.

    Node scores are a linear map of each pixel's features. Edges join the 4 or 8 nearest neighbours; each direction has
    its own scores, by ``edges``:

    - ``"shared"``: one table ``[L, L]`` per direction;
    - ``"contrast"``: that table, times a positive weight per edge, computed from how much the features of its two
      pixels differ (memory O(E), a :class:`~lnz.Weighted`);
    - ``"full"``: that table, plus a table per edge that is a linear map of the features of its two pixels
      (memory O(E·L²)).

    All edge parameters start at zero, where the distribution is the independent softmax of the node scores.

    Args:
        in_channels: channels C of the features.
        num_labels: labels L of a pixel.
        edges: how edge scores come about.
        neighbours: 4 or 8.
        inference: a method of :mod:`lnz.inference`; ``None`` is belief propagation with its default settings.
    """

    def __init__(
        self,
        in_channels: int,
        num_labels: int,
        edges: Edges = "shared",
        neighbours: int = 4,
        inference: Method | None = None,
    ) -> None:
        super().__init__()
        if edges not in ("shared", "contrast", "full"):
            raise ValueError(f"edges: expected 'shared', 'contrast' or 'full', got {edges!r}")
        if neighbours not in (4, 8):
            raise ValueError(f"neighbours: expected 4 or 8, got {neighbours}")
        self.num_labels = num_labels
        self.edges: Edges = edges
        self.neighbours = neighbours
        self.inference = inference or BeliefPropagation()
        self.nodes = nn.Conv2d(in_channels, num_labels, 1)
        directions = neighbours // 2
        self.tables = nn.Parameter(torch.zeros(directions, num_labels, num_labels))
        self.heads = nn.ModuleList()
        if edges == "contrast":
            self.heads.extend(_Zero(in_channels, 1) for _ in range(directions))
        elif edges == "full":
            self.heads.extend(_Zero(2 * in_channels, num_labels**2) for _ in range(directions))

    def reset_parameters(self) -> None:
        """Edge scores of 0. Those of the nodes and the heads reset themselves."""
        nn.init.zeros_(self.tables)

    def forward(self, features: Tensor) -> MRF:
        """The distribution of the labels of N = H·W pixels, row-major, given features ``[B, C, H, W]``."""
        if features.dim() != 4:
            raise ValueError(
                f"features: expected shape [B, {self.nodes.in_channels}, H, W], got {list(features.shape)}"
            )
        graph = _grid(features.shape[-2], features.shape[-1], self.num_labels, self.neighbours)
        nodes = self.nodes(features).flatten(2).transpose(1, 2)
        edges = [self._edge_scores(d, *pair) for d, pair in enumerate(_pairs(features, self.neighbours))]
        return MRF(graph, (nodes, *edges), self.inference)

    if TYPE_CHECKING:
        __call__ = forward

    def _edge_scores(self, direction: int, a: Tensor, b: Tensor) -> Entry:
        """Scores of the edges of one direction; ``a`` and ``b`` ``[B, E, C]`` are the features of their two ends."""
        table = self.tables[direction]
        if self.edges == "shared":
            return table
        head = self.heads[direction]
        if self.edges == "contrast":
            # twice the sigmoid is 1 at the start, and bounded: an edge can be cut, but no weight runs away
            return Weighted(2 * head(-(a - b).abs()).squeeze(-1).sigmoid(), table)
        return table + head(torch.cat((a, b), -1)).unflatten(-1, (self.num_labels, self.num_labels))

    def extra_repr(self) -> str:
        return f"num_labels={self.num_labels}, edges={self.edges!r}, neighbours={self.neighbours}, {self.inference}"


class _Zero(nn.Linear):
    """A linear layer that starts at 0."""

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)


@lru_cache(maxsize=64)  # plans are kept on the graph, so images of one size should share it
def _grid(height: int, width: int, num_labels: int, neighbours: int) -> FactorGraph:
    return FactorGraph.grid(height, width, num_labels, neighbours, by_direction=True)


def _pairs(features: Tensor, neighbours: int) -> list[tuple[Tensor, Tensor]]:
    """Per direction, the features ``[B, E, C]`` of both ends of its edges, in the order of ``FactorGraph.grid``."""
    x = features.movedim(1, -1)
    ends = [(x[:, :, :-1], x[:, :, 1:]), (x[:, :-1], x[:, 1:])]
    if neighbours == 8:
        ends += [(x[:, :-1, :-1], x[:, 1:, 1:]), (x[:, :-1, 1:], x[:, 1:, :-1])]
    return [(a.flatten(1, 2), b.flatten(1, 2)) for a, b in ends]
