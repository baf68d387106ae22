"""First and second derivatives."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lnz.objectives import nll
from tests.suites.family import Family, equal, tensors


class Derivatives(Family):
    """gradcheck, gradgradcheck, −inf, and the model marginals theorem."""

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
                assert (gradient[torch.isneginf(leaf)] == 0).all()
        used = [g for g in gradients if g is not None and g.requires_grad]
        if used:
            weights = [torch.arange(g.numel(), dtype=g.dtype).reshape(g.shape).sin() for g in used]
            seconds = torch.autograd.grad(used, leaves, weights, allow_unused=True)
            assert all(torch.isfinite(g).all() for g in seconds if g is not None)

    def test_forward_mode(self) -> None:
        """Tangents and forward Jacobians of ln Z, against reverse mode."""
        instance = self.example()
        leaves = tuple(instance.leaves)
        along = tuple(torch.arange(1.0, leaf.numel() + 1).to(leaf).reshape(leaf.shape).sin() for leaf in leaves)

        def value(*leaves: Tensor) -> Tensor:
            return instance.build(*leaves).log_partition

        if "forward mode" in self.lacks:  # an error: no tangent is dropped
            with pytest.raises(NotImplementedError, match="has no forward-mode derivatives; use reverse mode"):
                torch.func.jvp(value, leaves, along)
            return
        wanted = torch.autograd.functional.jvp(value, leaves, along)[1]
        assert isinstance(wanted, Tensor)
        equal(torch.func.jvp(value, leaves, along)[1], wanted)
        every = tuple(range(len(leaves)))
        jacobians = torch.autograd.functional.jacobian(value, leaves)
        for actual, right in zip(torch.func.jacfwd(value, argnums=every)(*leaves), jacobians, strict=True):
            equal(actual, right)

    def test_gradient_of_nll_is_marginals_minus_gold(self) -> None:
        instance = self.example()
        leaves, p = instance.with_gradient()
        y, _ = instance.oracle.labellings()
        gold = y[0]
        actual = torch.autograd.grad(nll(p, gold, reduction="sum"), leaves, retain_graph=True)
        wanted = torch.autograd.grad(p.log_partition.sum() - p.score(gold).sum(), leaves)
        for a, w in zip(actual, wanted, strict=True):
            equal(a, w)
