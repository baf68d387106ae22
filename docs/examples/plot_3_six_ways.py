r"""
Six ways to train one model
===========================

Maximum likelihood needs the gradient of :math:`\ln Z`, the model's marginals, and on a grid of pixels those are out of
reach. There are six classical ways around that: approximate :math:`\ln Z` by messages, draw the marginals as samples,
replace the likelihood by one that needs no :math:`Z`, let a Markov chain take a single step from gold, or leave
likelihood aside and train the best labelling itself, by label adjustment or by a hinge.

Here one network is trained on the same scenes by each of them, with as many steps. Changing the way is changing one
call. On a crop that is small enough for exact inference, each gradient is held against the exact one.
"""

import time
import warnings
from collections.abc import Callable

import matplotlib.pyplot as plt
import torch
from matplotlib.colors import ListedColormap
from torch import Tensor

import lnz
from lnz.inference import BeliefPropagation, Chains, Gibbs, MeanField, TreeReweighted
from lnz.inference.map.trws import TRWS
from lnz.metrics import hamming, iou
from lnz.nn import ConvNet, GridMRF
from lnz.objectives import contrastive_divergence, hinge, label_adjustment, nll, pseudolikelihood
from lnz.tasks.segment.measures import Measures
from lnz.tasks.segment.scenes import SceneDataset, Scenes

warnings.simplefilter("ignore", lnz.ConvergenceWarning)

# %%
# Scenes and a network
# --------------------
#
# Ink against paper, in noise and under grey stripes. The network sees 5 × 5 pixels around each pixel, and ends in a
# Markov random field over the grid with one table of edge scores per direction.

scenes = Scenes(train=48, val=24, size=24, digits=2, scale=2, noise=0.6, stripes=2, stripe_width=2)
train, val = SceneDataset(scenes, "train", 0), SceneDataset(scenes, "val", 0)
images, gold = (torch.stack(part) for part in zip(*train.scenes, strict=True))
unseen, unseen_gold = (torch.stack(part) for part in zip(*val.scenes, strict=True))


def network() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(ConvNet(1, 8, (1, 1)), GridMRF(8, 2, inference=BeliefPropagation(20, 1e-3)))


p = network()(images[:8])
print(p)
print(f"labellings of one image: e^{p.graph.log_num_labellings:.0f}")

# %%
# The ways
# --------
#
# ``p`` is the distribution that the network returns for a batch of images, ``y`` their gold labels ``[B, N]``. An
# inference method is an argument of the distribution: ``under`` gives it another one.
#
# The value of a loss means something for the first three. Of the others only the gradient does; it is that of the
# scores of sampled or best labellings, minus that of gold.

draws = torch.Generator().manual_seed(1)


def under(p: lnz.MRF, inference: lnz.inference.Method) -> lnz.MRF:
    return lnz.MRF(p.graph, p.scores, inference)


def persistent(p: lnz.MRF, y: Tensor, which: Tensor) -> Tensor:
    """Every image has a model of its own, and so a chain of its own that goes on whenever the image comes again."""
    chains = Chains(memory[None, which])
    loss = contrastive_divergence(p, y, chains=chains, generator=draws)
    memory[which] = chains.labels[0]
    return loss


memory = gold.flatten(1).clone()
Way = Callable[[lnz.MRF, Tensor, Tensor], Tensor]
ways: dict[str, Way] = {
    "ln Z by belief propagation": lambda p, y, which: nll(p, y),
    "ln Z by trees (upper bound)": lambda p, y, which: nll(under(p, TreeReweighted(20, 1e-3)), y),
    "ln Z by mean field (lower bound)": lambda p, y, which: nll(under(p, MeanField(20, 1e-3)), y),
    "samples": lambda p, y, which: nll(under(p, Gibbs(chains=4, warmup=20)), y, generator=draws),
    "pseudolikelihood": lambda p, y, which: pseudolikelihood(p, y),
    "contrastive divergence": lambda p, y, which: contrastive_divergence(p, y, generator=draws),
    "the same, persistent": persistent,
    "label adjustment, IoU": lambda p, y, which: label_adjustment(under(p, TRWS(20)), y, iou(2), y.shape[1] / 10),
    "hinge, wrong pixels": lambda p, y, which: hinge(under(p, TRWS(20)), y, hamming),
}

# %%
# Training
# --------
#
# The same initial weights, batches and number of steps for all. What differs is judged alike: labels are those of the
# largest beliefs, except for the last two ways, which train the best labelling and are judged by it.

drawn = ("samples", "contrastive divergence", "the same, persistent")
decoded = ("label adjustment, IoU", "hinge, wrong pixels")


def train_by(way: Way, epochs: int = 6, batch: int = 8) -> tuple[torch.nn.Sequential, float]:
    """The trained network, and the median time of a step in seconds."""
    model, order = network(), torch.Generator().manual_seed(2)
    draws.manual_seed(1)
    memory.copy_(gold.flatten(1))
    steps = epochs * len(images) // batch
    optimizer = torch.optim.Adam(model.parameters(), 0.03)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.03, total_steps=steps)
    seconds = []
    for _ in range(epochs):
        for which in torch.randperm(len(images), generator=order).split(batch):
            started = time.perf_counter()
            loss = way(model(images[which]), gold[which].flatten(1), which) / gold[0].numel()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            seconds.append(time.perf_counter() - started)
    return model.eval(), torch.tensor(seconds).median().item()


@torch.no_grad()
def judged(model: torch.nn.Sequential, decodes: bool) -> tuple[Tensor, dict[str, float]]:
    """Labels ``[B, H, W]`` of the unseen scenes, and their measures."""
    p = model(unseen)
    beliefs = p.node_marginals
    labels = under(p, TRWS(20)).argmax() if decodes else beliefs.argmax(-1)
    labels = labels.unflatten(1, unseen.shape[-2:])
    measures = Measures(2)
    measures.update(beliefs.transpose(1, 2).unflatten(2, unseen.shape[-2:]), unseen_gold, labels)
    return labels, {name: float(value) for name, value in measures.compute().items()}


trained, labels, measured, seconds = {}, {}, {}, {}
for name, way in ways.items():
    trained[name], seconds[name] = train_by(way)
    labels[name], measured[name] = judged(trained[name], decodes=name in decoded)

# %%
# How right is each gradient?
# ---------------------------
#
# A crop of 4 × 6 pixels has 2\ :sup:`24` labellings and a treewidth of 4: ``lnz.MRF`` without an inference method is
# exact there. The scores are those of the network that belief propagation has trained, and its gradient with respect
# to them, :math:`P(y[\alpha] = \tilde y) - \mathbf{1}[y[\alpha] = \tilde y]`, is what the others are held against.
# Samples and chains are random: their error is that of one gradient, and of the mean of 60, which leaves the bias.

crop, crop_gold = images[:1, :, 8:12, 8:14], gold[:1, 8:12, 8:14].flatten(1)
assert 0 < crop_gold.float().mean() < 1
with torch.no_grad():
    scores = [score.double() for score in trained["ln Z by belief propagation"](crop).scores]
graph = lnz.FactorGraph.grid(4, 6, 2, by_direction=True)


def gradient(way: Way) -> Tensor:
    """The gradient with respect to node and edge scores, in one vector."""
    leaves = [score.clone().requires_grad_() for score in scores]
    loss = way(lnz.MRF(graph, leaves, BeliefPropagation(200, 1e-6, damping=0.3)), crop_gold, torch.tensor([0]))
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, leaves)])


exact = gradient(lambda p, y, which: nll(under(p, lnz.inference.Exact()), y))
errors, bias, cosine = {}, {}, {}
for name, way in ways.items():
    memory = crop_gold.clone()
    draws.manual_seed(3)
    found = torch.stack([gradient(way) for _ in range(60 if name in drawn else 1)])
    errors[name] = ((found - exact).norm(dim=-1).mean() / exact.norm()).item()
    bias[name] = ((found.mean(0) - exact).norm() / exact.norm()).item()
    cosine[name] = torch.nn.functional.cosine_similarity(found.mean(0), exact, dim=0).item()

# %%
# The table
# ---------
#
# All ways to approximate the likelihood end near each other here: the couplings that these scenes ask for are weak,
# and each of those gradients points the right way (cosine near 1). They differ in bias, noise and time. Belief
# propagation is nearly exact at these scores; mean field and the bound from trees are off by more, without noise.
# Contrastive divergence takes one sweep and has bias and noise; 20 sweeps from random starts have noise alone, and
# little of it on average.
#
# The last two follow the gradient of another aim, and need not point where the likelihood grows: that of label
# adjustment is 0 on this crop, whose best labelling an error weighted by so small an :math:`\epsilon` does not change.
# Its labels have the best IoU of all, which is what it trains; its beliefs were never trained, and are further off.
# With ten times this :math:`\epsilon` the better labelling is nearly always gold, and the IoU no better than that of
# the likelihood.

print(f"{'':34}mIoU %   NLL    ECE   ms/step   gradient error: one, mean of 60   cosine")
for name in ways:
    m = measured[name]
    print(
        f"{name:34} {100 * m['miou']:5.1f}  {m['nll']:.3f}  {m['ece']:.3f} {1000 * seconds[name]:8.1f}"
        f"{100 * errors[name]:20.1f} % {100 * bias[name]:9.1f} % {cosine[name]:12.3f}"
    )

# %%
# What they make of the first scenes:

shown = ["ln Z by belief propagation", "samples", "pseudolikelihood", "contrastive divergence", *decoded]
columns = {"image": unseen[:, 0], "gold": unseen_gold, **{name: labels[name] for name in shown}}
fig, axes = plt.subplots(3, len(columns), figsize=(1.35 * len(columns), 4.6), layout="constrained")
for column, (name, pictures) in zip(axes.T, columns.items(), strict=True):
    colours = "Greys" if name == "image" else ListedColormap(["white", "#33415c"])
    for axis, picture in zip(column, pictures, strict=False):
        axis.imshow(picture, cmap=colours)
        axis.set(xticks=[], yticks=[])
    column[0].set_title(name.replace(" by ", " by\n").replace(", ", ",\n").replace("ive div", "ive\ndiv"), fontsize=8)
plt.show()

# %%
# What a full table says, on more scenes and seeds and on street scenes, is on the page of results; the command is
#
# .. code-block:: sh
#
#     lnz fit segment --objective all

likelihoods = [name for name in ways if name not in decoded]
assert all(cosine[name] > 0.9 for name in likelihoods)
assert errors["ln Z by belief propagation"] < 0.1
assert bias["samples"] < errors["samples"]
