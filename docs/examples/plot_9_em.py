r"""
EM and the expected gradient are the same statistics
====================================================

Some variables of a Bayesian network are never observed. The likelihood of what is observed, :math:`y`, sums over them,

.. math:: Q(y) = \sum_z Q(z, y), \qquad Q(z, y) = \prod_i Q(v_i \mid \text{parents of } i),

and there are two ways up. The *expected gradient* of the log-likelihood by the logarithm of a table entry is the
expected number of times that the entry is used; *expectation–maximisation* sets each table to these numbers,
normalised. This page computes the numbers once, by both names, and follows both ways to the same top.

The network is a part of ALARM, a monitor of patients: twelve variables around three that no instrument shows.
"""

import matplotlib.pyplot as plt
import torch

import lnz
from lnz.objectives import em

NAMES = [
    "HYPOVOLEMIA", "LVFAILURE", "LVEDVOLUME", "STROKEVOLUME", "HISTORY", "CVP", "PCWP", "CO", "HR", "BP", "TPR", "HRBP",
]  # fmt: skip
HIDDEN = ["HYPOVOLEMIA", "LVEDVOLUME", "STROKEVOLUME"]
CARDS = [2, 2, 3, 3, 2, 3, 3, 3, 3, 3, 3, 3]
ABOVE = {
    "LVEDVOLUME": ["HYPOVOLEMIA", "LVFAILURE"],
    "STROKEVOLUME": ["HYPOVOLEMIA", "LVFAILURE"],
    "HISTORY": ["LVFAILURE"],
    "CVP": ["LVEDVOLUME"],
    "PCWP": ["LVEDVOLUME"],
    "CO": ["STROKEVOLUME", "HR"],
    "BP": ["CO", "TPR"],
    "HRBP": ["HR"],
}
parents = [[NAMES.index(parent) for parent in ABOVE.get(name, [])] for name in NAMES]
generator = torch.Generator().manual_seed(1)


def tables(sharpness: float) -> list[torch.Tensor]:
    shapes = [[CARDS[node] for node in (*above, v)] for v, above in enumerate(parents)]
    drawn = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return [(sharpness * scores).log_softmax(-1) for scores in drawn]


truth = lnz.BayesNet(CARDS, parents, tables(2.5), names=NAMES)
rows = truth.sample((200,), generator=generator)
rows[:, [NAMES.index(name) for name in HIDDEN]] = -100  # never observed
rows[torch.rand(rows.shape, generator=generator) < 0.1] = -100  # and a tenth of the rest is missing
print(truth, "\nthe first row:", rows[0].tolist())

# %%
# One set of numbers
# ------------------
#
# From tables drawn at random, the gradient of :math:`\ln Q(y)`, by autograd through exact inference, against the
# statistics that EM counts with. Every row has holes of its own; one plan serves them all.

start = lnz.BayesNet(CARDS, parents, tables(1.0), names=NAMES)
leaves = [table.clone().requires_grad_() for table in start.log_cpts]
net = lnz.BayesNet(CARDS, parents, leaves, normalised=False)
log_likelihood = net.condition(rows).log_partition.sum()
gradient = torch.autograd.grad(log_likelihood, leaves)
counts = start.expected_statistics(rows, reduce=True)
worst = max(float((one - two).abs().max()) for one, two in zip(gradient, counts, strict=True))
print(f"largest difference of {sum(each.numel() for each in counts)} numbers: {worst:.1e}")
assert worst < 1e-9

v = NAMES.index("CVP")
fig, axes = plt.subplots(1, 3, figsize=(9, 2.4), layout="constrained")
for axis, table, title in (
    (axes[0], start.log_cpts[v].exp(), "Q(CVP | LVEDVOLUME), at first"),
    (axes[1], counts[v], "expected counts = gradient"),
    (axes[2], counts[v] / counts[v].sum(-1, keepdim=True), "after one step of EM"),
):
    axis.imshow(table, cmap="Blues", vmin=0)
    for r in range(3):
        for c in range(3):
            axis.text(c, r, f"{float(table[r, c]):.3g}", ha="center", va="center")
    axis.set(title=title, xlabel="CVP", ylabel="LVEDVOLUME", xticks=range(3), yticks=range(3))
plt.show()

# %%
# The M step maximises what the gradient is a gradient of
# -------------------------------------------------------
#
# EM holds the counts :math:`N` fixed and maximises :math:`\sum N \ln Q`. At the tables that the counts were made with,
# its gradient is the same :math:`N`, and its maximum is known: :math:`Q \propto N`. That step never lowers the
# likelihood; a step along the gradient does not either, if it is small enough, and nobody says how small that is.

first = start.m_step(counts)
print("ln L:", float(start.log_prob(rows).sum()), "→", float(first.log_prob(rows).sum()))
assert first.log_prob(rows).sum() > start.log_prob(rows).sum()

# %%
# Two ways, one top
# -----------------
#
# The gradient needs free parameters, so the tables are softmaxes of scores. Half a count is added everywhere, as a
# prior: it keeps all tables off 0, where no gradient vanishes.

PRIOR = 0.5
by_em = em(start, rows, pseudocount=PRIOR, max_iterations=80, tolerance=1e-8)

scores = [table.clone().requires_grad_() for table in start.log_cpts]
curve: list[float] = []


def objective() -> torch.Tensor:
    net = lnz.BayesNet(CARDS, parents, [each.log_softmax(-1) for each in scores])
    return net.log_prob(rows).sum() + net.log_prior(PRIOR)


def loss() -> torch.Tensor:
    optimizer.zero_grad()
    value = -objective()
    value.backward()
    curve.append(-float(value.detach()))
    return value


optimizer = torch.optim.LBFGS(scores, max_iter=50, history_size=20, line_search_fn="strong_wolfe")
optimizer.step(loss)

fig, axis = plt.subplots(figsize=(6, 3), layout="constrained")
top = max(*by_em.objective, *curve)
axis.semilogy([top - value + 1e-4 for value in by_em.objective], label="EM")
axis.semilogy([top - value + 1e-4 for value in curve], label="expected gradient, L-BFGS")
axis.set(xlabel="passes over the rows", ylabel="below the top, nats")
axis.legend()
plt.show()
print("EM:", by_em.objective[-1], " gradient:", max(curve))
assert all(b >= a - 1e-9 * abs(a) for a, b in zip(by_em.objective, by_em.objective[1:], strict=False))
assert abs(by_em.objective[-1] - max(curve)) < 1.0

# %%
# At the top, counts and tables are in proportion: no further step of EM changes anything, and the gradient by the
# scores, :math:`N - Q \sum N`, is 0. The hidden states may come out in any order; what is observed is as likely
# whichever it is.

end = by_em.model.expected_statistics(rows, reduce=True)
left = max(
    float((n + PRIOR - (n + PRIOR).sum(-1, keepdim=True) * table.exp()).abs().max())
    for n, table in zip(end, by_em.model.log_cpts, strict=True)
)
print(f"largest entry of the gradient at the end of EM: {left:.3f}, of {len(rows)} rows")
test = truth.sample((1000,), generator=generator)
test[:, [NAMES.index(name) for name in HIDDEN]] = -100
for name, each in (("start", start), ("EM", by_em.model), ("truth", truth)):
    print(f"ln P per test row, {name}: {float(each.log_prob(test).mean()):.4f}")
assert by_em.model.log_prob(test).mean() > start.log_prob(test).mean()
