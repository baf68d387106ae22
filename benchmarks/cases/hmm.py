"""Hidden Markov models: smoothing one long sequence."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

import lnz
from benchmarks.case import OURS, Contender, Numbers, Workload, require

SHAPES = {"1000x8": (1_000, 8), "10000x32": (10_000, 32)}


class HMMSmoothing:
    name = "hmm-smoothing"
    title = "HMM smoothing"
    summary = (
        "One sequence of T steps, K hidden states (TxK), float32: the log evidence and the probability of each "
        "state at each step, from log-probabilities of the observations. dynamax is compiled by XLA for the shape; "
        "hmmlearn, which takes observations, is called at the two passes behind its `predict_proba`, in their faster "
        "implementation (scaled, float64)."
    )

    @property
    def shapes(self) -> list[str]:
        return list(SHAPES)

    def workload(self, shape: str, threads: int) -> Workload:
        t, k = SHAPES[shape]
        generator = torch.Generator().manual_seed(0)
        initial = torch.randn(k, generator=generator).log_softmax(-1)
        transition = torch.randn(k, k, generator=generator).log_softmax(-1)
        emission = torch.randn(t, k, generator=generator)
        given = (initial, transition, emission)
        return Workload(
            contenders={
                OURS: partial(_lnz, *given),
                "dynamax": partial(_dynamax, *given),
                "hmmlearn": partial(_hmmlearn, *given),
            },
            reference=lambda: _reference(*(x.double() for x in given)),
            tolerance=1e-4,
            targets={"dynamax": 4.0},
        )


def _lnz(initial: Tensor, transition: Tensor, emission: Tensor) -> Contender:
    def call() -> tuple[Tensor, Tensor]:
        p = lnz.HMM(initial, transition, emission)
        return p.log_evidence, p.smoothed

    return Contender(call, lambda out: {"evidence": out[0].numpy(), "smoothed": out[1].numpy()}, "lnz")


def _dynamax(initial: Tensor, transition: Tensor, emission: Tensor) -> Contender:
    inference: Any = require("dynamax.hidden_markov_model.inference", "dynamax==1.0.3")
    jax: Any = require("jax", "jax==0.10.2")
    arrays = [jax.numpy.asarray(x.numpy()) for x in (initial.exp(), transition.exp(), emission)]
    smoother = jax.jit(inference.hmm_smoother)

    def call() -> Any:
        return jax.block_until_ready(smoother(*arrays))

    def read(posterior: Any) -> Numbers:
        return {
            "evidence": np.asarray(posterior.marginal_loglik),
            "smoothed": np.asarray(posterior.smoothed_probs),
        }

    return Contender(call, read, "dynamax")


def _hmmlearn(initial: Tensor, transition: Tensor, emission: Tensor) -> Contender:
    passes: Any = require("hmmlearn._hmmc", "hmmlearn==0.3.3")
    pi, a, x = (np.ascontiguousarray(v.double().numpy()) for v in (initial.exp(), transition.exp(), emission))

    def call() -> tuple[float, np.ndarray]:
        top = x.max(axis=1, keepdims=True)
        likelihood = np.exp(x - top)
        evidence, forward, scales = passes.forward_scaling(pi, a, likelihood)
        posterior = forward * passes.backward_scaling(pi, a, likelihood, scales)
        posterior /= posterior.sum(axis=1, keepdims=True)
        return evidence + top.sum(), posterior

    return Contender(call, lambda out: {"evidence": np.asarray(out[0]), "smoothed": out[1]}, "hmmlearn")


def _reference(initial: Tensor, transition: Tensor, emission: Tensor) -> Numbers:
    """Forward and backward probabilities in float64, rescaled at every step."""
    t, _ = emission.shape
    top = emission.amax(-1, keepdim=True)
    local, factor = (emission - top).exp(), transition.exp()
    forward, backward = torch.empty_like(local), torch.ones_like(local)
    evidence = top.sum()
    for step in range(t):
        alpha = local[step] * (forward[step - 1] @ factor if step else initial.exp())
        forward[step] = alpha / alpha.sum()
        evidence = evidence + alpha.sum().log()
    for step in range(t - 2, -1, -1):
        beta = factor @ (local[step + 1] * backward[step + 1])
        backward[step] = beta / beta.sum()
    smoothed = forward * backward
    return {"evidence": evidence.numpy(), "smoothed": (smoothed / smoothed.sum(-1, keepdim=True)).numpy()}
