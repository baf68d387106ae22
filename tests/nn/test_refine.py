"""Bilateral edges: logits of any network, refined by the image, trained or not."""

import math

import pytest
import torch

import lnz
from lnz.inference import BeliefPropagation, Enumeration, Exact
from lnz.nn import GridMRF
from lnz.objectives import nll


def bilateral(labels=3, neighbours=8, inference=None, seed=0):
    torch.manual_seed(seed)
    module = GridMRF(None, labels, "bilateral", neighbours, inference).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return module


def scene(size=32, noise=1.5, seed=0):
    """Images of three coloured regions, labels, and logits that are right but noisy."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    disk = (rows - size // 2).square() + (columns - size // 2).square() < (size // 3) ** 2
    y = torch.stack((torch.where(disk, 1, 2 * (columns > size // 2)), torch.where(disk, 2, (rows > size // 3).long())))
    colours = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.8, 0.2], [0.2, 0.2, 0.9]])
    image = colours[y].movedim(-1, 1) + 0.05 * torch.randn(2, 3, size, size, generator=generator)
    logits = torch.nn.functional.one_hot(y, 3).movedim(-1, 1).float()
    return logits + noise * torch.randn(2, 3, size, size, generator=generator), image, y


@pytest.mark.parametrize("neighbours", [4, 8])
def test_score_is_the_sum_over_pixels_and_neighbours(neighbours):
    module = bilateral(2, neighbours, Enumeration())
    logits, image = torch.randn(1, 2, 3, 2).double(), torch.rand(1, 3, 3, 2).double()
    y = torch.tensor([[[0, 1], [1, 0], [1, 1]]])
    offsets = [(0, 1), (1, 0), (1, 1), (1, -1)][: neighbours // 2]
    ends = [
        (d, r, c, r + down, c + right)
        for d, (down, right) in enumerate(offsets)
        for r in range(3)
        for c in range(2)
        if r + down < 3 and 0 <= c + right < 2
    ]
    squares = [(image[0, :, r, c] - image[0, :, r2, c2]).square().sum() for _, r, c, r2, c2 in ends]
    mean = sum(squares) / len(squares)
    total = sum(logits[0, y[0, r, c], r, c] for r in range(3) for c in range(2))
    for (d, r, c, r2, c2), square in zip(ends, squares, strict=True):
        floor, rate = module.floors[d].sigmoid(), module.log_rates[d].exp()
        weight = floor + (1 - floor) * torch.exp(-rate * square / (2 * mean))
        total = total + weight * module.tables[d][y[0, r, c], y[0, r2, c2]]
    torch.testing.assert_close(module(logits, edge_features=image).score(y)[0], total)


def test_answers_have_the_shape_of_images():
    module = bilateral(3, inference=Exact())
    logits, image = torch.randn(2, 3, 3, 4).double(), torch.rand(2, 1, 3, 4).double()
    p = module(logits, edge_features=image)
    assert p.size == (3, 4)
    assert p.pixel_marginals.shape == (2, 3, 3, 4)
    torch.testing.assert_close(p.pixel_marginals.sum(1), torch.ones(2, 3, 4).double())
    torch.testing.assert_close(p.pixel_marginals.flatten(2).mT, p.node_marginals)
    assert torch.equal(p.pixel_labels, p.pixel_marginals.argmax(1))
    y = torch.randint(3, (2, 3, 4))
    torch.testing.assert_close(p.log_prob(y), p.log_prob(y.flatten(1)))
    y[0, 0] = -100
    torch.testing.assert_close(p.condition(y).log_partition, p.condition(y.flatten(1)).log_partition)
    assert p.condition(y).pixel_labels.shape == (2, 3, 4)


def test_starts_as_the_softmax_of_the_logits():
    module = GridMRF(None, 3, "bilateral", 8, Enumeration()).double()
    logits, image = torch.randn(2, 3, 2, 3).double(), torch.rand(2, 3, 2, 3).double()
    torch.testing.assert_close(module(logits, edge_features=image).pixel_marginals, logits.softmax(1))


def test_images_of_one_colour_and_one_pixel_are_answered_and_differentiated():
    for shape in ((2, 3), (1, 1), (1, 4)):
        module = bilateral(2, inference=Exact())
        logits = torch.randn(1, 2, *shape).double().requires_grad_()
        nll(module(logits, edge_features=torch.ones(1, 3, *shape)), torch.zeros(1, *shape).long()).backward()
        assert logits.grad.isfinite().all()
        assert all(parameter.grad.isfinite().all() for parameter in module.parameters())


def test_every_parameter_learns_and_so_do_the_logits():
    module = bilateral(2, inference=Exact())
    logits, image = torch.randn(2, 2, 3, 3).double().requires_grad_(), torch.rand(2, 3, 3, 3).double()
    nll(module(logits, edge_features=image), torch.randint(2, (2, 3, 3)), "per_node").backward()
    for name, parameter in (("logits", logits), *module.named_parameters()):
        assert parameter.grad.abs().sum() > 0, name


def test_per_node_is_the_mean_over_pixels_with_a_label():
    module = bilateral(3, inference=Exact())
    logits, image = torch.randn(2, 3, 3, 3).double(), torch.rand(2, 3, 3, 3).double()
    y = torch.randint(3, (2, 3, 3))
    p = module(logits, edge_features=image)
    torch.testing.assert_close(nll(p, y, "per_node"), nll(p, y, "sum") / 18)
    y[1] = -100
    torch.testing.assert_close(nll(p, y, "per_node"), nll(p, y, "sum") / 9)
    independent = lnz.Softmax(logits.movedim(1, -1))
    expected = torch.nn.functional.cross_entropy(logits, y)  # of −100 it leaves out, which here are summed out
    torch.testing.assert_close(nll(independent, y, "per_node"), expected)
    assert nll(p, torch.full_like(y, -100), "per_node") == 0


def test_per_node_does_not_overflow_in_half_precision():
    logits = torch.zeros(1, 3, 300, 300, dtype=torch.float16)
    p = lnz.Softmax(logits.movedim(1, -1))
    y = torch.zeros(1, 300, 300, dtype=torch.int64)
    assert nll(p, y, "per_node").item() == pytest.approx(math.log(3), rel=1e-3)


@pytest.mark.parametrize("neighbours", [4, 8])
def test_refine_raises_accuracy_without_training(neighbours):
    logits, image, y = scene()
    before = (logits.argmax(1) == y).float().mean()
    refined = lnz.refine(logits, image, neighbours=neighbours)
    after = (refined.labels == y).float().mean()
    assert before < 0.75
    assert after > before + 0.15
    assert refined.labels.shape == (2, 32, 32)
    assert refined.marginals.shape == (2, 3, 32, 32)
    torch.testing.assert_close(refined.marginals.sum(1), torch.ones(2, 32, 32))
    assert torch.equal(refined.labels, refined.marginals.argmax(1))
    grey, coloured = (lnz.refine(logits, x, strength=3.0, neighbours=neighbours) for x in (0 * image, image))
    assert (grey.labels == y).float().mean() < (coloured.labels == y).float().mean()  # it helps at borders


def test_training_bilateral_edges_beats_the_softmax():
    logits, image, y = scene()
    module = GridMRF(None, 3, "bilateral", 4, BeliefPropagation(20, 0.0))
    optimiser = torch.optim.Adam(module.parameters(), 0.1)
    for _ in range(15):
        optimiser.zero_grad()
        nll(module(logits, edge_features=image), y, "per_node").backward()
        optimiser.step()
    others, pictures, gold = scene(seed=1)
    found = module(others, edge_features=pictures).pixel_labels
    assert (found == gold).float().mean() > (others.argmax(1) == gold).float().mean() + 0.1


def test_refine_of_strength_0_is_the_softmax_and_ranges_do_not_matter():
    logits, image, _ = scene(8)
    torch.testing.assert_close(lnz.refine(logits, image, strength=0.0).marginals, logits.softmax(1))
    one, other = lnz.refine(logits, image), lnz.refine(logits, 255 * image + 3)
    torch.testing.assert_close(one.marginals, other.marginals, rtol=1e-3, atol=1e-3)
    half = lnz.refine(logits.bfloat16(), image)
    assert half.marginals.dtype == torch.bfloat16
    for floor in (0, 1):
        assert lnz.refine(logits, image, floor=floor).marginals.isfinite().all()
    assert lnz.refine(logits, (255 * image).clamp(0, 255).byte()).marginals.isfinite().all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, i: lnz.refine(x[0], i), r"logits: expected shape \[B, L, H, W\] with L > 0, got \[2, 3, 4\]"),
        (lambda x, i: lnz.refine(x, i[..., :3]), r"edge_features: expected shape \[1, D, 3, 4\], got \[1, 3, 3, 3\]"),
        (lambda x, i: lnz.refine(x, i, strength=-1.0), "strength: expected a number of at least 0, got -1.0"),
        (lambda x, i: lnz.refine(x, i, floor=2.0), r"floor: expected a number in \[0, 1\], got 2.0"),
        (lambda x, i: lnz.refine(x, i, neighbours=6), "neighbours: expected 4 or 8, got 6"),
        (lambda x, i: lnz.refine(x * torch.nan, i), "logits: 24 of 24 scores are NaN"),
        (lambda x, i: GridMRF(None, 3, "bilateral")(x, edge_features=i), r"features: expected shape \[B, 3, H, W\]"),
        (lambda x, _: GridMRF(None, 2, "bilateral")(x), "edge_features: expected the image, or other features"),
        (lambda x, i: GridMRF(None, 2)(x, edge_features=i), "edge_features: expected None with edges='shared'"),
        (lambda *_: GridMRF(None, 2, "full"), "in_channels: expected the channels of the features with edges='full'"),
        (lambda *_: GridMRF(3, 2, "other"), "edges: expected 'shared', 'contrast', 'full' or 'bilateral', got 'other'"),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(1, 2, 3, 4), torch.zeros(1, 3, 3, 4))


def test_gold_images_serve_samplers_too():
    module = bilateral(2, 4, lnz.inference.Gibbs(chains=4, warmup=2))
    logits, image = torch.randn(2, 2, 3, 3).double(), torch.rand(2, 3, 3, 3).double()
    p, y = module(logits, edge_features=image), torch.randint(2, (2, 3, 3))
    losses = [nll(p, x, "per_node", generator=torch.Generator().manual_seed(0)) for x in (y, y.flatten(1))]
    torch.testing.assert_close(*losses)


def test_every_objective_takes_gold_images():
    module = bilateral(2, 4, Exact())
    p, y = module(torch.randn(2, 2, 3, 3).double(), edge_features=torch.rand(2, 3, 3, 3).double()), torch.ones(2, 3, 3)
    y = y.long()
    hamming, objectives = lnz.metrics.hamming, lnz.objectives

    def drawn(p, y):
        return objectives.contrastive_divergence(p, y, generator=torch.Generator().manual_seed(0))

    for objective in (
        objectives.pseudolikelihood,
        drawn,
        lambda p, y: objectives.hinge(p, y, hamming),
        lambda p, y: objectives.label_adjustment(p, y, hamming),
    ):
        torch.testing.assert_close(objective(p, y), objective(p, y.flatten(1)))
    torch.testing.assert_close(p.score(y), p.score(y.flatten(1)))
    torch.testing.assert_close(p.label_scores(y), p.label_scores(y.flatten(1)))
