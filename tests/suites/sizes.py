"""Nothing in the batch, nothing in the sequence, nothing beyond a length."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import kl_divergence

from lnz.objectives import nll
from tests.suites.family import IGNORE, Family, equal, tensors


class Sizes(Family):
    """A size of 0 for every axis, and padding that holds anything."""

    def test_nothing_along_an_axis(self) -> None:
        for axis, instance in self.empties().items():
            leaves, p = instance.with_gradient()
            oracle = instance.oracle
            assert p.batch_shape == torch.Size(oracle.batch_shape), axis
            assert p.event_shape == torch.Size(oracle.event_shape), axis
            sizes = p.batch_shape + p.event_shape + sum((leaf.shape for leaf in leaves), torch.Size())
            assert 0 in sizes or axis in ("labels", "words")  # which targets have, or which have a root beside them
            equal(p.log_partition, oracle.log_partition)
            equal(p.log_count, oracle.log_count)
            equal(p.entropy(), oracle.entropy)
            equal(kl_divergence(p, p), torch.zeros(p.batch_shape, dtype=torch.float64))
            shapes = [(*p.batch_shape, *shape) for shape in oracle.part_shapes]
            for actual, shape in zip(tensors(p.marginals), shapes, strict=True):
                assert actual.shape == shape, axis
            if oracle.entries:
                for actual, wanted in zip(tensors(p.marginals), oracle.marginals, strict=True):
                    equal(actual, wanted)
            best = p.argmax()
            assert best.shape == p.batch_shape + p.event_shape, axis
            assert best.dtype == torch.int64
            for y in (best, torch.full_like(best, IGNORE)):
                equal(p.log_prob(y), p.condition(y).log_partition - p.log_partition)
            assert p.score(best).shape == p.batch_shape, axis
            if "topk" not in self.lacks:
                labels, scores = p.topk(2)
                assert labels.shape == (2, *p.batch_shape, *p.event_shape), axis
                equal(scores, oracle.topk(2) if oracle.entries else scores.new_zeros(2, *p.batch_shape))
            if "sample" not in self.lacks:
                assert p.sample((3,)).shape == (3, *p.batch_shape, *p.event_shape), axis
            assert p.tempered(2.0).log_partition.shape == p.batch_shape, axis
            loss = nll(p, best, reduction="sum") + p.entropy().sum() + p.log_partition.sum()
            if loss.requires_grad:
                found = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
                assert all(torch.isfinite(gradient).all() for gradient in found), axis
                if not oracle.entries:
                    assert all((gradient == 0).all() for gradient in found), axis

    @pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
    def test_padding_is_never_looked_at(self, value: float) -> None:
        masks, clean = self.padding(), self.example()
        if not masks:
            return
        assert any(mask.any() for mask in masks)
        pairs = zip(clean.leaves, masks, strict=True)
        leaves = tuple(leaf.masked_fill(mask, value).requires_grad_() for leaf, mask in pairs)
        p, (plain, q) = clean.build(*leaves), clean.with_gradient()
        y = q.argmax()
        assert torch.equal(p.argmax(), y)
        partial = torch.where(torch.arange(y.numel()).reshape(y.shape) % 2 == 0, y, IGNORE)
        for gold in (y, partial):
            equal(p.log_prob(gold), q.log_prob(gold))
            self._same_gradients(nll(p, gold), leaves, nll(q, gold), plain)
        equal(p.log_partition, q.log_partition)
        equal(p.score(y), q.score(y))
        equal(p.entropy(), q.entropy())
        equal(p.log_count, q.log_count)
        equal(kl_divergence(p, q), torch.zeros_like(q.log_partition))
        equal(kl_divergence(q, p), torch.zeros_like(q.log_partition))
        for actual, wanted in zip(tensors(p.marginals), tensors(q.marginals), strict=True):
            equal(actual, wanted)
        self._same_gradients(p.log_partition.sum(), leaves, q.log_partition.sum(), plain)
        self._same_gradients(p.entropy().sum(), leaves, q.entropy().sum(), plain)
        if "topk" not in self.lacks:
            for actual, wanted in zip(p.topk(3), q.topk(3), strict=True):
                equal(actual, wanted)
        if "sample" not in self.lacks:
            samples = [each.sample((5,), generator=torch.Generator().manual_seed(0)) for each in (p, q)]
            assert torch.equal(*samples)

    @staticmethod
    def _same_gradients(one: Tensor, leaves: tuple[Tensor, ...], two: Tensor, plain: tuple[Tensor, ...]) -> None:
        found = torch.autograd.grad(one, leaves, allow_unused=True, materialize_grads=True, retain_graph=True)
        wanted = torch.autograd.grad(two, plain, allow_unused=True, materialize_grads=True, retain_graph=True)
        for actual, expected in zip(found, wanted, strict=True):
            equal(actual, expected)
