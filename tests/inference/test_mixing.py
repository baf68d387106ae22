"""What is known of chains: R-hat and sample sizes of each model, and what cannot be told."""

from __future__ import annotations

import torch

import lnz
from lnz.inference.sampling.mixing import mixing


def test_each_model_is_judged_by_its_own_statistics(generator: torch.Generator) -> None:
    """The worst R-hat and the least sample size over K statistics, for each of a batch of models that is no square."""
    draws = torch.randn(200, 4, 2, 5, generator=generator).double()
    draws[:, :2, 1, 3] += 3.0  # two of the four chains of the second model are elsewhere
    walk = draws[..., 0, 4].cumsum(0)  # and one statistic of the first hardly moves
    draws[..., 0, 4] = walk
    judged = mixing(draws, torch.ones(2, 5, dtype=torch.bool), 1.01)
    each, effective = lnz.inference.r_hat(draws), lnz.inference.effective_sample_size(draws)
    assert each.shape == effective.shape == (2, 5)
    assert torch.equal(judged.r_hat, torch.stack((each[0].max(), each[1].max())))
    assert torch.equal(judged.ess, torch.stack((effective[0].min(), effective[1].min())))
    assert judged.ess[0] == effective[0, 4]
    assert not judged.mixed.any()


def test_two_chains_may_agree_on_what_never_changes(generator: torch.Generator) -> None:
    """They have come there from starts of their own; one chain has not."""
    draws = torch.randn(400, 2, 3, generator=generator).double()
    draws[..., 1] = 1.0
    free = torch.ones(3, dtype=torch.bool)
    assert mixing(draws, free, 1.05).mixed
    assert not mixing(draws[:, :1], free, 1.05).mixed
