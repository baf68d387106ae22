"""What every method that looks for a best labelling must keep to, against enumeration on random small models."""

from __future__ import annotations

import random

import torch

import lnz
from lnz.inference import Enumeration, Method


def random_model(seed: int, *, batch: tuple[int, ...] = (), arity: int = 3, impossible: float = 0.0) -> lnz.MRF:
    """Up to six nodes of up to four labels; factors of up to ``arity`` nodes, shared tables and weights among them."""
    drawn, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    cards = [drawn.randint(1, 4) for _ in range(drawn.randint(1, 6))]
    scopes = [drawn.sample(range(len(cards)), drawn.randint(0, min(arity, len(cards)))) for _ in range(9)]
    graph, _ = lnz.FactorGraph.grouped(cards, scopes)
    entries: list[torch.Tensor | lnz.Weighted] = []
    for factors, labels in zip(graph.num_factors, graph.labels, strict=True):
        form = drawn.randrange(3)
        shape = labels if form else (*batch, factors, *labels)
        table = 2 * torch.randn(shape, generator=generator, dtype=torch.float64)
        table = table.masked_fill(torch.rand(table.shape, generator=generator) < impossible, -torch.inf)
        weight = torch.rand(*batch, factors, generator=generator, dtype=torch.float64) + 0.1
        entries.append(lnz.Weighted(weight, table) if form == 2 else table)
    return lnz.MRF(graph, entries)


def solved(p: lnz.MRF, method: Method):
    """Score, bound and proof of the answer of ``method``, and the best score by enumeration."""
    q = lnz.MRF(p.graph, p.scores, method, validate_args=False)
    best = lnz.MRF(p.graph, p.scores, Enumeration(), validate_args=False)
    if p.model.observed is not None:
        q, best = q.condition(p.model.observed), best.condition(p.model.observed)
    y = q.argmax()
    said = q.diagnostics
    assert y.shape == q.batch_shape + q.event_shape
    torch.testing.assert_close(said["score"], p.model.score(y).double().expand(q.batch_shape))
    if p.model.observed is not None:
        seen = p.model.observed.expand_as(y)
        assert torch.equal(y[seen != -100], seen[seen != -100])
    highest = best.score(best.argmax())
    return said["score"], said["bound"], said["optimal"], highest


def check(p: lnz.MRF, method: Method, *, exact: bool = False) -> torch.Tensor:
    """score ≤ best ≤ bound, and proved ones are best; with ``exact``, all are. Returns what was proved."""
    score, bound, optimal, best = solved(p, method)
    slack = 1e-6 * (1 + best.abs().nan_to_num(posinf=0.0))
    assert (score <= best + slack).all()
    assert (bound >= best - slack).all()
    assert (score[optimal] >= best[optimal] - slack[optimal]).all()
    if exact:
        assert torch.equal(optimal, best.isfinite())
    return optimal
