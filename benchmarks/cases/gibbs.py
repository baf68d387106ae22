"""Gibbs sweeps of one large grid: a chain of many sweeps from a random start."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

import lnz
from benchmarks.case import OURS, Contender, Numbers, Workload, require

THRML = "thrml==0.1.4"


@dataclass(frozen=True)
class Shape:
    """A square grid with L labels, Potts coupling J, its own node scores or none, and sweeps per call."""

    side: int
    labels: int
    coupling: float
    fields: bool
    sweeps: int


SHAPES = {
    "ising-512x512-s100": Shape(512, 2, 0.6, False, 100),
    "ising-512x512-fields-s100": Shape(512, 2, 0.6, True, 100),
    "potts-256x256-L16-s50": Shape(256, 16, 1.0, False, 50),
    "potts-256x256-L16-fields-s50": Shape(256, 16, 1.0, True, 50),
}


class Gibbs:
    name = "gibbs"
    title = "Gibbs sweeps on grids"
    summary = (
        "One chain on a grid (HxW), the stated number of checkerboard sweeps (s) per call from the same random "
        "start, float32; equal neighbours score J (0.6 with two labels, 1 with 16), with or without node scores of "
        "their own. The answers are statistics of the last state: the share of equal neighbours, of each label, and "
        "the mean node score. The reference is the mean over 20 states of a plain NumPy sampler. thrml runs jitted."
    )

    @property
    def shapes(self) -> list[str]:
        return list(SHAPES)

    def workload(self, shape: str, threads: int) -> Workload:
        s = SHAPES[shape]
        generator = torch.Generator().manual_seed(0)
        node = torch.randn(s.side, s.side, s.labels, generator=generator) if s.fields else torch.zeros(1, 1, s.labels)
        start = torch.randint(s.labels, (s.side, s.side), generator=generator)
        thrml = _thrml_ising if s.labels == 2 else _thrml_potts
        return Workload(
            contenders={
                OURS: partial(_lnz, s, node, start),
                "thrml": partial(thrml, s, node, start),
                "plain torch": partial(_plain, s, node, start),
            },
            reference=lambda: _reference(s, node, start),
            tolerance=0.02,
            targets={"thrml": 20.0 if s.labels == 2 else 14.0},
        )


def _statistics(y: np.ndarray, node: Tensor) -> Numbers:
    """What the state says about the law; ``y`` is ``[H, W]``."""
    labels = node.shape[-1]
    scores = np.broadcast_to(node.numpy(), (*y.shape, labels))
    return {
        "equal neighbours": np.array([(y[:, 1:] == y[:, :-1]).mean(), (y[1:] == y[:-1]).mean()]),
        "labels": np.bincount(y.ravel(), minlength=labels) / y.size,
        "node scores": np.take_along_axis(scores, y[..., None], -1).mean(),
    }


def _lnz(s: Shape, node: Tensor, start: Tensor) -> Contender:
    graph = lnz.FactorGraph.grid(s.side, s.side, s.labels)
    p = lnz.MRF(graph, (node.flatten(0, 1), lnz.Weighted(torch.tensor([s.coupling]), torch.eye(s.labels))))
    method, generator = lnz.inference.Gibbs(), torch.Generator().manual_seed(1)
    chains = method.init(p.model, 1, labels=start.reshape(1, -1))

    def call() -> Tensor:
        return method.step(p.model, chains, s.sweeps, generator).labels

    return Contender(call, lambda y: _statistics(y.reshape(s.side, s.side).numpy(), node), "lnz")


def _thrml_ising(s: Shape, node: Tensor, start: Tensor) -> Contender:
    """Spins σ = 2y − 1: J·[y = y'] is J/2·σσ' and a constant, and node scores are biases of half their difference."""
    jnp, thrml = require("jax.numpy", THRML), require("thrml", THRML)
    ising = require("thrml.models.ising", THRML)
    nodes = np.array([thrml.SpinNode() for _ in range(s.side**2)], dtype=object).reshape(s.side, s.side)
    pairs = _pairs(nodes)
    bias = np.broadcast_to(((node[..., 1] - node[..., 0]) / 2).numpy(), nodes.shape)
    model = ising.IsingEBM(
        list(nodes.ravel()), pairs, jnp.asarray(bias.ravel()), jnp.full(len(pairs), s.coupling / 2), jnp.asarray(1.0)
    )
    blocks = [thrml.Block(list(nodes[mask])) for mask in _colours(s.side)]
    return _thrml_chain(s, node, start, ising.IsingSamplingProgram(model, blocks, []), blocks, jnp.bool_)


def _thrml_potts(s: Shape, node: Tensor, start: Tensor) -> Contender:
    jnp, thrml = require("jax.numpy", THRML), require("thrml", THRML)
    models, factor = require("thrml.models.discrete_ebm", THRML), require("thrml.factor", THRML)
    nodes = np.array([thrml.CategoricalNode() for _ in range(s.side**2)], dtype=object).reshape(s.side, s.side)
    pairs = _pairs(nodes)
    table = jnp.broadcast_to(s.coupling * jnp.eye(s.labels), (len(pairs), s.labels, s.labels))
    ends = [thrml.Block([pair[i] for pair in pairs]) for i in range(2)]
    factors = [models.SquareCategoricalEBMFactor(ends, table)]
    if s.fields:
        scores = jnp.asarray(node.reshape(-1, s.labels).numpy())
        factors.append(models.CategoricalEBMFactor([thrml.Block(list(nodes.ravel()))], scores))
    blocks = [thrml.Block(list(nodes[mask])) for mask in _colours(s.side)]
    samplers = [models.CategoricalGibbsConditional(s.labels) for _ in blocks]
    program = factor.FactorSamplingProgram(thrml.BlockGibbsSpec(blocks, []), samplers, factors, [])
    return _thrml_chain(s, node, start, program, blocks, jnp.uint8)


def _thrml_chain(s: Shape, node: Tensor, start: Tensor, program: Any, blocks: list[Any], dtype: Any) -> Contender:
    jax, equinox, thrml = require("jax", THRML), require("equinox", THRML), require("thrml", THRML)
    schedule = thrml.SamplingSchedule(n_warmup=s.sweeps, n_samples=1, steps_per_sample=1)
    colours = _colours(s.side)
    begin = [jax.numpy.asarray(start.numpy()[mask], dtype=dtype) for mask in colours]
    run = equinox.filter_jit(lambda key, state: thrml.sample_states(key, program, schedule, state, [], blocks))
    keys = iter(jax.random.split(jax.random.key(0), 100_000))

    def read(states: Any) -> Numbers:
        y = np.empty((s.side, s.side), dtype=np.int64)
        for mask, state in zip(colours, states, strict=True):
            y[mask] = np.asarray(state[0])
        return _statistics(y, node)

    return Contender(lambda: jax.block_until_ready(run(next(keys), begin)), read, "thrml")


def _pairs(nodes: np.ndarray) -> list[tuple[Any, Any]]:
    ends = ((nodes[:, :-1], nodes[:, 1:]), (nodes[:-1], nodes[1:]))
    return [pair for a, b in ends for pair in zip(a.ravel(), b.ravel(), strict=True)]


def _colours(side: int) -> list[np.ndarray]:
    parity = np.add.outer(np.arange(side), np.arange(side)) % 2
    return [parity == 0, parity == 1]


def _plain(s: Shape, node: Tensor, start: Tensor) -> Contender:
    """What one writes in an afternoon: both colours' conditionals as a one-hot sum, the Gumbel maximum, a mask."""
    masks = [torch.from_numpy(mask) for mask in _colours(s.side)]
    generator = torch.Generator().manual_seed(2)

    def call() -> Tensor:
        y = start.clone()
        for _ in range(s.sweeps):
            for mask in masks:
                hot = torch.nn.functional.one_hot(torch.nn.functional.pad(y, (1, 1, 1, 1), value=s.labels))
                hot = hot[..., : s.labels].float()
                around = hot[:-2, 1:-1] + hot[2:, 1:-1] + hot[1:-1, :-2] + hot[1:-1, 2:]
                noise = torch.empty_like(around).exponential_(generator=generator).log_()
                y = torch.where(mask, (node + s.coupling * around - noise).argmax(-1), y)
        return y

    return Contender(call, lambda y: _statistics(y.numpy(), node))


def _reference(s: Shape, node: Tensor, start: Tensor) -> Numbers:
    """The mean over states 5 sweeps apart, after twice the sweeps: inverse distribution functions in float64."""
    random, y, masks = np.random.default_rng(3), start.numpy().copy(), _colours(s.side)
    scores = np.broadcast_to(node.double().numpy(), (*y.shape, s.labels))
    labels, kept = np.arange(s.labels), []
    for sweep in range(s.sweeps + 100):
        for mask in masks:
            framed = np.pad(y, 1, constant_values=-1)
            energy = scores[mask].copy()
            for other in (framed[:-2, 1:-1], framed[2:, 1:-1], framed[1:-1, :-2], framed[1:-1, 2:]):
                energy += s.coupling * (other[mask][:, None] == labels)
            sums = np.exp(energy).cumsum(-1)
            y[mask] = (random.random((len(sums), 1)) * sums[:, -1:] >= sums).sum(-1)
        if sweep >= s.sweeps and sweep % 5 == 0:
            kept.append(_statistics(y, node))
    return {name: np.mean([numbers[name] for numbers in kept], 0) for name in kept[0]}
