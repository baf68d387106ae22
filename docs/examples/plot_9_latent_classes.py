r"""
Latent classes
==============

Raters look at the same cases, and nobody knows the truth. Latent class analysis supposes that there is one: a class
:math:`z` of each case, given which the raters err on their own,

.. math:: Q(y) = \sum_z Q(z) \prod_i Q(y_i \mid z).

It is a Bayesian network with one hidden variable, and it is learned by EM: how likely each case is in each class, then
the frequencies of each answer in each class, and again.
"""

import io
import math

import matplotlib.pyplot as plt
import torch

import lnz
from lnz import plot
from lnz.objectives import em

generator = torch.Generator().manual_seed(0)
RATERS = [f"rater {letter}" for letter in "ABCDEF"]

# %%
# Answers of six raters
# ---------------------
#
# Three kinds of cases: plain, doubtful, clear. Two raters are bold, and say yes to doubtful cases; two are cautious. A
# tenth of the answers is missing.

shares = torch.tensor([0.45, 0.25, 0.30], dtype=torch.float64)
yes = torch.tensor(
    [[0.05, 0.08, 0.03, 0.05, 0.02, 0.04], [0.9, 0.85, 0.5, 0.4, 0.1, 0.08], [0.97, 0.95, 0.9, 0.92, 0.8, 0.85]]
)
truth = lnz.BayesNet(
    [3] + [2] * 6, [[], *([0] for _ in RATERS)],
    [shares.log(), *(torch.stack((1 - column, column), -1).double().log() for column in yes.T)],
)  # fmt: skip
answers = truth.sample((600,), generator=generator)
kinds, answers = answers[:, 0], answers[:, 1:]
answers[torch.rand(answers.shape, generator=generator) < 0.1] = -100
patterns, index, counts = torch.unique(answers, dim=0, return_inverse=True, return_counts=True)
print(len(answers), "cases,", len(patterns), "different patterns of answers")

# %%
# How many classes?
# -----------------
#
# EM ends at a local maximum, so each number of classes starts several times from random tables. More classes always fit
# better; AIC and BIC charge for their parameters. Equal rows are counted together.

results = {}
for classes in (1, 2, 3, 4):
    start = lnz.latent_class(classes, [2] * 6, names=["class", *RATERS]).drawn(patterns, generator)
    results[classes] = em(
        start,
        patterns,
        weights=counts.double(),
        restarts=4 if classes > 1 else 1,
        max_iterations=60,
        tolerance=1e-6,
        generator=generator,
    )
    found = results[classes]
    print(
        f"{classes} classes: ln L {found.log_evidence[-1]:10.3f}  {found.parameters:2d} parameters  "
        f"AIC {found.aic:.1f}  BIC {found.bic:.1f}"
    )
best = min(results, key=lambda classes: results[classes].bic)
assert best == 3
assert all(results[k].log_evidence[-1] < results[k + 1].log_evidence[-1] + 0.1 for k in (1, 2, 3))

fig, axis = plt.subplots(figsize=(4.6, 2.6), layout="constrained")
for name in ("aic", "bic"):
    axis.plot(list(results), [getattr(found, name) for found in results.values()], marker="o", label=name.upper())
axis.set(xlabel="classes", xticks=list(results))
axis.legend()
plt.show()

# %%
# One class is independence: its ln L is that of each rater's own frequencies, in closed form.

independent = 0.0
for column in answers.T:
    ones, known = int((column == 1).sum()), int((column >= 0).sum())
    independent += ones * math.log(ones / known) + (known - ones) * math.log(1 - ones / known)
print(f"by hand: {independent:.4f}, by EM: {results[1].log_evidence[-1]:.4f}")
assert abs(independent - results[1].log_evidence[-1]) < 1e-2

# %%
# Some starts end elsewhere
# -------------------------
#
# The last ln L of every start with four classes; a single start might have been any of these.

print([round(value, 3) for value in sorted(results[4].starts, reverse=True)])

# %%
# What the classes are like
# -------------------------
#
# Classes have no names, and come in any order; by their size, it is the same in each run. The doubtful class is the one
# in which raters disagree.

model = results[3].model
order = model.log_cpts[0].argsort(descending=True).tolist()
profiles = {
    f"class {rank}: {100 * float(model.log_cpts[0][k].exp()):.0f} %": [each[k].exp() for each in model.log_cpts[1:]]
    for rank, k in enumerate(order, 1)
}
drawn = io.BytesIO(plot.png(plot.profiles(RATERS, [["no", "yes"]] * 6, profiles)))
fig, axis = plt.subplots(figsize=(6.1, 5.5), layout="constrained")
axis.imshow(plt.imread(drawn))
axis.axis("off")
plt.show()

# %%
# Who is in which class
# ---------------------
#
# P(class | answers), whatever is missing. Against the kinds that the rows were sampled from, which EM has never seen:

share = model.classes(patterns)[index][:, order]
table = torch.zeros(3, 3, dtype=torch.int64)
for kind, k in zip(kinds.tolist(), share.argmax(-1).tolist(), strict=True):
    table[kind, k] += 1
print("plain, doubtful, clear, by class:\n", table)
right = sum(sorted(table.max(0).values.tolist())) / len(answers)
print(f"{100 * right:.1f} % of the cases are where the kind says")
assert right > 0.85
print("certain of 95 % or more:", round(float((share.max(-1).values > 0.95).double().mean()), 3))
