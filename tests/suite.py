"""The suite that every distribution inherits: it supplies small random instances, the suite compares with brute force.

A subclass defines ``instances`` (a Hypothesis strategy of :class:`Instance`) and ``example`` (one small instance with
finite scores, a batch of two or more, and more than one labelling each), and says what its kind lacks by design.
"""

from __future__ import annotations

import copy
import math
import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import chi2
from torch import Tensor
from torch.distributions import kl_divergence

import lnz
from lnz.distributions import StructuredDistribution
from lnz.objectives import nll
from lnz.ops import backend
from tests.oracles import Oracle

IGNORE = -100
TOLERANCE = {"rtol": 1e-9, "atol": 1e-9}


@dataclass(frozen=True)
class Instance:
    """Leaf tensors, how they make a distribution, and how they make its enumeration."""

    leaves: tuple[Tensor, ...]
    build: Callable[..., StructuredDistribution]
    enumerate: Callable[..., Oracle]

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
        return Instance(tuple(map(function, self.leaves)), self.build, self.enumerate)


def random_scores(shape: tuple[int, ...], seed: int, impossible: float = 0.0) -> Tensor:
    """Float64 scores, each −inf with probability ``impossible``."""
    generator = torch.Generator().manual_seed(seed)
    scores = 2 * torch.randn(shape, generator=generator, dtype=torch.float64)
    drawn = torch.rand(shape, generator=generator, dtype=torch.float64)
    return scores.masked_fill(drawn < impossible, -torch.inf)


seeds = st.integers(0, 2**20)
batch_shapes = st.sampled_from([(), (1,), (2,), (3,), (2, 2)])
impossibilities = st.sampled_from([0.0, 0.0, 0.15, 0.3])


def equal(actual: Tensor, expected: Tensor, **tolerance: float) -> None:
    torch.testing.assert_close(actual.detach(), expected.detach(), **(TOLERANCE | tolerance))


def tensors(nested: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (nested,) if isinstance(nested, Tensor) else tuple(nested)


def written_out(entry: Tensor | lnz.Weighted) -> Tensor:
    if isinstance(entry, lnz.Weighted):
        product = entry.weight.reshape(*entry.weight.shape, *[1] * entry.table.dim()) * entry.table.clamp(min=-1e300)
        return torch.where(torch.isneginf(entry.table), -torch.inf, product)
    return entry


class DistributionSuite(ABC):
    """See the module's docstring."""

    lacks: ClassVar[frozenset[str]] = frozenset()
    """Methods that this kind does not have by design, of ``topk`` and ``sample``: they raise and name alternatives."""

    @staticmethod
    @abstractmethod
    def instances() -> st.SearchStrategy[Instance]: ...

    @staticmethod
    @abstractmethod
    def example() -> Instance: ...

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

    # Against enumeration ------------------------------------------------------------------------------------------

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
        flat_scores = scores.reshape(k, -1)
        flat = labellings.reshape(k, flat_scores.shape[1], -1)
        for b in range(flat_scores.shape[1]):
            possible = flat_scores[:, b] > -torch.inf
            rows = [tuple(row) for row in flat[possible, b].tolist()]
            assert len(set(rows)) == len(rows)
            for row, score in zip(rows, flat_scores[possible, b].tolist(), strict=True):
                assert oracle.score_of(b, row) == pytest.approx(score, abs=1e-9)
            assert (flat[~possible, b] == IGNORE).all()

    @staticmethod
    def scores_of(oracle: Oracle, y: Tensor) -> Tensor:
        rows = y.reshape(len(oracle.entries), -1).tolist()
        values = [oracle.score_of(b, row) for b, row in enumerate(rows)]
        return torch.tensor(values, dtype=torch.float64).reshape(oracle.batch_shape)

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

    @staticmethod
    def partial(oracle: Oracle, seed: int) -> Tensor:
        """One labelling per batch entry, about half of its labels hidden."""
        generator = torch.Generator().manual_seed(seed)
        rows = [entry[int(torch.randint(len(entry), (), generator=generator))].y for entry in oracle.entries]
        y = torch.tensor(rows, dtype=torch.int64).reshape((*oracle.batch_shape, *oracle.event_shape))
        return y.masked_fill(torch.rand(y.shape, generator=generator) < 0.5, IGNORE)

    # Sampling -----------------------------------------------------------------------------------------------------

    @given(st.data())
    def test_samples_follow_the_distribution(self, data: st.DataObject) -> None:
        self.skip_or_refuse("sample")
        instance = self.feasible(data)
        n = 1000
        p, oracle = instance.p, instance.oracle
        drawn = p.sample((n,), generator=torch.Generator().manual_seed(data.draw(seeds)))
        assert drawn.shape == (n, *p.batch_shape, *p.event_shape)
        rows = drawn.reshape(n, len(oracle.entries), -1)
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

    # Derivatives --------------------------------------------------------------------------------------------------

    def test_gradcheck(self) -> None:
        leaves, _ = self.example().with_gradient()
        build = self.example().build
        assert torch.autograd.gradcheck(lambda *s: build(*s).log_partition, leaves)
        assert torch.autograd.gradgradcheck(lambda *s: build(*s).log_partition, leaves)

    def test_entropy_and_marginals_are_differentiable(self) -> None:
        leaves, _ = self.example().with_gradient()
        build = self.example().build
        assert torch.autograd.gradcheck(lambda *s: build(*s).entropy(), leaves)
        assert torch.autograd.gradcheck(lambda *s: tensors(build(*s).marginals), leaves)

    @given(st.data())
    def test_impossible_scores_have_no_gradient_and_never_nan(self, data: st.DataObject) -> None:
        instance = data.draw(self.instances())
        leaves, p = instance.with_gradient()
        gradients = torch.autograd.grad(p.log_partition.sum(), leaves, create_graph=True, allow_unused=True)
        for leaf, gradient in zip(leaves, gradients, strict=True):
            if gradient is not None:
                assert torch.isfinite(gradient).all()
                if leaf.dim() == p.scores[0].dim() if isinstance(p.scores, Tensor) else True:
                    assert (gradient[torch.isneginf(leaf)] == 0).all()
        used = [g for g in gradients if g is not None and g.requires_grad]
        if used:
            weights = [torch.arange(g.numel(), dtype=g.dtype).reshape(g.shape).sin() for g in used]
            seconds = torch.autograd.grad(used, leaves, weights, allow_unused=True)
            assert all(torch.isfinite(g).all() for g in seconds if g is not None)

    def test_gradient_of_nll_is_marginals_minus_gold(self) -> None:
        instance = self.example()
        leaves, p = instance.with_gradient()
        y, _ = instance.oracle.labellings()
        gold = y[0]
        actual = torch.autograd.grad(nll(p, gold, reduction="sum"), leaves, retain_graph=True)
        wanted = torch.autograd.grad(p.log_partition.sum() - p.score(gold).sum(), leaves)
        for a, w in zip(actual, wanted, strict=True):
            equal(a, w)

    # Shapes -------------------------------------------------------------------------------------------------------

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

    # Bad input ----------------------------------------------------------------------------------------------------

    def impossible(self) -> StructuredDistribution:
        return self.example().map(lambda leaf: torch.full_like(leaf, -torch.inf)).p

    def test_no_possible_labelling_is_an_error_that_names_the_entries(self) -> None:
        p = self.impossible()
        assert torch.isneginf(p.log_partition).all()
        entries = list(range(p.batch_shape.numel()))
        calls: dict[str, Callable[[], object]] = {"marginals": lambda: p.marginals, "argmax": p.argmax}
        if "sample" not in self.lacks:
            calls["sample"] = p.sample
        for name, call in calls.items():
            with pytest.raises(lnz.InfeasibleError, match=f"{name}: no labelling has a finite score") as error:
                call()
            assert list(error.value.entries) == entries
        y = self.example().oracle.labellings()[0][0]
        assert torch.isneginf(p.log_prob(y)).all()
        with pytest.raises(lnz.InfeasibleError, match="probability 0 in batch entries"):
            nll(p, y)
        equal(nll(p, y, zero_infinity=True), torch.zeros((), dtype=torch.float64))

    def test_labels_out_of_range(self) -> None:
        p = self.example().p
        y = self.example().oracle.labellings()[0][0].clone()
        for bad in (1000, -1):
            y.view(-1)[0] = bad
            for call in (p.log_prob, p.score, p.condition):
                with pytest.raises(ValueError, match=rf"y: expected labels in \[0, \d+\), or -100.*got {bad} at"):
                    call(y)

    def test_labellings_of_the_wrong_kind(self) -> None:
        p = self.example().p
        y = self.example().oracle.labellings()[0][0]
        with pytest.raises(TypeError, match=r"y: expected dtype torch.int64, got torch.float64"):
            p.log_prob(y.double())
        with pytest.raises(TypeError, match=r"y: expected a torch.Tensor, got list"):
            p.condition(y.tolist())
        with pytest.raises(ValueError, match="y: expected"):
            p.log_prob(y.new_zeros(*p.batch_shape[:-1], p.batch_shape[-1] + 1, *p.event_shape))
        if p.event_shape:
            with pytest.raises(ValueError, match=r"y: expected shape \[\*batch, "):
                p.log_prob(y.new_zeros(*p.batch_shape, *p.event_shape[:-1], p.event_shape[-1] + 1))

    def test_scores_of_the_wrong_kind(self) -> None:
        instance = self.example()
        for value, shown in ((torch.nan, "NaN"), (torch.inf, r"\+inf")):
            for i in range(len(instance.leaves)):
                leaves = [leaf.clone() for leaf in instance.leaves]
                leaves[i].view(-1)[-1] = value
                with pytest.raises(ValueError, match=rf"scores.*: 1 of \d+ scores are {shown}, first at"):
                    instance.build(*leaves)
        with pytest.raises(TypeError, match=r"scores.*: expected floating point scores, got dtype torch.int64"):
            instance.build(*(leaf.long() for leaf in instance.leaves))

    def test_k_below_one(self) -> None:
        with pytest.raises(ValueError, match="k: expected a positive integer, got 0"):
            self.example().p.topk(0)

    def test_kl_of_different_families_or_events(self) -> None:
        p = self.example().p
        stranger = lnz.MRF(
            lnz.FactorGraph((2,) * 9, (torch.arange(9)[:, None],)), (torch.zeros(9, 2, dtype=torch.float64),)
        )
        with pytest.raises((TypeError, ValueError), match="expected"):
            kl_divergence(p, stranger)

    # Devices of torch: backends, dtypes, transforms ----------------------------------------------------------------

    @given(st.data())
    def test_every_backend_equals_the_reference(self, data: st.DataObject) -> None:
        instance = self.feasible(data)
        results = []
        for name in ("auto", "reference"):
            with backend(name):
                leaves, p = instance.with_gradient()
                z = p.log_partition
                gradients = torch.autograd.grad(z.sum(), leaves, allow_unused=True, retain_graph=True)
                marginals = tensors(p.marginals)
                results.append((z, *marginals, p.score(p.argmax()), *(g for g in gradients if g is not None)))
        for actual, wanted in zip(*results, strict=True):
            equal(actual, wanted)

    @given(st.data())
    def test_float32_is_close_to_float64(self, data: st.DataObject) -> None:
        instance = self.feasible(data)
        single = instance.map(Tensor.float)
        assert single.p.log_partition.dtype == torch.float32
        assert single.p.entropy().dtype == torch.float32
        equal(single.p.log_partition.double(), instance.p.log_partition, rtol=1e-5, atol=1e-4)
        for actual, wanted in zip(tensors(single.p.marginals), tensors(instance.p.marginals), strict=True):
            assert actual.dtype == torch.float32
            equal(actual.double(), wanted, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("compiler", ["eager", "aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
    def test_compiles_in_one_graph(self, compiler: str) -> None:
        instance = self.example()
        gold = instance.oracle.labellings()[0][0]

        def losses(*leaves: Tensor) -> tuple[Tensor, Tensor]:
            p = instance.build(*leaves)
            return p.log_partition, nll(p, gold)

        torch.compiler.reset()
        leaves, _ = instance.with_gradient()
        results = []
        for function in (losses, torch.compile(losses, fullgraph=True, backend=compiler)):
            z, loss = function(*leaves)
            results.append((z, loss, *torch.autograd.grad(z.sum() + 2 * loss, leaves)))
        for actual, wanted in zip(*results, strict=True):
            equal(actual, wanted)

    def test_vmap_and_func_grad(self) -> None:
        instance = self.example()
        gold = instance.oracle.labellings()[0][0]
        several = tuple(torch.stack((leaf, leaf.flip(0), leaf * 0.5)) for leaf in instance.leaves)

        def value(*leaves: Tensor) -> Tensor:
            return instance.build(*leaves).log_partition.sum()

        def loss(*leaves: Tensor) -> Tensor:
            return nll(instance.build(*leaves), gold)

        every = tuple(range(len(several)))
        for function in (value, loss):
            one_by_one = [function(*(leaf[i] for leaf in several)) for i in range(3)]
            equal(torch.func.vmap(function)(*several), torch.stack(one_by_one))
            actual = torch.func.vmap(torch.func.grad(function, argnums=every))(*several)
            for i in range(3):
                leaves = tuple(leaf[i].clone().requires_grad_() for leaf in several)
                wanted = torch.autograd.grad(function(*leaves), leaves)
                alone = torch.func.grad(function, argnums=every)(*(leaf[i] for leaf in several))
                for a, b, w in zip(actual, alone, wanted, strict=True):
                    equal(a[i], w)
                    equal(b, w)

    def test_copies_and_pickles(self) -> None:
        p = self.example().p
        wanted = p.log_partition
        for copied in (copy.deepcopy(p), copy.copy(p), pickle.loads(pickle.dumps(p))):
            assert type(copied) is type(p)
            equal(copied.log_partition, wanted)
            assert torch.equal(copied.argmax(), p.argmax())

    def test_repr_names_the_family_and_its_sizes(self) -> None:
        p = self.example().p
        assert type(p).__name__ in repr(p)
        assert f"batch_shape={list(p.batch_shape)}" in repr(p)

    def test_values_computed_without_gradient_do_not_serve_with_it(self) -> None:
        leaves, p = self.example().with_gradient()
        with torch.no_grad():
            assert not p.log_partition.requires_grad
        assert p.log_partition.requires_grad
        assert all(torch.isfinite(g).all() for g in torch.autograd.grad(p.log_partition.sum(), leaves))
        assert math.isfinite(float(p.log_partition.detach().sum()))
