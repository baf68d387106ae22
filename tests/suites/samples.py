"""Samples against the probabilities of enumeration."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from tests.suites.family import Family, seeds


class Samples(Family):
    """By a chi-square test over all labellings, and their seeds."""

    @given(st.data())
    def test_samples_follow_the_distribution(self, data: st.DataObject) -> None:
        self.skip_or_refuse("sample")
        instance = self.feasible(data)
        n = 1000
        p, oracle = instance.p, instance.oracle
        drawn = p.sample((n,), generator=torch.Generator().manual_seed(data.draw(seeds)))
        assert drawn.shape == (n, *p.batch_shape, *p.event_shape)
        rows = drawn.reshape(n, len(oracle.entries), p.event_shape.numel())
        for b, entry in enumerate(oracle.entries):
            counts = dict.fromkeys((y.y for y in entry), 0)
            for row in rows[:, b].tolist():
                counts[tuple(row)] += 1
            expected = {y.y: n * q for y, q in zip(entry, oracle.probabilities(b), strict=True)}
            assert all(counts[y] == 0 for y, e in expected.items() if e == 0)
            likely = [y for y, e in expected.items() if e >= 5]
            rest = [y for y, e in expected.items() if e < 5]
            bins = [(counts[y], expected[y]) for y in likely]
            bins += [(sum(counts[y] for y in rest), sum(expected[y] for y in rest))]
            statistic = sum((c - e) ** 2 / e for c, e in bins if e > 1e-9)
            assert chi2.sf(statistic, max(1, len(bins) - 1)) > 1e-6

    @given(st.data())
    def test_the_support_holds_labellings_and_nothing_else(self, data: st.DataObject) -> None:
        """``torch.distributions`` asks it; whether scores allow a labelling is not its question."""
        instance = self.feasible(data)
        p = instance.p
        y = p.argmax()
        assert p.support.event_dim == len(p.event_shape)
        assert p.support.check(y).shape == p.batch_shape
        assert p.support.check(y).all()
        if y.numel():
            at = data.draw(st.integers(0, y.numel() - 1))
            for wrong in (-7, 10**6):
                z = y.clone()
                z.view(-1)[at] = wrong
                assert p.support.check(z).sum() == p.batch_shape.numel() - 1

    def test_samples_are_reproducible_and_leave_the_global_generator_alone(self) -> None:
        self.skip_or_refuse("sample")
        p = self.example().p
        before = torch.get_rng_state()
        one = p.sample((2, 5), generator=torch.Generator().manual_seed(1))
        two = p.sample((2, 5), generator=torch.Generator().manual_seed(1))
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.equal(one, two)
        assert one.shape == (2, 5, *p.batch_shape, *p.event_shape)
        assert p.sample().shape == p.batch_shape + p.event_shape
        assert not one.is_floating_point()
