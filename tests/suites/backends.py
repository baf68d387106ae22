"""Backends, dtypes, the transforms of torch, copies."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lnz.objectives import nll
from lnz.ops import backend
from tests.gpu import require_interpreter
from tests.suites.family import Family, equal, tensors


class Backends(Family):
    """Every way to compute gives the same."""

    @pytest.mark.parametrize("way", ["auto", "triton"])
    @given(st.data())
    def test_every_backend_equals_the_reference(self, way: str, data: st.DataObject) -> None:
        if way == "triton":
            require_interpreter()
        instance = self.feasible(data)
        results = []
        for name in (way, "reference"):
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

    @given(st.data())
    def test_answers_do_not_depend_on_what_was_asked_before(self, data: st.DataObject) -> None:
        instance = self.feasible(data).map(Tensor.float)  # float32, whose last digits would show it
        gold = instance.p.argmax()

        def answers(first: str) -> list[Tensor]:
            leaves, p = instance.with_gradient()
            if first == "ln Z":
                _ = p.log_partition, tensors(p.marginals), p.entropy()
            elif first == "ln P":
                _ = p.log_prob(gold)
            log_prob = p.log_prob(gold)
            gradients = torch.autograd.grad(log_prob.sum(), leaves, allow_unused=True)
            found = [log_prob, p.log_partition, p.entropy(), *tensors(p.marginals)]
            return [*found, *(g for g in gradients if g is not None)]

        alone = answers("nothing")
        for first in ("ln Z", "ln P"):
            for actual, wanted in zip(answers(first), alone, strict=True):
                assert torch.equal(actual, wanted), (actual, wanted)

    @pytest.mark.slow
    @pytest.mark.parametrize("compiler", ["eager", "aot_eager", "inductor"])
    def test_compiles_in_one_graph(self, compiler: str) -> None:
        instance = self.example()
        gold = instance.oracle.labellings()[0][0]

        def losses(*leaves: Tensor) -> tuple[Tensor, Tensor]:
            p = instance.build(*leaves)
            return p.log_partition, nll(p, gold)

        def alone(*leaves: Tensor) -> tuple[Tensor]:
            return (nll(instance.build(*leaves), gold),)

        leaves, _ = instance.with_gradient()
        for function in (losses, alone):
            torch.compiler.reset()
            results = []
            for form in (function, torch.compile(function, fullgraph=True, backend=compiler)):
                values = form(*leaves)
                results.append((*values, *torch.autograd.grad(sum(2 * value.sum() for value in values), leaves)))
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
