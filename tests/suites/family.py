"""What the parts of the shared suite stand on: instances, their enumeration, and comparisons."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from hypothesis import assume
from hypothesis import strategies as st
from torch import Tensor

import lnz
from lnz.distributions import StructuredDistribution
from tests.oracles import Oracle

IGNORE = -100
TOLERANCE = {"rtol": 1e-9, "atol": 1e-9}


@dataclass(frozen=True)
class Instance:
    """Leaf tensors, how they make a distribution, and how they make its enumeration."""

    leaves: tuple[Tensor, ...]
    build: Callable[..., StructuredDistribution]
    enumerate: Callable[..., Oracle]
    units: tuple[Tensor | float | None, ...] = ()
    """What an offset of 1 adds to each leaf, so that every labelling's score moves alike; ``None`` at a leaf that
    holds no scores (the weights of :class:`lnz.Weighted`). Where it is left out, 1: each labelling uses equally many
    parts of each leaf. Segments, of which there are more or fewer, move by their width."""

    @property
    def p(self) -> StructuredDistribution:
        return self.build(*self.leaves)

    @property
    def oracle(self) -> Oracle:
        return self.enumerate(*self.leaves)

    def with_gradient(self) -> tuple[tuple[Tensor, ...], StructuredDistribution]:
        leaves = tuple(leaf.clone().requires_grad_() for leaf in self.leaves)
        return leaves, self.build(*leaves)

    def map(self, function: Callable[[Tensor], Tensor]) -> Instance:
        return replace(self, leaves=tuple(map(function, self.leaves)))

    def _map_scores(self, function: Callable[[Tensor, Tensor | float], Tensor]) -> Instance:
        pairs = zip(self.leaves, self.units or (1.0,) * len(self.leaves), strict=True)
        return replace(self, leaves=tuple(leaf if unit is None else function(leaf, unit) for leaf, unit in pairs))

    def shifted(self, offset: float) -> Instance:
        """With ``offset`` on all scores, so that nothing but ln Z changes, by a constant."""
        return self._map_scores(lambda leaf, unit: leaf + offset * unit)

    def scaled(self, largest: float) -> Instance:
        """With scores whose largest finite magnitude is ``largest``."""
        found = [leaf[torch.isfinite(leaf)].abs().amax().item() for leaf in self.leaves if torch.isfinite(leaf).any()]
        return self._map_scores(lambda leaf, _: leaf / max(found, default=1.0) * largest)


def random_scores(shape: tuple[int, ...], seed: int, impossible: float = 0.0) -> Tensor:
    """Float64 scores, each −inf with probability ``impossible``."""
    generator = torch.Generator().manual_seed(seed)
    scores = 2 * torch.randn(shape, generator=generator, dtype=torch.float64)
    drawn = torch.rand(shape, generator=generator, dtype=torch.float64)
    return scores.masked_fill(drawn < impossible, -torch.inf)


seeds = st.integers(0, 2**20)
batch_shapes = st.sampled_from([(), (1,), (2,), (3,), (2, 2), (0,)])
impossibilities = st.sampled_from([0.0, 0.0, 0.15, 0.3])


def equal(actual: Tensor, expected: Tensor, **tolerance: float) -> None:
    torch.testing.assert_close(actual.detach(), expected.detach(), **(TOLERANCE | tolerance))


def tensors(nested: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (nested,) if isinstance(nested, Tensor) else tuple(nested)


def written_out(entry: Tensor | lnz.Weighted) -> Tensor:
    if isinstance(entry, lnz.Weighted):
        finite = entry.table.masked_fill(torch.isneginf(entry.table), 0.0)
        product = entry.weight.reshape(*entry.weight.shape, *[1] * entry.table.dim()) * finite
        return torch.where(torch.isneginf(entry.table), -torch.inf, product)
    return entry


class Family(ABC):
    """What a subclass supplies, and what all parts of the suite use."""

    lacks: ClassVar[frozenset[str]] = frozenset()
    """What this kind does not have by design, of ``topk``, ``sample``, ``forward mode``: it raises, naming others."""

    @staticmethod
    @abstractmethod
    def instances() -> st.SearchStrategy[Instance]: ...

    @staticmethod
    @abstractmethod
    def example() -> Instance: ...

    @staticmethod
    @abstractmethod
    def empties() -> dict[str, Instance]:
        """By the name of the axis, an instance with a size of 0 there, for every axis that may have it."""

    @staticmethod
    def padding() -> tuple[Tensor, ...]:
        """Per leaf of :meth:`example`, which of its entries are padding; nothing, where a kind has none."""
        return ()

    def feasible(self, data: st.DataObject) -> Instance:
        instance = data.draw(self.instances())
        assume(instance.oracle.feasible)
        return instance

    def skip_or_refuse(self, what: str) -> None:
        """Where ``what`` is lacking by design, assert that it says so, and end the test."""
        if what in self.lacks:
            p = self.example().p
            with pytest.raises(TypeError, match=r"Exact\(\)") as error:
                p.topk(1) if what == "topk" else p.sample((1,))
            assert what in str(error.value)
            pytest.skip(f"has no {what} by design, and says so")

    @staticmethod
    def scores_of(oracle: Oracle, y: Tensor) -> Tensor:
        rows = y.reshape(len(oracle.entries), math.prod(oracle.event_shape)).tolist()
        values = [oracle.score_of(b, row) for b, row in enumerate(rows)]
        return torch.tensor(values, dtype=torch.float64).reshape(oracle.batch_shape)

    @staticmethod
    def partial(oracle: Oracle, seed: int) -> Tensor:
        """One labelling per batch entry, about half of its labels hidden."""
        generator = torch.Generator().manual_seed(seed)
        rows = [entry[int(torch.randint(len(entry), (), generator=generator))].y for entry in oracle.entries]
        y = torch.tensor(rows, dtype=torch.int64).reshape((*oracle.batch_shape, *oracle.event_shape))
        return y.masked_fill(torch.rand(y.shape, generator=generator) < 0.5, IGNORE)
