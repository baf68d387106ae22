"""What is wrong is said, and named."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.distributions import kl_divergence

import lnz
from lnz.distributions import StructuredDistribution
from lnz.objectives import nll
from tests.suites.family import Family, equal


class BadInput(Family):
    """Infeasible models, labels and scores of the wrong kind."""

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
        for bad in (y.double(), y == 0):
            with pytest.raises(TypeError, match=rf"y: expected a torch.Tensor of integers, got {bad.dtype}"):
                p.log_prob(bad)
        with pytest.raises(TypeError, match=r"y: expected a torch.Tensor, got list"):
            p.condition(y.tolist())
        with pytest.raises(TypeError, match=r"y: expected a torch.Tensor, got list"):
            p.log_prob(y.tolist())
        with pytest.raises(TypeError, match=r"y: expected a torch.Tensor, got NoneType"):
            p.log_prob(None)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="y: expected"):
            p.log_prob(y.new_zeros(*p.batch_shape[:-1], p.batch_shape[-1] + 1, *p.event_shape))
        if p.event_shape:
            with pytest.raises(ValueError, match=r"y: expected shape \[\*batch, "):
                p.log_prob(y.new_zeros(*p.batch_shape, *p.event_shape[:-1], p.event_shape[-1] + 1))

    def test_labels_of_any_integer_dtype(self) -> None:
        p = self.example().p
        y = self.example().oracle.labellings()[0][0]
        for dtype in (torch.int32, torch.int16):
            for call in (p.log_prob, p.score, lambda y: p.condition(y).log_partition, lambda y: nll(p, y)):
                equal(call(y.to(dtype)), call(y))

    def test_scores_of_the_wrong_kind(self) -> None:
        instance = self.example()
        padding = self.padding() or tuple(torch.zeros(leaf.shape, dtype=torch.bool) for leaf in instance.leaves)
        for value, shown in ((torch.nan, "NaN"), (torch.inf, r"\+inf")):
            for i in range(len(instance.leaves)):
                leaves = [leaf.clone() for leaf in instance.leaves]
                leaves[i].view(-1)[int((~padding[i]).int().argmax())] = value  # the first that is looked at
                with pytest.raises(ValueError, match=rf"^\S+: 1 of \d+ scores are {shown}, first at"):
                    instance.build(*leaves)
        with pytest.raises(TypeError, match=r"^\S+: expected floating point scores, got dtype torch.int64"):
            instance.build(*(leaf.long() for leaf in instance.leaves))

    def test_labels_have_no_moments(self) -> None:
        p = self.example().p
        for name in ("mean", "variance", "stddev"):
            with pytest.raises(TypeError, match=rf"{type(p).__name__} has no {name}: .*; use marginals .* or entropy"):
                getattr(p, name)

    def test_k_below_one(self) -> None:
        with pytest.raises(ValueError, match="k: expected a positive integer, got 0"):
            self.example().p.topk(0)

    def test_samples_of_no_shape(self) -> None:
        if "sample" in self.lacks:
            return
        with pytest.raises(ValueError, match=r"sample_shape: expected sizes of at least 0, got \(-1,\)"):
            self.example().p.sample((-1,))
        with pytest.raises(TypeError, match=r"sample_shape: expected a sequence of integers, such as \(3,\), got 3"):
            self.example().p.sample(3)  # type: ignore[arg-type]

    def test_kl_of_different_families_or_events(self) -> None:
        p = self.example().p
        stranger = lnz.MRF(
            lnz.FactorGraph((2,) * 9, (torch.arange(9)[:, None],)), (torch.zeros(9, 2, dtype=torch.float64),)
        )
        with pytest.raises((TypeError, ValueError), match="expected"):
            kl_divergence(p, stranger)
