"""Digits: common offsets, half precision, mixed dtypes and scores at the ends of a dtype's range."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import kl_divergence

from lnz.distributions import StructuredDistribution
from lnz.objectives import nll
from tests.suites.family import Family, Instance, random_scores, seeds, tensors, written_out

SINGLE = {"rtol": 2e-5, "atol": 2e-5}
"""What sums of a few tens in float32 may be off by, once what they have in common is taken away."""
HALVES = [torch.bfloat16, torch.float16]
HUGE = [(torch.float32, 1e30), (torch.float32, 3e38), (torch.float64, 1e300)]
"""Dtypes with scores as large as their range has room for sums of."""
HUGE_BOUND = {"rtol": 2e-5, "atol": 1e-5}


def close(actual: Tensor, expected: Tensor, rtol: float, atol: float) -> None:
    """Compare values of any dtype with float64; beyond the range of the dtype both are infinite."""
    expected = expected.detach().double().to(actual.dtype).double() if actual.dtype in HALVES else expected.detach()
    torch.testing.assert_close(actual.detach().double(), expected.double(), rtol=rtol, atol=atol)


def in_range(expected: Tensor, dtype: torch.dtype) -> Tensor:
    """``expected`` in ``dtype``, infinite beyond its range."""
    return expected.to(dtype).double()


def gradients(instance: Instance, gold: Tensor) -> dict[str, tuple[Tensor, ...]]:
    """Those of the summed loss, and of the summed entropy, in every leaf."""

    def of(value: Tensor, leaves: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if not value.requires_grad:
            return tuple(map(torch.zeros_like, leaves))
        return torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True)

    found = {}
    for name in ("loss", "entropy"):
        leaves, p = instance.with_gradient()
        found[name] = of(nll(p, gold, reduction="sum") if name == "loss" else p.entropy().sum(), leaves)
    return found


def check_all_but_log_partition(rounded: Instance, other: Instance, rtol: float, atol: float) -> None:
    """Every answer from the scores of ``rounded`` (KL: to ``other``), against enumeration of them in float64."""
    p, exact = rounded.p, rounded.map(Tensor.double)
    oracle = exact.oracle
    y, scores = oracle.labellings()
    gold = exact.p.argmax()
    for actual, wanted in zip(tensors(p.marginals), oracle.marginals, strict=True):
        close(actual, wanted, rtol, atol)
    close(p.entropy(), oracle.entropy, rtol, atol)
    log_probs = p.log_prob(y).masked_fill(torch.isneginf(scores), -torch.inf)
    close(log_probs, scores - oracle.log_partition, rtol, atol)
    close(nll(p, gold, reduction="none"), oracle.log_partition - oracle.topk(1)[0], rtol, atol)
    close(kl_divergence(p, other.p), oracle.kl(other.map(Tensor.double).oracle), rtol, atol)
    wanted_gradients = gradients(exact, gold)
    for name, found in gradients(rounded, gold).items():
        for actual, wanted in zip(found, wanted_gradients[name], strict=True):
            scale = max(1.0, wanted.abs().max().item() if wanted.numel() else 1.0)
            close(actual, wanted, rtol, atol * scale)


def best_is_best(instance: Instance, p: StructuredDistribution, lacks_topk: bool) -> None:
    """No labelling of higher score was missed for the rounding of a sum."""
    oracle = instance.map(Tensor.double).oracle
    best = oracle.topk(3)
    close(Family.scores_of(oracle, p.argmax()), best[0], 0.0, 1e-4)
    if not lacks_topk:
        for labels, wanted in zip(p.topk(3)[0], best, strict=True):
            if torch.isfinite(wanted).all():
                close(Family.scores_of(oracle, labels), wanted, 0.0, 1e-4)


class Precision(Family):
    """What is rounded is the scores that come in and the answers that go out, nothing between them."""

    def pair(self, data: st.DataObject) -> tuple[Instance, Instance]:
        """A possible instance with a labelling or more, and another one near it."""
        one = self.feasible(data)
        assume(one.oracle.entries)
        seed = data.draw(seeds)
        return one, one.map(lambda leaf: leaf + random_scores(tuple(leaf.shape), seed).abs() / 4)

    @given(st.data())
    def test_an_offset_of_all_scores_changes_nothing_but_log_partition(self, data: st.DataObject) -> None:
        offset = data.draw(st.sampled_from([1e6, -1e6, 1e4, -1e4]))
        one, two = self.pair(data)
        rounded, other = one.shifted(offset).map(Tensor.float), two.shifted(-offset).map(Tensor.float)
        assume(rounded.oracle.feasible)
        close(rounded.p.log_partition, rounded.map(Tensor.double).oracle.log_partition, 5e-7, 2e-5)
        check_all_but_log_partition(rounded, other, **SINGLE)
        best_is_best(rounded, rounded.p, "topk" in self.lacks)

    @pytest.mark.parametrize("dtype", HALVES, ids=str)
    @given(data=st.data())
    def test_half_precision_rounds_answers_once(self, data: st.DataObject, dtype: torch.dtype) -> None:
        offset = data.draw(st.sampled_from([0.0, 64.0, -64.0, 12000.0, -12000.0]))
        one, two = (instance.shifted(offset).map(lambda leaf: leaf.to(dtype)) for instance in self.pair(data))
        p = one.p
        assert {p.log_partition.dtype, p.entropy().dtype, p.log_prob(p.argmax()).dtype} == {dtype}
        assert all(m.dtype == dtype for m in tensors(p.marginals))
        close(p.log_partition, one.map(Tensor.double).oracle.log_partition, torch.finfo(dtype).eps, 1e-4)
        check_all_but_log_partition(one, two, 2 * torch.finfo(dtype).eps, 1e-4)

    @pytest.mark.parametrize("dtype", HALVES, ids=str)
    @given(data=st.data())
    def test_sums_beyond_half_precision_are_not_impossible(self, data: st.DataObject, dtype: torch.dtype) -> None:
        """A loss that is rounded to infinity is that of a labelling that is possible all the same: no error."""
        largest = 6e4
        instance = self.pair(data)[0].scaled(largest).map(lambda leaf: leaf.to(dtype))
        p, oracle = instance.p, instance.map(Tensor.double).oracle
        y, scores = oracle.labellings()
        rounding = 20 * torch.finfo(torch.float32).eps * largest  # of the sums
        for gold, score, wanted in zip(y, scores, oracle.all_log_probs, strict=True):
            if torch.isfinite(score).all():
                close(nll(p, gold, reduction="none"), -wanted, 2 * torch.finfo(dtype).eps, rounding)

    @given(st.data())
    def test_mixed_dtypes_are_promoted(self, data: st.DataObject) -> None:
        """As a network under autocast brings them beside parameters in float32."""
        instance, _ = self.pair(data)
        for narrow, wide in ((torch.bfloat16, torch.float32), (torch.float32, torch.float64)):
            halves = instance.map(lambda leaf, narrow=narrow: leaf.to(narrow))
            promoted = halves.map(lambda leaf, wide=wide: leaf.to(wide)).p
            for i in range(len(instance.leaves) if len(instance.leaves) > 1 else 0):
                leaves = tuple(leaf if i == j else leaf.to(wide) for j, leaf in enumerate(halves.leaves))
                p = instance.build(*leaves)
                assert {p.log_partition.dtype, p.entropy().dtype, *(m.dtype for m in tensors(p.marginals))} == {wide}
                assert torch.equal(p.argmax(), promoted.argmax())
                close(p.log_partition, promoted.log_partition, *SINGLE.values())
                close(p.log_prob(p.argmax()), promoted.log_prob(p.argmax()), *SINGLE.values())

    def test_autocast_changes_nothing(self) -> None:
        instance = self.example().map(Tensor.float)
        gold, wanted = instance.p.argmax(), instance.p
        with torch.autocast("cpu", torch.bfloat16):
            p = instance.p
            answers = p.log_partition, p.entropy(), p.log_prob(gold), *tensors(p.marginals)
        expected = wanted.log_partition, wanted.entropy(), wanted.log_prob(gold), *tensors(wanted.marginals)
        for actual, value in zip(answers, expected, strict=True):
            assert actual.dtype == torch.float32
            close(actual, value, 1e-6, 1e-6)

    @pytest.mark.parametrize(("dtype", "largest"), HUGE, ids=str)
    @given(data=st.data())
    def test_huge_scores(self, data: st.DataObject, dtype: torch.dtype, largest: float) -> None:
        """Labellings differ by as much: nearly all of them are certain, and nothing is a difference of large sums."""
        one, two = (each.scaled(largest).map(lambda leaf: leaf.to(dtype)) for each in self.pair(data))
        p, oracle = one.p, one.map(Tensor.double).oracle
        close(p.entropy(), oracle.entropy, **HUGE_BOUND)
        for actual, wanted in zip(tensors(p.marginals), oracle.marginals, strict=True):
            close(actual, wanted, 1e-4, 1e-4)
        y, scores = oracle.labellings()
        log_probs = p.log_prob(y).masked_fill(torch.isneginf(scores), -torch.inf)
        close(log_probs, in_range(oracle.all_log_probs, dtype), **HUGE_BOUND)
        close(kl_divergence(p, p), torch.zeros(p.batch_shape), **HUGE_BOUND)
        close(kl_divergence(p, two.p), in_range(oracle.kl(two.map(Tensor.double).oracle), dtype), **HUGE_BOUND)

    @pytest.mark.parametrize(("dtype", "largest"), HUGE, ids=str)
    @given(data=st.data())
    def test_gradients_of_huge_scores(self, data: st.DataObject, dtype: torch.dtype, largest: float) -> None:
        instance = self.pair(data)[0].scaled(largest).map(lambda leaf: leaf.to(dtype))
        found = gradients(instance, instance.p.argmax())
        assert all(torch.isfinite(gradient).all() for gradient in (*found["loss"], *found["entropy"]))
        leaves, p = instance.map(Tensor.double).with_gradient()
        each = zip(instance.map(Tensor.double).oracle.entropy_gradient, tensors(p.scores), strict=True)
        linear = sum((covariance * written_out(scores)).sum() for covariance, scores in each)
        wanted = torch.autograd.grad(linear, leaves, allow_unused=True, materialize_grads=True)
        for actual, expected, unit in zip(found["entropy"], wanted, instance.units or [1.0] * len(leaves), strict=True):
            if unit is not None:  # weights of scores of 1e30 have gradients as large as these
                close(actual, expected, **HUGE_BOUND)

    @pytest.mark.parametrize("offset", [1e38, -1e38])
    def test_sums_beyond_the_range_are_not_impossible(self, offset: float) -> None:
        """All finite scores are equal there: every possible labelling is as likely as the others."""
        instance = self.example()
        if instance.units:
            return  # an offset of one part is not that of another, so that sums of these scores differ by rounding
        instance = instance.shifted(offset).map(Tensor.float)
        wanted = self.example().map(lambda leaf: 0 * leaf).map(Tensor.float)
        p, gold = instance.p, wanted.p.argmax()
        for actual, expected in zip(tensors(p.marginals), tensors(wanted.p.marginals), strict=True):
            close(actual, expected, *SINGLE.values())
        close(p.log_prob(gold), wanted.p.log_prob(gold), *SINGLE.values())
        close(p.entropy(), wanted.p.entropy(), *SINGLE.values())
        for found in gradients(instance, gold).values():
            assert all(torch.isfinite(gradient).all() for gradient in found)

    def test_an_impossible_entry_leaves_the_gradients_of_others_alone(self) -> None:
        instance = self.example()
        y, _ = instance.oracle.labellings()
        clash = y[0].clone()
        clash[0] = next(other[0] for other in y if not torch.equal(other[0], y[0][0]))
        leaves, p = instance.with_gradient()
        q = p.condition(y[0]).condition(clash)
        assert torch.isneginf(q.log_partition).tolist() == [True, *[False] * (len(y[0]) - 1)]
        wanted = torch.autograd.grad(p.condition(y[0]).log_partition[1:].sum(), leaves, retain_graph=True)
        for value in (q.log_partition.sum(), q.log_prob(y[0]).sum(), nll(p, clash, "sum", zero_infinity=True)):
            for gradient in torch.autograd.grad(value, leaves, retain_graph=True, allow_unused=True):
                assert gradient is None or torch.isfinite(gradient).all()
        found = torch.autograd.grad(q.log_partition.sum(), leaves, retain_graph=True)
        for actual, expected in zip(found, wanted, strict=True):
            close(actual, expected, 1e-9, 1e-9)
