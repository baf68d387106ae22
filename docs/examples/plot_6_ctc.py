r"""
CTC from the lattice up
=======================

A recording has many frames, its transcript few labels, and nobody says which frame belongs to which label.
Connectionist temporal classification sums over all ways to say it. Every frame :math:`t` chooses a class :math:`z_t`, a
label or the blank ⊥, on its own; a transcript is what is left of :math:`z` when the blanks are gone:

.. math:: Q(y) = \sum_{z:\, y(z) = y} \; \prod_t \mathrm{softmax}(x_t)[z_t].

This page draws the forward and backward tables for a word of two letters, in both of the topologies that the word
*gone* can mean.
"""

import matplotlib.pyplot as plt
import torch

import lnz

torch.manual_seed(0)
NAMES = ["⊥", "a", "b"]
T, y = 8, torch.tensor([1, 2])  # "ab" in eight frames
logits = torch.randn(T, 3, dtype=torch.float64)
logits[1:3, 1] += 2.0
logits[5:7, 2] += 2.0
q = logits.softmax(-1)

# %%
# Repeats stay: the lattice of a lecture
# --------------------------------------
#
# The simplest rule takes away blanks and nothing else. Then a state of the lattice is just *how many labels have been
# said*, :math:`n`, and each frame is a blank (stay at :math:`n`) or the next label (go to :math:`n + 1`):
#
# .. math:: F[n, t] = q_t(⊥)\, F[n, t-1] + q_t(y_n)\, F[n-1, t-1], \qquad
#           B[n, t] = q_{t+1}(⊥)\, B[n, t+1] + q_{t+1}(y_{n+1})\, B[n+1, t+1].
#
# Written as it reads:

N = len(y)
F, B = torch.zeros(N + 1, T + 1, dtype=torch.float64), torch.zeros(N + 1, T + 1, dtype=torch.float64)
F[0, 0] = B[N, T] = 1.0
for t in range(1, T + 1):
    for n in range(N + 1):
        F[n, t] = q[t - 1, 0] * F[n, t - 1] + (q[t - 1, y[n - 1]] * F[n - 1, t - 1] if n else 0.0)
for t in range(T - 1, -1, -1):
    for n in range(N + 1):
        B[n, t] = q[t, 0] * B[n, t + 1] + (q[t, y[n]] * B[n + 1, t + 1] if n < N else 0.0)


def draw(axis: plt.Axes, table: torch.Tensor, title: str, rows: list[str]) -> None:
    shown = table.log10().masked_fill(table == 0, torch.nan)
    axis.imshow(shown, cmap="viridis", aspect="auto")
    for r in range(table.shape[0]):
        for t in range(table.shape[1]):
            if table[r, t] > 0:
                written = f"{table[r, t]:.0e}".replace("e-0", "e-").replace("e+00", "")
                ink = "black" if table[r, t] > 1e-3 else "white"
                axis.text(t, r, written, ha="center", va="center", size=7, color=ink)
    axis.set(title=title, yticks=range(len(rows)), yticklabels=rows, xlabel="frames so far")


fig, axes = plt.subplots(1, 2, figsize=(10, 2.4), layout="constrained")
draw(axes[0], F, "forward F[n, t]", ["nothing", "a", "ab"])
draw(axes[1], B, "backward B[n, t]", ["nothing", "a", "ab"])
plt.show()

kept = lnz.CTC(logits, collapse_repeats=False)
print("F[N, T] =", float(F[N, T]), " B[0, 0] =", float(B[0, 0]), " lnz:", float(kept.log_prob(y).exp()))
assert torch.allclose(F[N, T], B[0, 0])
assert torch.allclose(F[N, T], kept.log_prob(y).exp())

# %%
# Repeats collapse: the lattice of Graves et al. 2006
# ---------------------------------------------------
#
# A spoken letter lasts for several frames, and a network likes to say so. The original rule first merges equal
# neighbours and then takes away blanks: *a a ⊥ b* is "ab" as well, and a double letter needs a blank in between. Blanks
# and labels are states of their own now: ⊥ a ⊥ b ⊥.

states = [0, 1, 0, 2, 0]
alpha, beta = torch.zeros(5, T + 1, dtype=torch.float64), torch.zeros(5, T + 1, dtype=torch.float64)
alpha[0, 0] = beta[3, T] = beta[4, T] = 1.0  # as if a blank came first


def goes(k: int, j: int) -> bool:
    """From state k to state j: stay, step, or skip the blank between labels that differ."""
    return j - k in (0, 1) or (j - k == 2 and j % 2 == 1 and states[j] != states[k])


for t in range(1, T + 1):
    for j in range(5):
        alpha[j, t] = q[t - 1, states[j]] * sum(alpha[k, t - 1] for k in range(j + 1) if goes(k, j))
for t in range(T - 1, -1, -1):
    for k in range(5):
        beta[k, t] = sum(q[t, states[j]] * beta[j, t + 1] for j in range(k, 5) if goes(k, j))

fig, axes = plt.subplots(1, 2, figsize=(10, 3), layout="constrained")
for axis, table, title in ((axes[0], alpha, "forward α"), (axes[1], beta, "backward β")):
    draw(axis, table, title, [NAMES[c] for c in states])
plt.show()

p = lnz.CTC(logits)
print("ln Q(ab) =", float(p.log_prob(y)), " by the table:", float((alpha[3, T] + alpha[4, T]).log()))
assert torch.allclose(p.log_prob(y).exp(), alpha[3:, T].sum())

# %%
# Which frame said what
# ---------------------
#
# The product of both tables, over Q(y), is the probability that an alignment passes through a state: the sufficient
# statistics of learning. :meth:`~lnz.CTC.alignments` is the distribution over alignments itself: its marginals, its
# best member (forced alignment), samples, entropy, and how many there are: :math:`\binom{T + U}{2U}` for U labels
# that do not repeat.

a = p.alignments(y)
occupied = torch.zeros(T, 3, dtype=torch.float64)
for k, c in enumerate(states):
    occupied[:, c] += alpha[k, 1:] * beta[k, 1:] / alpha[3:, T].sum()
assert torch.allclose(a.marginals, occupied)

fig, axes = plt.subplots(1, 3, figsize=(10, 2.2), sharey=True, layout="constrained")
for axis, table, title in (
    (axes[0], q, "softmax of each frame"),
    (axes[1], a.marginals, "P(z_t | ab)"),
    (axes[2], a.marginals - q, "gradient of ln Q(ab)"),
):
    axis.imshow(table.T, aspect="auto", cmap="RdBu_r" if table is not q else "Blues", vmin=-1, vmax=1)
    axis.set(title=title, xlabel="frame", yticks=range(3), yticklabels=NAMES)
plt.show()

best = a.argmax()
print("best alignment:", " ".join(NAMES[c] for c in best), "  spans in frames:", a.spans().tolist())
print("a sample:      ", " ".join(NAMES[c] for c in a.sample(generator=torch.Generator().manual_seed(1))))
print("entropy:", round(float(a.entropy()), 3), "nats;", round(float(a.log_count.exp())), "alignments")

# %%
# The gradient needs no log-softmax
# ---------------------------------
#
# The picture on the right is the gradient to the *logits*: what the frames would have to say given the transcript, less
# what they say. The softmax is part of the distribution, so any scores will do, and it sums to 0 at each frame.

leaf = logits.clone().requires_grad_()
loss = -lnz.CTC(leaf).log_prob(y)
loss.backward()
assert leaf.grad is not None
assert torch.allclose(leaf.grad, q - a.marginals)
print("largest sum over a frame:", float(leaf.grad.sum(-1).abs().max()))

# %%
# Reading it back
# ---------------
#
# The best transcript is not what the best classes spell: many alignments may add up. :meth:`~lnz.CTC.greedy` takes the
# best class of each frame, :meth:`~lnz.CTC.decode` searches over prefixes.

labels, log_q = p.decode(beam=16, k=3)
print("greedy:", "".join(NAMES[c] for c in p.greedy()))
for row, value in zip(labels.tolist(), log_q.tolist(), strict=True):
    print("beam:  ", "".join(NAMES[c] for c in row if c >= 0).ljust(4), f"Q = {torch.tensor(value).exp():.4f}")
