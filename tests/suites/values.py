"""Every answer of a distribution against enumeration, to 1e-9."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.distributions import kl_divergence

import lnz
from tests.suites.family import IGNORE, Family, equal, random_scores, seeds, tensors, written_out


class Values(Family):
    """ln Z, marginals, argmax, top-k, entropy, KL, counts, scores, conditioning."""

    @given(st.data())
    def test_log_partition(self, data: st.DataObject) -> None:
        instance = data.draw(self.instances())
        p, oracle = instance.p, instance.oracle
        assert p.batch_shape == torch.Size(oracle.batch_shape)
        assert p.event_shape == torch.Size(oracle.event_shape)
        equal(p.log_partition, oracle.log_partition)

    @given(st.data())
    def test_marginals_are_those_of_enumeration_and_the_gradient_of_log_partition(self, data: st.DataObject) -> None:
        instance = self.feasible(data)
        expected = instance.oracle.marginals
        leaves, p = instance.with_gradient()
        marginals = tensors(p.marginals)
        assert len(marginals) == len(expected) == len(tensors(p.scores))
        for actual, wanted in zip(marginals, expected, strict=True):
            equal(actual, wanted)
        # ∂ ln Z / ∂ s is the marginals, summed over the axes along which s was broadcast
        linear = sum((m * written_out(s)).sum() for m, s in zip(expected, tensors(p.scores), strict=True))
        wanted = torch.autograd.grad(linear, leaves, allow_unused=True, retain_graph=True)
        actual = torch.autograd.grad(p.log_partition.sum(), leaves, allow_unused=True)
        for a, w in zip(actual, wanted, strict=True):
            if w is not None or a is not None:
                equal(torch.zeros(()) if a is None else a, torch.zeros_like(a) if w is None else w)

    @given(st.data())
    def test_argmax(self, data: st.DataObject) -> None:
        instance = self.feasible(data)
        p, oracle = instance.p, instance.oracle
        best = p.argmax()
        assert best.dtype == torch.int64
        assert best.shape == p.batch_shape + p.event_shape
        assert torch.equal(p.mode, best)
        equal(self.scores_of(oracle, best), oracle.topk(1)[0])
        equal(p.score(best), oracle.topk(1)[0])

    @given(st.data())
    def test_topk(self, data: st.DataObject) -> None:
        self.skip_or_refuse("topk")
        instance = data.draw(self.instances())
        k = data.draw(st.sampled_from([1, 2, 3, 7, 20]))
        p, oracle = instance.p, instance.oracle
        labellings, scores = p.topk(k)
        assert labellings.shape == (k, *p.batch_shape, *p.event_shape)
        equal(scores, oracle.topk(k))
        flat_scores = scores.reshape(k, p.batch_shape.numel())
        flat = labellings.reshape(k, flat_scores.shape[1], p.event_shape.numel())
        for b in range(flat_scores.shape[1]):
            possible = flat_scores[:, b] > -torch.inf
            rows = [tuple(row) for row in flat[possible, b].tolist()]
            assert len(set(rows)) == len(rows)
            for row, score in zip(rows, flat_scores[possible, b].tolist(), strict=True):
                assert oracle.score_of(b, row) == pytest.approx(score, abs=1e-9)
            assert (flat[~possible, b] == IGNORE).all()

    @given(st.data())
    def test_entropy(self, data: st.DataObject) -> None:
        instance = self.feasible(data)
        equal(instance.p.entropy(), instance.oracle.entropy)

    @given(st.data())
    def test_kl_divergence(self, data: st.DataObject) -> None:
        one = self.feasible(data)
        seed = data.draw(seeds)
        other = one.map(lambda leaf: leaf + (0.1 * random_scores(tuple(leaf.shape), seed)).abs())
        if one.oracle.entries:
            equal(kl_divergence(one.p, other.p), one.oracle.kl(other.oracle))
            equal(kl_divergence(one.p, one.p), torch.zeros(one.p.batch_shape, dtype=torch.float64))

    @given(st.data())
    def test_kl_divergence_of_what_was_observed(self, data: st.DataObject) -> None:
        """KL(P(y | seen) ‖ P) = −ln P(seen); the other way it is infinite, unless the rest was impossible."""
        instance = self.feasible(data)
        y = self.partial(instance.oracle, data.draw(seeds))
        p, seen = instance.p, instance.oracle.condition(y).log_partition - instance.oracle.log_partition
        assume(torch.isfinite(seen).all())
        q = p.condition(y)
        equal(kl_divergence(q, p), -seen)
        equal(kl_divergence(p, q), torch.where(seen < -1e-9, torch.inf, 0.0).double())

    @given(st.data())
    def test_log_count(self, data: st.DataObject) -> None:
        instance = data.draw(self.instances())
        equal(instance.p.log_count, instance.oracle.log_count)

    @given(st.data())
    def test_tempered(self, data: st.DataObject) -> None:
        instance = data.draw(self.instances())
        temperature = data.draw(st.floats(0.3, 3.0))
        equal(instance.p.tempered(temperature).log_partition, instance.oracle.tempered(temperature).log_partition)
        with pytest.raises(ValueError, match="temperature: expected a positive number, got 0"):
            instance.p.tempered(0)

    @given(st.data())
    def test_tempered_by_a_temperature_per_batch_entry(self, data: st.DataObject) -> None:
        instance = data.draw(self.instances())
        p, shape = instance.p, instance.p.batch_shape
        temperature = 0.3 + 2 * torch.rand(shape, generator=torch.Generator().manual_seed(data.draw(seeds)))
        wanted = [
            instance.oracle.tempered(t).log_partition.flatten()[b] for b, t in enumerate(temperature.flatten().tolist())
        ]
        if wanted:
            equal(p.tempered(temperature).log_partition, torch.stack(wanted).reshape(shape))
            two = torch.stack((temperature, torch.ones_like(temperature)))
            equal(p.tempered(two).log_partition, torch.stack((p.tempered(temperature).log_partition, p.log_partition)))
        leaf = temperature.requires_grad_()
        z = p.tempered(leaf).log_partition
        if z.requires_grad:
            gradient = torch.autograd.grad(z.masked_fill(torch.isneginf(z), 0.0).sum(), leaf)[0]
            assert gradient.isfinite().all()

    @given(st.data())
    def test_tempered_by_a_temperature_per_part(self, data: st.DataObject) -> None:
        instance = data.draw(self.instances())
        p = instance.p
        parts = len(p.scores) if isinstance(p.scores, tuple) else 1
        temperatures = tuple(0.4 + 0.3 * part for part in range(parts))
        scores, wanted = p.tempered(temperatures)._expanded_scores(), p._expanded_scores()
        for actual, score, temperature in zip(scores, wanted, temperatures, strict=True):
            equal(actual, score / temperature)
        equal(p.tempered((0.7,) * parts).log_partition, instance.oracle.tempered(0.7).log_partition)
        with pytest.raises(ValueError, match=f"temperature: expected one for each of {parts} parts of the scores, got"):
            p.tempered((1.0,) * (parts + 1))

    def test_temperatures_that_make_no_sense(self) -> None:
        p = self.example().p
        for value in (0.0, -1.0, torch.nan):
            bad = torch.ones(p.batch_shape)
            bad[..., -1] = value
            with pytest.raises(ValueError, match=r"temperature: expected positive numbers, got (0.0|-1.0|nan) at \["):
                p.tempered(bad)
            with pytest.raises(ValueError, match="temperature: expected positive numbers, got .* at"):
                p.tempered(torch.tensor(value))
            with pytest.raises(ValueError, match="temperature: expected a positive number, got"):
                p.tempered(value)
        with pytest.raises(ValueError, match=r"temperature: expected a batch shape that broadcasts with"):
            p.tempered(torch.ones(p.batch_shape[-1] + 1))
        with pytest.raises(TypeError, match="temperature: expected a positive number, got"):
            p.tempered("1")

    @given(st.data())
    def test_score_and_log_prob_of_every_labelling(self, data: st.DataObject) -> None:
        instance = self.feasible(data)
        p, oracle = instance.p, instance.oracle
        y, scores = oracle.labellings()
        given = scores > -torch.inf
        actual = p.score(y)
        equal(actual[given], scores[given])
        log_probs = p.log_prob(y).masked_fill(~given, -torch.inf)  # short lists of labellings repeat their last one
        equal(log_probs, scores - oracle.log_partition)
        equal(log_probs.exp().sum(0), torch.ones(p.batch_shape, dtype=torch.float64))

    @given(st.data())
    def test_partial_labels(self, data: st.DataObject) -> None:
        instance = self.feasible(data)
        p, oracle = instance.p, instance.oracle
        y = self.partial(oracle, data.draw(seeds))
        restricted = oracle.condition(y)
        equal(p.log_prob(y), restricted.log_partition - oracle.log_partition)
        equal(p.condition(y).log_partition, restricted.log_partition)
        nothing = torch.full_like(y, IGNORE)
        equal(p.log_prob(nothing), torch.zeros(p.batch_shape, dtype=torch.float64))

    @given(st.data())
    def test_condition(self, data: st.DataObject) -> None:
        instance = self.feasible(data)
        y = self.partial(instance.oracle, data.draw(seeds))
        p, restricted = instance.p.condition(y), instance.oracle.condition(y)
        assume(restricted.feasible)
        for actual, wanted in zip(tensors(p.marginals), restricted.marginals, strict=True):
            equal(actual, wanted)
        best = p.argmax()
        equal(self.scores_of(instance.oracle, best), restricted.topk(1)[0])
        equal(p.entropy(), restricted.entropy)
        if "topk" not in self.lacks:
            equal(p.topk(2)[1], restricted.topk(2))
        if "sample" not in self.lacks:
            drawn = p.sample((5,), generator=torch.Generator().manual_seed(0))
            for sample in drawn:
                assert (self.scores_of(restricted, sample) > -torch.inf).all()

    def test_what_contradicts_an_earlier_observation_is_impossible(self) -> None:
        instance = self.example()
        p, oracle = instance.p, instance.oracle
        y, _ = oracle.labellings()
        every_other = torch.arange(y[1].numel()).reshape(y[1].shape) % 2 == 0
        q, before = p.condition(y[0]), oracle.condition(y[0])
        for probe in (torch.where(every_other, y[1], IGNORE), y[-1]):
            wanted = before.condition(probe)
            equal(q.condition(probe).log_partition, wanted.log_partition)
            equal(q.log_prob(probe), wanted.log_partition - before.log_partition)
        assert torch.isneginf(wanted.log_partition).any()
        with pytest.raises(lnz.InfeasibleError, match="no labelling has a finite score in batch entries"):
            q.condition(probe).argmax()

    def test_batch_broadcasts_with_labellings_and_expands(self) -> None:
        instance = self.example()
        p, oracle = instance.p, instance.oracle
        y, _ = oracle.labellings()
        stacked = torch.stack((y, y.flip(0)))  # [2, K, *batch, *event]
        equal(p.log_prob(stacked)[1], p.log_prob(y).flip(0))
        wider = p.expand((3, *p.batch_shape))
        assert wider.batch_shape == (3, *p.batch_shape)
        equal(wider.log_partition, p.log_partition.expand(3, *p.batch_shape))
        assert wider.argmax().shape == (3, *p.batch_shape, *p.event_shape)
        for wide, narrow in zip(tensors(wider.marginals), tensors(p.marginals), strict=True):
            equal(wide, narrow.expand(3, *narrow.shape))
