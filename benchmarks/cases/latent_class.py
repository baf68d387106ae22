"""EM of latent class models from many starts."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

import lnz
from benchmarks.case import OURS, Contender, Numbers, Workload, require

SHAPES = {"118x7x3": (118, 7, 3), "2000x12x4": (2_000, 12, 4)}
STARTS = 50
TOLERANCE = 1e-9


class LatentClass:
    name = "latent-class"
    title = "Latent classes from 50 starts"
    summary = (
        "Rows of yes-or-no items drawn from a latent class model (rows x items x classes): EM from 50 random starts, "
        "each until an iteration raises ln L by less than a billionth of its size; the answer is the best ln L. "
        "StepMix is called once per start, which is also what its `n_init` does."
    )

    @property
    def shapes(self) -> list[str]:
        return list(SHAPES)

    def workload(self, shape: str, threads: int) -> Workload:
        rows, items, classes = SHAPES[shape]
        generator = torch.Generator().manual_seed(0)
        truth = lnz.latent_class(classes, [2] * items).drawn(torch.empty(0), generator)
        answers = truth.sample((rows,), generator=generator)[:, 1:].clone()
        return Workload(
            contenders={OURS: partial(_lnz, answers, classes), "StepMix": partial(_stepmix, answers.numpy(), classes)},
            reference=partial(_reference, answers.numpy().astype(float), classes),
            tolerance=1e-5,
            targets={"StepMix": 20.0},
        )


def _lnz(answers: Tensor, classes: int) -> Contender:
    def call() -> float:
        generator = torch.Generator().manual_seed(0)
        model = lnz.latent_class(classes, [2] * answers.shape[1])
        result = lnz.objectives.em(
            model.drawn(answers, generator),
            answers,
            restarts=STARTS,
            tolerance=TOLERANCE,
            max_iterations=2000,
            generator=generator,
        )
        return max(result.starts)

    return Contender(call, _read, "lnz")


def _stepmix(answers: np.ndarray, classes: int) -> Contender:
    stepmix: Any = require("stepmix.stepmix", "stepmix==3.0.0")

    def call() -> float:
        best = -np.inf
        for seed in range(STARTS):
            model = stepmix.StepMix(
                n_components=classes,
                measurement="binary",
                n_init=1,
                random_state=seed,
                abs_tol=0,
                rel_tol=TOLERANCE,
                max_iter=2000,
                verbose=0,
                progress_bar=0,
            )
            best = max(best, model.fit(answers).score(answers) * len(answers))
        return best

    return Contender(call, _read, "stepmix")


def _read(best: float) -> Numbers:
    return {"best": np.array([best])}


def _reference(x: np.ndarray, classes: int) -> Numbers:
    """The textbook's iterations in NumPy, a start at a time."""
    random, best = np.random.default_rng(0), -np.inf
    for _ in range(STARTS):
        share, yes = random.dirichlet(np.ones(classes)), random.uniform(size=(classes, x.shape[1]))
        before = -np.inf
        for _ in range(2000):
            with np.errstate(divide="ignore"):
                low = np.log(np.maximum(yes, 1e-300)), np.log(np.maximum(1 - yes, 1e-300))
                joint = x @ low[0].T + (1 - x) @ low[1].T + np.log(np.maximum(share, 1e-300))
            top = joint.max(1, keepdims=True)
            posterior = np.exp(joint - top)
            total = posterior.sum(1, keepdims=True)
            now = float((np.log(total) + top).sum())
            if now - before <= TOLERANCE * abs(now):
                break
            before, posterior = now, posterior / total
            size = posterior.sum(0)
            share, yes = size / len(x), posterior.T @ x / np.maximum(size, 1e-300)[:, None]
        best = max(best, now)
    return {"best": np.array([best])}
