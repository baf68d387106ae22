r"""
Is my chain mixing?
===================

A sampler answers any question about any factor graph, in the long run. How long is long? This page runs five samplers
on one model whose exact answers are known, looks at their traces, and shows what lnz says when a chain has not mixed.

The model is Ising's: a 12 × 12 grid of spins, each up or down, neighbours like to agree with strength :math:`J`, and a
slight field that favours *up*. Below a critical temperature, :math:`J > \frac12 \ln(1 + \sqrt 2) \approx 0.44`, most
of the probability sits in two valleys, nearly all up and nearly all down, and a chain that moves one spin at a time
hardly ever crosses from one to the other.
"""

import time
import warnings

import matplotlib.pyplot as plt
import torch

import lnz
from lnz.inference import Gibbs, ParallelTempering, SwendsenWang, effective_sample_size, r_hat

SIDE = 12
graph = lnz.FactorGraph.grid(SIDE, SIDE, num_labels=2)


def ising(J: float, field: float = 0.002) -> lnz.MRF:
    nodes = torch.tensor([-field, field], dtype=torch.float64)
    return lnz.MRF(graph, (nodes, J * torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)))


# %%
# Traces
# ------
#
# A sampler is settings; its state goes in and comes out: ``init`` gives :class:`~lnz.inference.Chains`, ``step``
# advances them. Four chains start with all spins down and four with all spins up. We watch the magnetisation, the mean
# spin, after every sweep.

starts = torch.tensor([0] * 4 + [1] * 4)[:, None].expand(8, SIDE * SIDE)


def magnetisation(labels: torch.Tensor) -> torch.Tensor:
    return 2 * labels.double().mean(-1) - 1


def trace(sampler: lnz.inference.Sampler, p: lnz.MRF, sweeps: int) -> tuple[torch.Tensor, float]:
    """The magnetisation ``[sweeps, chains]``, and the seconds it took."""
    generator = torch.Generator().manual_seed(0)
    chains = sampler.init(p.model, len(starts), generator, starts)
    chains = sampler.step(p.model, chains, 1, generator)
    seen, start = [], time.perf_counter()
    for _ in range(sweeps):
        chains = sampler.step(p.model, chains, 1, generator)
        seen.append(magnetisation(chains.labels))
    return torch.stack(seen), time.perf_counter() - start


SWEEPS = 400
fig, axes = plt.subplots(1, 3, figsize=(9, 2.6), sharey=True, layout="constrained")
for axis, J in zip(axes, (0.3, 0.44, 0.5), strict=True):
    draws, _ = trace(Gibbs(), ising(J), SWEEPS)
    axis.plot(draws[:, :4], color="tab:blue", lw=0.5)
    axis.plot(draws[:, 4:], color="tab:orange", lw=0.5)
    axis.set(title=f"J = {J}: R-hat {r_hat(draws[SWEEPS // 4 :]):.2f}", xlabel="sweep")
axes[0].set_ylabel("magnetisation")
plt.show()

# %%
# On the left, where a chain started is forgotten within some sweeps. On the right each chain tells of its own valley.
# **R-hat** compares the spread between chains with the spread within each (`Vehtari et al. 2021
# <https://doi.org/10.1214/20-BA1221>`_, computed by ArviZ): near 1, all chains tell the same; above 1.05, do not trust
# them. It needs several chains, from starts that differ: a single chain in a single valley looks perfectly calm.
#
# You are told
# ------------
#
# As an inference method, a sampler runs its chains when marginals are first asked for. Where they have not mixed, it
# warns by name:

p = lnz.MRF(graph, ising(0.5).scores, Gibbs(chains=16, warmup=100, sweeps=200))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    estimate = p.node_marginals[:, 1]
print(caught[0].category.__name__, "-", caught[0].message)
print("mixed:", bool(p.diagnostics["mixed"]), "  R-hat:", round(float(p.diagnostics["r_hat"]), 3))

exact = ising(0.5).node_marginals[:, 1]
print(f"P(up), mean over nodes: exact {exact.mean():.3f}, estimated {estimate.mean():.3f}")
assert not p.diagnostics["mixed"]

# %%
# More of the same is not the remedy
# ----------------------------------
#
# The same budget of sweeps for four samplers, all exact in the long run:
#
# - **Gibbs**, a checkerboard at a time;
# - **tree-blocked Gibbs**, half of the grid at a time, as two combs, each drawn exactly;
# - **parallel tempering**, with replicas at higher temperatures, which cross and hand their labellings down;
# - **Swendsen–Wang**, which turns whole clusters of equal spins at once.

samplers = {
    "Gibbs": Gibbs(),
    "tree-blocked Gibbs": Gibbs(order="tree"),
    "parallel tempering": ParallelTempering(temperatures=(1.0, 1.1, 1.2, 1.35, 1.5)),
    "Swendsen–Wang": SwendsenWang(),
}
truth = float((2 * exact - 1).mean())
found = {name: trace(sampler, ising(0.5), SWEEPS) for name, sampler in samplers.items()}

print(f"exact mean magnetisation {truth:.3f}\n")
print(f"{'':20s} {'mean':>7s} {'R-hat':>7s} {'ESS':>7s} {'ESS/s':>8s}")
for name, (draws, seconds) in found.items():
    kept = draws[SWEEPS // 4 :]
    ess = float(effective_sample_size(kept))
    print(f"{name:20s} {kept.mean():7.3f} {r_hat(kept):7.2f} {ess:7.0f} {ess / seconds:8.0f}")

fig, axes = plt.subplots(1, 4, figsize=(10, 2.6), sharey=True, layout="constrained")
for axis, (name, (draws, _)) in zip(axes, found.items(), strict=True):
    axis.plot(draws[:200, :4], color="tab:blue", lw=0.5)
    axis.plot(draws[:200, 4:], color="tab:orange", lw=0.5)
    axis.axhline(truth, color="black", ls=":", lw=1)
    axis.set(title=name, xlabel="sweep")
axes[0].set_ylabel("magnetisation")
plt.show()

best = found["Swendsen–Wang"][0][SWEEPS // 4 :]
error = float(best.std() / effective_sample_size(best).sqrt())
assert r_hat(best) < 1.05
assert abs(float(best.mean()) - truth) < 4 * error

# %%
# The **effective sample size** says how many independent draws would tell the mean as well; divided by the time it
# took, it is what to compare samplers by. Swendsen–Wang needs the special form of this model; parallel tempering takes
# any model; tree blocks any model of pairs.
#
# How far off is each number?
# ---------------------------
#
# ``diagnostics`` holds a standard error per node and label. Where the chains have mixed, the exact marginals lie
# within three of them nearly everywhere (errors of nodes that influence each other go together, so that a few nodes
# beyond three errors come in groups):

p = lnz.MRF(graph, ising(0.3).scores, Gibbs(chains=64, warmup=200, sweeps=200))
exact = ising(0.3).node_marginals[:, 1]
estimate, error = p.node_marginals[:, 1], p.diagnostics["standard_error"][:, 1]
inside = ((estimate - exact).abs() < 3 * error).double().mean()
print(f"R-hat {float(p.diagnostics['r_hat']):.3f}, effective sample size {float(p.diagnostics['ess']):.0f}")
print(
    f"{100 * inside:.0f} % of {SIDE * SIDE} nodes within three standard errors, the worst off by "
    f"{(estimate - exact).abs().max():.3f}"
)
assert inside > 0.95

# %%
# What to do when chains do not mix
# ---------------------------------
#
# 1. Ask :class:`~lnz.inference.Exact` first: it refuses at once where it cannot.
# 2. More sweeps help where R-hat falls as sweeps are added. Where it does not, change the sampler: blocks, tempering,
#    clusters, or :class:`~lnz.inference.GibbsWithGradients` where few of many nodes matter.
# 3. For ln Z, use :class:`~lnz.inference.AnnealedImportance`, which brings its own error; chains alone have none.
# 4. For training, chains need not mix: :func:`~lnz.objectives.contrastive_divergence` starts them at the data.
