"""Accepting proposals with the probability of Metropolis and Hastings, and keeping count."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lnz.inference.sampling.sampler import Chains
from lnz.ops.conditionals.random import uniform


def accepted(log_ratio: Tensor, generator: torch.Generator | None) -> Tensor:
    """Which proposals to accept: each with probability min(1, e^log_ratio); never where that is NaN or −inf."""
    return uniform(log_ratio.shape, log_ratio, generator).log() < log_ratio


def tallied(chains: Chains, accepted: Tensor, proposed: int) -> dict[str, Tensor]:
    """What to carry of how many proposals each chain ``[n, *batch]`` has accepted, of how many, since its start."""
    before = chains.carried
    count = accepted.new_full((), proposed)
    if "accepted" not in before:
        return {"accepted": accepted, "proposed": count}
    return {"accepted": before["accepted"] + accepted, "proposed": before["proposed"] + count}


def acceptance(chains: Chains) -> dict[str, Any]:
    """The share of proposals accepted, ``[*batch]``, for the diagnostics."""
    carried = chains.carried
    return {"acceptance": carried["accepted"].mean(0) / carried["proposed"]} if "accepted" in carried else {}
