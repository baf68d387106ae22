"""A Markov random field over the pixels of an image, as the last layer of a network."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor, nn

from lnz.checks import check_scores, check_tensor
from lnz.distributions.pixels import PixelMRF
from lnz.graphs import FactorGraph
from lnz.inference import BeliefPropagation
from lnz.inference.base import Method
from lnz.scores import Entry, Weighted

Edges = Literal["shared", "contrast", "full", "bilateral"]


class GridMRF(nn.Module):
    """Features of the pixels to the exponential softmax over the labellings of the pixel grid.

    Node scores are a linear map of each pixel's features, or are given (``in_channels=None``). Edges join the 4 or 8
    nearest neighbours; each direction has its own scores, by ``edges``:

    - ``"shared"``: one table ``[L, L]`` per direction;
    - ``"contrast"``: that table, times a positive weight per edge, computed from how much the features of its two
      pixels differ (memory O(E), a :class:`~lnz.Weighted`);
    - ``"full"``: that table, plus a table per edge that is a linear map of the features of its two pixels
      (memory O(E·L²));
    - ``"bilateral"``: one table per direction, times f + (1 − f) · exp(−g ‖a − b‖² / (2 σ²)) per edge (memory O(E)): a
      and b are ``edge_features`` of its two pixels, such as their colours, σ² the mean of ‖a − b‖² over the edges of
      the image, and f in (0, 1) and g > 0 are learned, a pair per direction.

    All tables start at zero, where the distribution is the independent softmax of the node scores.

    Args:
        in_channels: channels C of the features; ``None`` where node scores ``[B, L, H, W]`` are given instead, by any
            network; edges then are ``"shared"`` or ``"bilateral"``.
        num_labels: labels L of a pixel.
        edges: how edge scores come about.
        neighbours: 4 or 8.
        inference: a method of :mod:`lnz.inference`; ``None`` is belief propagation with its default settings.
    """

    def __init__(
        self,
        in_channels: int | None,
        num_labels: int,
        edges: Edges = "shared",
        neighbours: int = 4,
        inference: Method | None = None,
    ) -> None:
        super().__init__()
        if edges not in get_args(Edges):
            raise ValueError(f"edges: expected 'shared', 'contrast', 'full' or 'bilateral', got {edges!r}")
        if in_channels is None and edges in ("contrast", "full"):
            raise ValueError(f"in_channels: expected the channels of the features with edges={edges!r}, got None")
        if neighbours not in (4, 8):
            raise ValueError(f"neighbours: expected 4 or 8, got {neighbours}")
        self.num_labels = num_labels
        self.edges: Edges = edges
        self.neighbours = neighbours
        self.inference = inference or BeliefPropagation()
        self.nodes = None if in_channels is None else nn.Conv2d(in_channels, num_labels, 1)
        directions = neighbours // 2
        self.tables = nn.Parameter(torch.zeros(directions, num_labels, num_labels))
        self.heads = nn.ModuleList()
        if edges == "bilateral":
            self.floors = nn.Parameter(torch.zeros(directions))  # f is the sigmoid
            self.log_rates = nn.Parameter(torch.zeros(directions))  # g is the exponential
        elif edges == "contrast" and in_channels is not None:
            self.heads.extend(_Zero(in_channels, 1) for _ in range(directions))
        elif edges == "full" and in_channels is not None:
            self.heads.extend(_Zero(2 * in_channels, num_labels**2) for _ in range(directions))

    def reset_parameters(self) -> None:
        """Edge scores of 0. Those of the nodes and the heads reset themselves."""
        nn.init.zeros_(self.tables)
        if self.edges == "bilateral":
            nn.init.zeros_(self.floors)
            nn.init.zeros_(self.log_rates)

    def forward(self, features: Tensor, edge_features: Tensor | None = None) -> PixelMRF:
        """The distribution of the labels of N = H·W pixels, row-major, given features ``[B, C, H, W]``.

        Args:
            features: or, with ``in_channels=None``, node scores ``[B, L, H, W]``.
            edge_features: ``[B, D, H, W]``, of ``"bilateral"`` edges, such as the image; by default the features.

        Raises:
            TypeError, ValueError: tensors of another type or shape, or that are missing or not asked for.
        """
        channels = self.num_labels if self.nodes is None else self.nodes.in_channels
        if features.dim() != 4 or (self.nodes is None and features.shape[1] != channels):
            raise ValueError(f"features: expected shape [B, {channels}, H, W], got {list(features.shape)}")
        compared = self._compared(features, edge_features)
        graph = _grid(features.shape[-2], features.shape[-1], self.num_labels, self.neighbours)
        scores = features if self.nodes is None else self.nodes(features)
        pairs = _pairs(compared, self.neighbours)
        if self.edges == "bilateral":
            edges = self._bilateral(pairs)
        else:
            edges = [self._edge_scores(d, *pair) for d, pair in enumerate(pairs)]
        return PixelMRF(graph, (scores.flatten(2).transpose(1, 2), *edges), self.inference)

    if TYPE_CHECKING:
        __call__ = forward

    def _compared(self, features: Tensor, edge_features: Tensor | None) -> Tensor:
        """The features that edge scores are computed from."""
        if edge_features is None:
            if self.edges == "bilateral" and self.nodes is None:
                raise ValueError(
                    "edge_features: expected the image, or other features, with edges='bilateral', got None"
                )
            return features
        if self.edges != "bilateral":
            raise ValueError(f"edge_features: expected None with edges={self.edges!r}")
        check_tensor("edge_features", edge_features)
        edge_features = edge_features.to(self.tables.dtype)  # images of integers too
        check_scores("edge_features", edge_features)
        (B, _, H, W), got = features.shape, edge_features.shape
        if edge_features.dim() != 4 or (got[0], *got[2:]) != (B, H, W):
            raise ValueError(f"edge_features: expected shape [{B}, D, {H}, {W}], got {list(got)}")
        return edge_features

    def _bilateral(self, pairs: list[tuple[Tensor, Tensor]]) -> list[Entry]:
        squares = [(a - b).square().sum(-1) for a, b in pairs]
        mean = torch.cat(squares, 1).mean(1, keepdim=True)  # NaN where there are no edges, and then of no consequence
        entries: list[Entry] = []
        for d, square in enumerate(squares):
            floor, rate = self.floors[d].sigmoid(), self.log_rates[d].exp()
            relative = square / (2 * mean).clamp(min=torch.finfo(mean.dtype).tiny)  # 0 in images of one colour
            entries.append(Weighted(floor + (1 - floor) * (-rate * relative).exp(), self.tables[d]))
        return entries

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
