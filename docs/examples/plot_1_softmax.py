r"""
From softmax to exponential softmax
===================================

A classifier ends in a softmax, and the gradient of its loss with respect to the scores is :math:`p - y`:
probabilities minus the truth. Two classifiers whose answers depend on each other end in a softmax over *pairs* of
labels, and the gradient is the same, with probabilities of the parts in place of :math:`p`. This page computes both,
once by hand and once by PyTorch, and asserts that they agree.
"""

import matplotlib.pyplot as plt
import torch
from matplotlib.patches import FancyArrowPatch
from sklearn.datasets import load_digits

import lnz

INK, FLOW, PALE = "#1f2933", "#c2410c", "#e8eef4"
plt.rcParams.update({"font.size": 10, "axes.edgecolor": "#9aa5b1", "axes.titlesize": 10, "image.cmap": "Greys"})

# %%
# One node: the softmax
# ---------------------
#
# The input :math:`x` is a handwritten digit of 8 × 8 pixels, the parameters are a matrix :math:`w`, the scores are
# :math:`l = w x`, the probabilities :math:`p = \mathrm{softmax}(l)` and the loss is :math:`\mathcal L = -\ln p_y`.

digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float64).flatten(1) / 16
labels = torch.tensor(digits.target)

generator = torch.Generator().manual_seed(0)
x, y = images[3], labels[3]
w = (0.1 * torch.randn(10, 64, dtype=torch.float64, generator=generator)).requires_grad_()

l = w @ x
p = lnz.Softmax(l)
loss = lnz.objectives.nll(p, y)
assert torch.allclose(loss, -l.softmax(-1)[y].log())
print(f"gold digit {y}, its probability {p.marginals[y]:.4f}, loss {loss:.4f}")

# %%
# Each step is a function with local gradients: one with respect to its input, and one with respect to its parameters
# where it has any. Back-propagation starts from :math:`\partial\mathcal L/\partial\mathcal L = 1` and walks the graph
# against its arrows, multiplying the gradient that arrives by the local one. Between vectors the local gradient is a
# Jacobian matrix, and the product is a *vector–Jacobian product*.


def draw(size, boxes, edges):
    """Draw a computation graph: boxes ``{name: (x, y, text)}``, and edges ``(from, to, gradient, (dx, dy), side)``.

    Solid arrows are the forward pass, dashed ones the gradients that flow back, on one side of the forward arrow.
    """
    fig, ax = plt.subplots(figsize=size, layout="constrained")
    ax.set_axis_off()
    xs, ys = [box[0] for box in boxes.values()], [box[1] for box in boxes.values()]
    ax.set(xlim=(min(xs) - 0.5, max(xs) + 1.0), ylim=(min(ys) - 0.5, max(ys) + 0.5))
    box = {"boxstyle": "round,pad=0.5", "facecolor": PALE, "edgecolor": INK}
    texts = {
        name: ax.text(x, y, text, ha="center", va="center", color=INK, fontsize=12, bbox=box)
        for name, (x, y, text) in boxes.items()
    }
    fig.canvas.draw()  # places the boxes, which the arrows end at
    for a, b, gradient, (dx, dy), side in edges:
        flows = [(a, b, INK, "-")] + ([(b, a, FLOW, "--")] if gradient else [])
        for tail, head, color, style in flows:
            ends = {"patchA": texts[tail].get_bbox_patch(), "patchB": texts[head].get_bbox_patch()}
            curve = f"arc3,rad={0.12 * side if gradient else 0}"
            look = {"arrowstyle": "-|>", "mutation_scale": 13, "shrinkA": 2, "shrinkB": 2, "color": color}
            at = boxes[tail][:2], boxes[head][:2]
            ax.add_patch(FancyArrowPatch(*at, connectionstyle=curve, linestyle=style, **look, **ends))
        x, y = (boxes[a][0] + boxes[b][0]) / 2 + dx, (boxes[a][1] + boxes[b][1]) / 2 + dy
        ax.text(x, y, gradient, ha="center", va="center", color=FLOW, fontsize=11)
    plt.show()


draw(
    (8.5, 2.8),
    {
        "x": (0, 1, "$x$"),
        "w": (0, -1, "$w$"),
        "l": (2.4, 0, r"$l = w\,x$"),
        "p": (5.0, 0, r"$p = \mathrm{softmax}(l)$"),
        "L": (7.6, 0, r"$\mathcal{L} = -\ln p_y$"),
    },
    [
        ("x", "l", r"$w^\top(p - y)$", (0.5, 0.4), 1),
        ("w", "l", r"$(p - y)\,x^\top$", (0.5, -0.4), -1),
        ("l", "p", "$p - y$", (0, -0.4), -1),
        ("p", "L", "$-1_y / p_y$", (0, -0.4), -1),
    ],
)

# %%
# The steps of the walk, by hand. The Jacobian of the softmax is :math:`\partial p_a / \partial l_j = p_a (1[a{=}j] -
# p_j)`.

with torch.no_grad():
    probabilities = l.softmax(-1)
    onehot = torch.nn.functional.one_hot(y, 10).double()

    jacobian = probabilities.diag() - probabilities.outer(probabilities)  # ∂p/∂l
    at_p = -onehot / probabilities  # ∂L/∂p
    at_l = at_p @ jacobian  # a vector–Jacobian product
    at_w = at_l.outer(x)  # the local gradient of w x to its parameters …
    at_x = w.T @ at_l  # … and to its input

assert torch.allclose(jacobian, torch.autograd.functional.jacobian(lambda s: s.softmax(-1), l.detach()))
assert torch.allclose(at_l, probabilities - onehot)
assert torch.allclose(at_w, (probabilities - onehot).outer(x))

loss.backward()
assert torch.allclose(at_w, w.grad)
print(f"largest difference between w.grad and (p − y) xᵀ: {(w.grad - at_w).abs().max():.1e}")

# %%
# So a step of gradient descent is :math:`w \leftarrow w - \eta\,(p - y)\,x^\top`: every class moves along the input,
# towards it if it is the gold one and away from it in proportion to the probability it was given. That is exactly
# what PyTorch's optimiser does, and the loss on this digit goes down.

eta = 0.5
by_hand = w.detach() - eta * (probabilities - onehot).outer(x)
torch.optim.SGD([w], lr=eta).step()
assert torch.allclose(w, by_hand)

after = lnz.objectives.nll(lnz.Softmax(w @ x), y)
assert after < loss
print(f"loss before the step {loss:.4f}, after it {after:.4f}")

# %%
# Two nodes and an edge: the exponential softmax
# ----------------------------------------------
#
# Now two digits at a time, of which the second is always one more than the first (nine is followed by zero), and the
# second is printed badly: half its pixels are lost. Both digits are scored by the same :math:`w`, which gives *node
# scores* :math:`s^N[n, \ell]`, and a table of *edge scores* :math:`s^E[\ell, \ell']` says which labels go together. A
# labelling :math:`\hat y` is a pair, its score is a sum over parts, and its probability a softmax over all 100 pairs:
#
# .. math::
#     s(\hat y) = s^N[1, \hat y_1] + s^N[2, \hat y_2] + s^E[\hat y_1, \hat y_2], \qquad
#     P(\hat y) = \frac{e^{s(\hat y)}}{Z}, \qquad \mathcal L = \ln Z - s(y).


def pairs(rows):
    """Pairs of images ``[R, 2, 64]`` and their labels ``[R, 2]``: a digit, and a badly printed one that follows it."""
    follows = labels[rows] == (labels[rows, None] + 1) % 10
    second = rows[follows.double().multinomial(1, generator=generator)[:, 0]]
    lost = torch.rand(len(rows), 64, generator=generator) < 0.5
    both = torch.stack((images[rows], images[second].masked_fill(lost, 0)), 1)
    return both, torch.stack((labels[rows], labels[second]), 1)


shuffled = torch.randperm(len(labels), generator=generator)
train, train_gold = pairs(shuffled[:1000])
test, test_gold = pairs(shuffled[1000:])

graph = lnz.FactorGraph.pairwise(2, 10, edges=torch.tensor([[0, 1]]))
node_scores = (train[0] @ w.detach().T).requires_grad_()  # [2, 10]
edge_scores = torch.randn(1, 10, 10, dtype=torch.float64, generator=generator).requires_grad_()  # one edge's [10, 10]

pair = lnz.MRF(graph, (node_scores, edge_scores))
loss = lnz.objectives.nll(pair, train_gold[0])

# %%
# Written out, this is an ordinary softmax over a table of 100 scores. A graph of n nodes has :math:`10^n` of them;
# lnz never writes that table, and gets the same numbers from dynamic programming.

table = node_scores[0, :, None] + node_scores[1, None, :] + edge_scores[0]
joint = table.flatten().softmax(-1).reshape(10, 10).detach()
first, second = train_gold[0]
assert torch.allclose(loss, -joint[first, second].log())
assert torch.allclose(pair.log_partition, table.flatten().logsumexp(-1))

# %%
# The *model marginals theorem*: the gradient with respect to the score of a part is the probability of that part,
# minus one where it is the gold one. For one node that is :math:`p - y`, and here it is
#
# .. math::
#     \frac{\partial\mathcal L}{\partial s^N[n, \ell]} = P(\hat y_n = \ell) - 1[y_n = \ell], \qquad
#     \frac{\partial\mathcal L}{\partial s^E[\ell, \ell']} = P(\hat y_1 = \ell \wedge \hat y_2 = \ell')
#     - 1[y = (\ell, \ell')].

loss.backward()
node_marginals = torch.stack((joint.sum(1), joint.sum(0)))
node_onehot = torch.nn.functional.one_hot(train_gold[0], 10)
edge_onehot = node_onehot[0].outer(node_onehot[1])

assert torch.allclose(pair.marginals[0], node_marginals)
assert torch.allclose(pair.marginals[1][0], joint)
assert torch.allclose(node_scores.grad, node_marginals - node_onehot)
assert torch.allclose(edge_scores.grad[0], joint - edge_onehot)

draw(
    (8.5, 3.8),
    {
        "x1": (0, 2, "$x_1$"),
        "x2": (0, -2, "$x_2$"),
        "w": (0, 0, "$w$"),
        "s1": (2.4, 2, r"$s^N[1] = w\,x_1$"),
        "s2": (2.4, -2, r"$s^N[2] = w\,x_2$"),
        "e": (2.4, 0, "$s^E$"),
        "L": (7.6, 0, r"$\mathcal{L} = \ln Z - s(y)$"),
    },
    [
        ("x1", "s1", "", (0, 0), 0),
        ("w", "s1", "", (0, 0), 0),
        ("x2", "s2", "", (0, 0), 0),
        ("w", "s2", "", (0, 0), 0),
        ("s1", "L", r"$P(\hat y_1 = \ell) - 1[y_1 = \ell]$", (1.3, 0.75), 1),
        ("e", "L", r"$P(\hat y) - 1[\hat y = y]$", (-0.9, -0.5), -1),
        ("s2", "L", r"$P(\hat y_2 = \ell) - 1[y_2 = \ell]$", (1.3, -0.75), -1),
    ],
)

# %%
# Learning what goes together
# ---------------------------
#
# Gradient descent on 1,000 pairs, by that gradient: ``backward`` carries it through the scores to the parameters,
# here :math:`w` and the edge table. Beside it the same classifier without the edge, which is an independent softmax
# for each digit.


def fit(with_edge, steps=200, eta=2.0):
    w = torch.zeros(10, 64, dtype=torch.float64, requires_grad=True)
    edge = torch.zeros(10, 10, dtype=torch.float64, requires_grad=with_edge)
    parameters = [w, edge] if with_edge else [w]
    for _ in range(steps):
        loss = lnz.objectives.nll(lnz.MRF(graph, (train @ w.T, edge)), train_gold)
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.data -= eta * gradient
    return lnz.MRF(graph, (test @ w.detach().T, edge.detach())), edge.detach()


independent, _ = fit(with_edge=False)
structured, learned = fit(with_edge=True)

print(f"{len(test)} unseen pairs       first digit   second digit   −ln P(pair)")
accuracy = {}
for name, model in (("independent softmax", independent), ("exponential softmax", structured)):
    accuracy[name] = (model.argmax() == test_gold).double().mean(0)
    clear, spoilt = accuracy[name].tolist()
    print(f"{name}        {clear:.3f}          {spoilt:.3f}         {-model.log_prob(test_gold).mean():.3f}")

assert (accuracy["exponential softmax"] > accuracy["independent softmax"]).all()
assert structured.log_prob(test_gold).mean() > independent.log_prob(test_gold).mean()

# %%
# The table has learned that nine is followed by zero and every other digit by the next. Below it is one of the test
# pairs on which the independent softmax is wrong: the spoilt digit alone is ambiguous, and its neighbour decides.

case = int(((independent.argmax() != test_gold).any(-1) & (structured.argmax() == test_gold).all(-1)).nonzero()[0])

fig, axes = plt.subplots(1, 4, figsize=(10, 2.7), layout="constrained", width_ratios=(1.15, 0.8, 0.8, 1.5))
picture = axes[0].imshow(learned, cmap="RdBu_r", vmin=-learned.abs().max(), vmax=learned.abs().max())
axes[0].set(
    title="learned edge scores", xlabel="second digit", ylabel="first digit", xticks=range(10), yticks=range(10)
)
axes[0].tick_params(labelsize=7)
fig.colorbar(picture, ax=axes[0], shrink=0.8)
for n in range(2):
    axes[1 + n].imshow(test[case, n].reshape(8, 8))
    axes[1 + n].set(title=f"{('first', 'second')[n]} digit: {test_gold[case, n]}", xticks=[], yticks=[])
for offset, color, name, model in (
    (-0.2, "#9aa5b1", "independent", independent),
    (0.2, FLOW, "with the edge", structured),
):
    axes[3].bar(torch.arange(10) + offset, model.marginals[0][case, 1], width=0.4, color=color, label=name)
axes[3].set(title="marginals of the second digit", xticks=range(10), ylim=(0, 1))
axes[3].spines[["top", "right"]].set_visible(False)
axes[3].legend(frameon=False, fontsize=8)
plt.show()
