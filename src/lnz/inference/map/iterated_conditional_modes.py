"""Iterated conditional modes: local search, by single nodes or by blocks that are solved exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from lnz.checks import check_integer, check_number
from lnz.inference.base import Method
from lnz.inference.map.blocks import improved
from lnz.inference.map.cluster_tempering import possible
from lnz.inference.map.labellings import best_of, random_labellings
from lnz.inference.map.mode import Found, ModeSolution
from lnz.ops.icm.op import icm
from lnz.scores import Model


@dataclass(frozen=True)
class IteratedConditionalModes(Method):
    """A labelling that no change of a single node makes better (Besag 1986); O(Σ_f k_f L) time per sweep.

    With ``block_table``, random blocks of nodes then take their jointly best labels given all others, by variable
    elimination within tables of that many entries: a large-neighbourhood search, at its best after a good ``start``
    such as :class:`~lnz.inference.TRWS`, whose bound it keeps.

    Args:
        restarts: how many random labellings to start from, besides that of ``start``; the best result counts.
        start: a method whose ``argmax()`` to start from.
        block_table: the largest table of a block; ``None`` moves single nodes only. Blocks need the memory of the
            expanded scores.
        patience: stop after so many blocks in a row that made no batch entry better.
        seed: of the random labellings and blocks.
    """

    restarts: int = 1
    start: Method | None = None
    block_table: int | None = None
    patience: int = 20
    seed: int = 0
    exact: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.start is not None and not isinstance(self.start, Method):
            raise TypeError(f"start: expected a method of lnz.inference or None, got {self.start!r}")
        check_integer("restarts", self.restarts, 0)
        if self.restarts == 0 and self.start is None:
            raise ValueError("restarts: expected a positive integer, or 0 with a start, got 0")
        if self.block_table is not None:
            kind = "None or a positive integer"
            check_number("block_table", self.block_table, kind, lambda n: n >= 1 and n.is_integer())
        check_integer("patience", self.patience, 1)
        check_integer("seed", self.seed, None)

    def solve(self, model: Model) -> LocalSearchSolution:
        return LocalSearchSolution(model, self)


class LocalSearchSolution(ModeSolution):
    """The best local optimum found, with the bound of the method that it started from if that has one."""

    method = "IteratedConditionalModes"

    def __init__(self, model: Model, settings: IteratedConditionalModes) -> None:
        super().__init__(model)
        self.settings = settings

    def _find(self) -> Found:
        settings, model = self.settings, self.model
        generator = torch.Generator().manual_seed(settings.seed)
        starts = random_labellings(model, settings.restarts, generator)
        bound, remarks = None, dict[str, Any]()
        if settings.start is not None:
            solution = settings.start.solve(model)
            starts = torch.cat((solution.argmax()[None], starts))
            bound = solution.diagnostics.get("bound")
        labels = possible(model, best_of(model, icm(model, starts)))
        if settings.block_table is not None:
            labels, remarks["blocks"] = improved(model, labels, settings.block_table, settings.patience, settings.seed)
        return Found(labels, bound, remarks)
