"""The network that ``lnz fit bayesnet`` learns: what is made of another one keeps what belongs to it."""

from __future__ import annotations

import torch

import lnz
from lnz.inference import Enumeration
from lnz.tasks.bayesnet.network import start_of, with_latent
from tests.suite import equal


def tied() -> lnz.BayesNet:
    """A hidden Markov model of three steps, whose later slices share their tables; exact by enumeration."""
    net = lnz.unrolled(3, [2, 3], [[], [0]], [[0], []], names=["state", "symbol"]).with_inference(Enumeration())
    return net.drawn(torch.empty(0), torch.Generator().manual_seed(0))


def test_starts_keep_shared_tables() -> None:
    """A hidden variable whose states are alike is drawn anew, with whatever shares its tables."""
    net = tied()
    alike = [torch.zeros_like(table).log_softmax(-1) if v % 2 else table for v, table in enumerate(net.log_cpts)]
    for number in (0, 1):
        start = start_of(net.with_tables(alike), [0, 2, 4], number, 3, from_tables=True)
        assert start.ties == net.ties
        assert start.inference == net.inference
        assert start.names == net.names
        for first, *others in net.ties:
            for other in others:
                equal(start.log_cpts[first], start.log_cpts[other])
        assert not torch.equal(start.log_cpts[1], alike[1])


def test_a_hidden_variable_above_all_others_keeps_shared_tables() -> None:
    net = tied()
    made = with_latent(net, {"regime": ["calm", "wild"]})
    assert made.ties == net.ties
    assert made.inference == net.inference
    assert made.names == (*net.names, "regime")
    equal(
        made.log_prob(torch.tensor([0, 1, 0, 2, 1, 1, 0])).exp() * 2,
        net.log_prob(torch.tensor([0, 1, 0, 2, 1, 1])).exp(),
    )
