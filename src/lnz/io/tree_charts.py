"""Trees of any arity as labellings of :class:`lnz.ConstituencyTree`, and back, nothing lost.

A chart has one label for each constituent of a binary tree. A unary chain is one joint label, the tuple of its labels
from the top down; constituents that only binarisation puts in, and words without a tag, have the label ``()``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from lnz.checks import as_labels, check_labels, check_tensor
from lnz.io.limits import limits
from lnz.io.trees import Constituent, Tree
from lnz.ops.charts import ABSENT

Chain = tuple[str, ...]
Branching = Literal["left", "right"]


@dataclass(frozen=True)
class ChartLabels:
    """The labels of charts: the unary chains that trees have.

    Attributes:
        chains: from 0 on; the first one is ``()``, of constituents that are not in the tree.

    Raises:
        ValueError: chains that are not different, or do not start with ``()``.
    """

    chains: tuple[Chain, ...]
    _index: dict[Chain, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        chains = tuple(map(tuple, self.chains))
        object.__setattr__(self, "chains", chains)
        object.__setattr__(self, "_index", {chain: at for at, chain in enumerate(chains)})
        if chains[:1] != ((),) or len(self._index) < len(chains):
            raise ValueError(f"chains: expected different ones, () first, got {chains[:3]} …")

    def __len__(self) -> int:
        return len(self.chains)

    @classmethod
    def of(cls, trees: Iterable[Tree]) -> ChartLabels:
        """Those of ``trees``, in the order in which they come."""
        return cls(tuple(dict.fromkeys(((), *(chain for tree in trees for chain in _chains(tree).values())))))

    def encode(self, tree: Tree, branching: Branching = "right", unknown: int | None = None) -> Tensor:
        """A tree as a labelling ``int64 [N, N]``: the label of each constituent, −1 where there is none.

        Constituents of more than two parts are made binary by others of label ``()``.

        Args:
            tree: of N words.
            branching: whether those hold all parts but the first, and so on, or all but the last.
            unknown: the label of chains that these labels lack; ``None`` raises.

        Raises:
            ValueError: a chain that these labels lack.
            FormatError: a sentence whose chart is larger than :class:`~lnz.io.Limits` allow.
        """
        if branching not in ("left", "right"):
            raise ValueError(f"branching: expected 'left' or 'right', got {branching!r}")
        N = len(tree.words)
        limits().check("tree", "numbers", N * N)
        chart = torch.full((N, N), ABSENT)
        chart.fill_diagonal_(0)  # words without a tag
        for start, stop in _added(tree, branching):
            chart[start, stop - 1] = 0
        for (start, stop), chain in _chains(tree).items():
            label = self._index.get(chain, unknown)
            if label is None:
                raise ValueError(f"tree: expected unary chains among the labels, got {chain} of words {start} … {stop}")
            chart[start, stop - 1] = label
        return chart

    def decode(self, y: Tensor, words: Sequence[str], root: str = "TOP") -> Tree:
        """The tree of a labelling ``[≥ N, ≥ N]``, such as an ``argmax``: the inverse of :meth:`encode`.

        Args:
            y: where a tree is, of words or padding beyond.
            words: N of them.
            root: the label of a whole sentence whose label is ``()``, which a tree must have and a best one may lack.

        Raises:
            TypeError, ValueError: labels out of range, unknown entries, or constituents that cross.
        """
        check_tensor("y", y)
        N = len(words)
        y = as_labels("y", y)
        if y.dim() != 2 or min(y.shape) < N or not N:
            raise ValueError(f"y: expected shape [N, N] of {N} words or more, got {list(y.shape)}")
        y = y[:N, :N].cpu()
        upper = torch.ones(N, N, dtype=torch.bool).triu()
        check_labels("y", torch.where(upper & (y != ABSENT), y, 0), len(self), unobserved=False)
        found: list[Constituent] = []
        open_: list[int] = []
        for start, last in sorted(((upper & (y >= 0)).nonzero()).tolist(), key=lambda span: (span[0], -span[1])):
            while open_ and open_[-1] < start:
                open_.pop()
            if open_ and open_[-1] < last:
                raise ValueError(f"y: expected spans that do not cross, got words {start} … {last} across another")
            open_.append(last)
            found += [Constituent(label, start, last + 1) for label in self.chains[int(y[start, last])]]
        if not found or found[0][1:] != (0, N):
            found.insert(0, Constituent(root, 0, N))
        return Tree(tuple(words), tuple(found))


def _chains(tree: Tree) -> dict[tuple[int, int], Chain]:
    """The unary chain of each span of a tree."""
    chains: dict[tuple[int, int], list[str]] = {}
    for label, start, stop in tree.constituents:
        chains.setdefault((start, stop), []).append(label)
    return {span: tuple(labels) for span, labels in chains.items()}


def _added(tree: Tree, branching: Branching) -> list[tuple[int, int]]:
    """The spans that make a tree binary."""
    parts: dict[tuple[int, int], list[tuple[int, int]]] = {}
    open_: list[tuple[int, int]] = []
    for span in _chains(tree):
        while open_ and open_[-1][1] <= span[0]:
            open_.pop()
        if open_:
            parts[open_[-1]].append(span)
        parts[span] = []
        open_.append(span)
    found = []
    for (start, stop), inner in parts.items():
        bounds, at = [], start  # of its parts; words without a constituent are parts of their own
        for first, end in [*inner, (stop, stop)]:
            bounds += [*range(at, first), first]
            at = end
        bounds = sorted({*bounds, stop})
        middle = bounds[1:-2] if branching == "right" else bounds[2:-1]
        found += [(cut, stop) if branching == "right" else (start, cut) for cut in middle]
    return found
