"""Best labellings by minimum cuts: exact for two labels that attract, expansion moves for more."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from lnz.checks import check_integer
from lnz.inference.base import Method
from lnz.inference.map.min_cut import Floats, Ints, min_cut
from lnz.inference.map.mode import ROUNDING, Found, ModeSolution
from lnz.ops.layout import Layout, Scores
from lnz.scores import Model


@dataclass(frozen=True)
class GraphCuts(Method):
    """A labelling by minimum cuts, for factors of at most two nodes (Boykov, Veksler and Zabih 2001).

    With two labels per node, one cut gives a best labelling, proved, wherever every factor has
    s(0,0) + s(1,1) ≥ s(0,1) + s(1,0). With more labels, α-expansion: for one label after the other, the best choice of
    nodes that change to it is a cut, until no label helps. That asks −s for a metric: s(l,l) + s(k,m) ≥ s(k,l) + s(l,m)
    for all labels; with Potts scores the result's energy above the nodes' best is within a factor of two.

    ``diagnostics`` tells ``score``, ``bound`` and ``optimal`` (a bound only with two labels), and the ``cuts`` made.
    Cuts are SciPy's maximum flows (Dinic), whose integers are refined until float64's precision is reached.

    Args:
        truncate: where a factor is not as said above, lower its score where one node changes and the other does not,
            as far as needed: moves never make the labelling worse, but may miss the best one (Rother et al. 2005).
        max_rounds: of expansions, each over all labels.

    Raises:
        ValueError: on ``solve``, a factor of more than two nodes; on ``argmax``, without ``truncate``, a factor for
            which a cut does not give the best move.
    """

    truncate: bool = False
    max_rounds: int = 100
    exact: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_integer("max_rounds", self.max_rounds, 1)

    def solve(self, model: Model) -> GraphCutsSolution:
        for group, labels in enumerate(model.graph.labels):
            if len(labels) > 2 and model.graph.num_factors[group]:
                raise ValueError(
                    f"GraphCuts: expected factors of at most two nodes, got {len(labels)} in group {group}; "
                    "TRWS() and IntegerProgram() take any"
                )
        return GraphCutsSolution(model, self)


class GraphCutsSolution(ModeSolution):
    """The labelling after the last cut."""

    method = "GraphCuts"

    def __init__(self, model: Model, settings: GraphCuts) -> None:
        super().__init__(model)
        self.settings = settings

    def _find(self) -> Found:
        model, batch = self.model, self.model.batch_shape
        layout = Layout(model)
        found = [
            _Moves(layout, layout.scores(index), self.settings).run() for index in itertools.product(*map(range, batch))
        ]
        nodes = model.graph.num_nodes
        labels = np.array([labels for labels, _, _ in found], dtype=np.int64).reshape(*batch, nodes)
        bound = torch.tensor([bound for _, bound, _ in found], dtype=torch.float64).reshape(batch)
        remarks: dict[str, Any] = {"cuts": torch.tensor([cuts for *_, cuts in found]).reshape(batch)}
        return Found(torch.from_numpy(labels).to(model.device), bound.to(model.device), remarks)


class _Moves:
    """Cuts on one batch entry. Impossible scores stand as finite ones too low for any possible labelling."""

    def __init__(self, layout: Layout, scores: Scores, settings: GraphCuts) -> None:
        wiring = layout.wiring
        self.settings, self.graph = settings, layout.model.graph
        self.label_at = wiring.label_at[:-1]
        self.cards = np.diff(wiring.label_at)
        self.first, self.second = wiring.slot_node[::2], wiring.slot_node[1::2]
        self.table = wiring.slot_table[::2]
        self.weight = scores.weights[wiring.factor_weight]
        self.constant = scores.constant
        low = self._lowest(scores)
        self.nodes = np.where(np.isneginf(scores.nodes), low, scores.nodes)
        self.tables = np.where(np.isneginf(scores.tables), low, scores.tables)
        self.penalised = np.isneginf(scores.tables)
        self.low = low

    def _lowest(self, scores: Scores) -> float:
        """Less than any possible labelling scores, by the whole range of scores."""
        nodes = np.abs(scores.nodes[np.isfinite(scores.nodes)]).sum()
        tables = np.abs(scores.tables[np.isfinite(scores.tables)])
        largest = np.abs(self.weight).sum() * float(tables.max(initial=0.0))
        return -2.0 * float(nodes + largest + 1)

    def pairs(self, at_first: Ints, at_second: Ints) -> Floats:
        """The score of every factor of two nodes."""
        where = self.table + at_second * self.cards[self.first] + at_first
        value = self.weight * self.tables[where]
        return np.where(self.penalised[where], self.low, value)

    def score(self, labels: Ints) -> float:
        pairs = self.pairs(labels[self.first], labels[self.second]).sum()
        return float(self.nodes[self.label_at + labels].sum() + pairs)

    def run(self) -> tuple[Ints, float, int]:
        """The labelling, a bound on all scores (or +inf), and the number of cuts."""
        labels = np.zeros(len(self.cards), dtype=np.int64)
        largest = int(self.cards.max(initial=1))
        if largest <= 2 and not self.settings.truncate:
            moved, gap = self.cut(labels, 1)
            score = self.score(moved)
            bound = score + gap + ROUNDING * (1 + abs(score))
            return moved, bound + self.constant if score > self.low / 2 else -np.inf, 1
        for node, start in enumerate(self.label_at):  # the best of each node alone
            labels[node] = self.nodes[start : start + self.cards[node]].argmax()
        best, cuts, idle = self.score(labels), 0, 0
        for label in itertools.islice(itertools.cycle(range(largest)), largest * self.settings.max_rounds):
            moved, _ = self.cut(labels, label)
            now, cuts = self.score(moved), cuts + 1
            better = now > best + 1e-12 * abs(best)
            labels, best, idle = (moved, now, 0) if better else (labels, best, idle + 1)
            if idle == largest:
                break
        return labels, np.inf, cuts

    def cut(self, labels: Ints, label: int) -> tuple[Ints, float]:
        """The best labelling in which some nodes change to ``label``, and how much better one might still be."""
        changed = np.where(label < self.cards, label, labels)
        a, b = self.first, self.second
        stay = self.pairs(labels[a], labels[b])
        one = self.pairs(changed[a], labels[b])
        other = self.pairs(labels[a], changed[b])
        both = self.pairs(changed[a], changed[b])
        # impossible scores may be lower still, at no loss
        one = np.where(one == self.low, one + np.minimum(stay + both - one - other, 0.0), one)
        excess = stay + both - one - other
        size = np.where(other == self.low, np.inf, np.abs(stay) + np.abs(both) + np.abs(one) + np.abs(other))
        self._check(excess, size, label)
        price = self.nodes[self.label_at + labels] - self.nodes[self.label_at + changed]  # of changing
        np.add.at(price, a, stay - one)
        np.add.at(price, b, one - both)
        on_sink_side, _, gap = min_cut(a, b, np.maximum(excess, 0.0), -price)
        return np.where(on_sink_side, changed, labels), gap

    def _check(self, excess: Floats, size: Floats, label: int) -> None:
        bad = np.flatnonzero(excess < -1e-12 * size)
        if len(bad) and not self.settings.truncate:
            nodes = [int(self.first[bad[0]]), int(self.second[bad[0]])]
            raise ValueError(
                f"GraphCuts: a cut does not give the best change to label {label}, as the factor of nodes {nodes} "
                "has s(0,0) + s(1,1) < s(0,1) + s(1,0) (0: as it is, 1: changed); pass truncate=True for moves that "
                "are good but not best, or another method, such as TRWS()"
            )
