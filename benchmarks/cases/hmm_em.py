"""EM of hidden Markov models, on one long sequence."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import numpy as np
import torch

import lnz
from benchmarks.case import OURS, Contender, Numbers, Workload, require
from lnz.nn import CategoricalEmission, GaussianEmission, HiddenMarkovModel

SHAPES = {"gaussian-10000x32": "gaussian", "categorical-10000x32": "categorical"}
STEPS, STATES, DIMENSIONS, SYMBOLS = 10_000, 32, 4, 16
ITERATIONS = 5


class HMMEM:
    name = "hmm-em"
    title = "HMM learned by EM"
    summary = (
        f"One sequence of {STEPS:,} steps, {STATES} states: {ITERATIONS} iterations of EM from one start, with "
        f"Gaussian emissions of {DIMENSIONS} independent dimensions, or one of {SYMBOLS} symbols; the answers are the "
        "log evidence of each iteration. hmmlearn in both of its implementations, in logarithms (its default) and "
        "scaled. dynamax, compiled by XLA for the shape, learns symbols alike (of Gaussians its M step is another)."
    )

    @property
    def shapes(self) -> list[str]:
        return list(SHAPES)

    def workload(self, shape: str, threads: int) -> Workload:
        data = _Data(SHAPES[shape])
        return Workload(
            contenders={
                OURS: data.lnz,
                "hmmlearn": partial(data.hmmlearn, "log"),
                "hmmlearn scaled": partial(data.hmmlearn, "scaling"),
                **({} if data.gaussian else {"dynamax": data.dynamax}),
            },
            reference=data.reference,
            tolerance=1e-8,
            targets={"hmmlearn": 10.0, "hmmlearn scaled": 10.0} | ({} if data.gaussian else {"dynamax": 10.0}),
        )


class _Data:
    def __init__(self, kind: str) -> None:
        random = np.random.default_rng(0)
        self.gaussian = kind == "gaussian"
        self.initial = random.dirichlet(np.ones(STATES))
        self.transition = random.dirichlet(np.ones(STATES), STATES)
        self.means = random.normal(size=(STATES, DIMENSIONS))
        self.symbols = random.dirichlet(np.ones(SYMBOLS), STATES)
        states = random.integers(STATES, size=STEPS)
        if self.gaussian:
            self.x = self.means[states] + random.normal(size=(STEPS, DIMENSIONS))
        else:
            self.x = random.integers(SYMBOLS, size=STEPS)

    def lnz(self) -> Contender:
        def logs(table: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(table).log()

        x = torch.from_numpy(self.x)[None]

        def call() -> Any:
            emission = (
                GaussianEmission(torch.from_numpy(self.means))
                if self.gaussian
                else CategoricalEmission(logs(self.symbols))
            )
            model = HiddenMarkovModel(logs(self.initial), logs(self.transition), emission)
            return lnz.objectives.em(model, x, max_iterations=ITERATIONS, tolerance=0.0)

        return Contender(call, lambda result: {"evidence": np.array(result.log_evidence[:ITERATIONS])}, "lnz")

    def hmmlearn(self, implementation: str) -> Contender:
        models: Any = require("hmmlearn.hmm", "hmmlearn==0.3.3")
        logging.getLogger("hmmlearn").setLevel(logging.ERROR)
        common = {
            "n_components": STATES,
            "n_iter": ITERATIONS,
            "tol": -np.inf,
            "init_params": "",
            "implementation": implementation,
        }
        x = self.x if self.gaussian else self.x[:, None]

        def call() -> Any:
            if self.gaussian:
                model = models.GaussianHMM(
                    covariance_type="diag", min_covar=0.0, covars_prior=0.0, covars_weight=0.0, **common
                )
                model.means_, model.covars_ = self.means.copy(), np.ones_like(self.means)
            else:
                model = models.CategoricalHMM(n_features=SYMBOLS, **common)
                model.emissionprob_ = self.symbols.copy()
            model.startprob_, model.transmat_ = self.initial.copy(), self.transition.copy()
            return model.fit(x)

        return Contender(call, lambda model: {"evidence": np.array(model.monitor_.history)[:ITERATIONS]}, "hmmlearn")

    def dynamax(self) -> Contender:
        models: Any = require("dynamax.hidden_markov_model", "dynamax==1.0.3")
        jax: Any = require("jax", "jax==0.10.2")
        model = models.CategoricalHMM(
            STATES,
            emission_dim=1,
            num_classes=SYMBOLS,
            initial_probs_concentration=1.0,
            transition_matrix_concentration=1.0,
            emission_prior_concentration=1.0,
        )
        with jax.enable_x64(True):  # in float32 its tables end as NaN
            start, kinds = model.initialize(
                initial_probs=jax.numpy.asarray(self.initial),
                transition_matrix=jax.numpy.asarray(self.transition),
                emission_probs=jax.numpy.asarray(self.symbols[:, None]),
            )
            x = jax.numpy.asarray(self.x[None, :, None])

        @jax.jit
        def step(params: Any, memory: Any) -> Any:
            statistics, evidence = jax.vmap(partial(model.e_step, params))(x)
            return *model.m_step(params, kinds, statistics, memory), evidence.sum()

        def call() -> list[Any]:
            with jax.enable_x64(True):
                params, memory, found = start, model.initialize_m_step_state(start, kinds), []
                for _ in range(ITERATIONS):
                    params, memory, evidence = step(params, memory)
                    found.append(evidence)
                return jax.block_until_ready(found)

        return Contender(call, lambda found: {"evidence": np.array([float(one) for one in found])}, "dynamax")

    def reference(self) -> Numbers:
        """The textbook's iterations, scaled, in NumPy."""
        initial, transition = self.initial, self.transition
        means, variances, symbols = self.means, np.ones_like(self.means), self.symbols
        evidence = []
        for _ in range(ITERATIONS):
            if self.gaussian:
                away = self.x[:, None] - means
                local = np.exp(-0.5 * (away**2 / variances + np.log(2 * np.pi * variances)).sum(-1))
            else:
                local = symbols.T[self.x.astype(int)]
            forward, backward = np.empty_like(local), np.empty_like(local)
            scale = np.empty(STEPS)
            for t in range(STEPS):
                forward[t] = local[t] * (forward[t - 1] @ transition if t else initial)
                scale[t] = forward[t].sum()
                forward[t] /= scale[t]
            backward[-1] = 1.0
            for t in range(STEPS - 2, -1, -1):
                backward[t] = transition @ (local[t + 1] * backward[t + 1]) / scale[t + 1]
            evidence.append(float(np.log(scale).sum()))
            share = forward * backward
            pairs = transition * (forward[:-1].T @ (local[1:] * backward[1:] / scale[1:, None]))
            initial, transition = share[0], pairs / pairs.sum(1, keepdims=True)
            size = share.sum(0)[:, None]
            if self.gaussian:
                means = share.T @ self.x / size
                variances = np.stack([w @ (self.x - m) ** 2 for w, m in zip(share.T, means, strict=True)]) / size
            else:
                symbols = np.stack([share[self.x == v].sum(0) for v in range(SYMBOLS)], 1) / size
        return {"evidence": np.array(evidence)}
