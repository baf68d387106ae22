import pytest
import torch

from lnz.inference import BeliefPropagation, Enumeration, Exact
from lnz.nn import GridMRF
from lnz.objectives import nll

EDGES = ("shared", "contrast", "full")


def random_grid(edges, neighbours=4, inference=None, labels=2, seed=0):
    torch.manual_seed(seed)
    module = GridMRF(3, labels, edges, neighbours, inference).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return module


@pytest.mark.parametrize("edges", EDGES)
@pytest.mark.parametrize("neighbours", [4, 8])
def test_starts_as_the_independent_softmax(edges, neighbours):
    torch.manual_seed(0)
    module = GridMRF(3, 3, edges, neighbours, Enumeration()).double()
    features = torch.randn(2, 3, 2, 3, dtype=torch.float64)
    expected = module.nodes(features).softmax(1).flatten(2).transpose(1, 2)
    torch.testing.assert_close(module(features).node_marginals, expected)


@pytest.mark.parametrize("edges", EDGES)
@pytest.mark.parametrize("neighbours", [4, 8])
def test_score_is_the_sum_over_pixels_and_neighbours(edges, neighbours):
    """The score of a labelling, written out pixel by pixel from the definition."""
    module = random_grid(edges, neighbours, Enumeration())
    features = torch.randn(1, 3, 3, 2, dtype=torch.float64)
    y = torch.tensor([[0, 1, 1, 0, 1, 1]])
    x, labels, nodes = features[0], y[0].reshape(3, 2), module.nodes(features)[0]
    total = sum(nodes[labels[r, c], r, c] for r in range(3) for c in range(2))
    offsets = [(0, 1), (1, 0), (1, 1), (1, -1)][: neighbours // 2]
    for direction, (down, right) in enumerate(offsets):
        for r in range(3):
            for c in range(2):
                if not (r + down < 3 and 0 <= c + right < 2):
                    continue
                a, b = x[:, r, c], x[:, r + down, c + right]
                if edges == "contrast":
                    weight = 2 * torch.sigmoid(module.heads[direction](-(a - b).abs()))
                    table = weight * module.tables[direction]
                else:
                    table = module.tables[direction]
                if edges == "full":
                    table = table + module.heads[direction](torch.cat((a, b))).reshape(2, 2)
                total = total + table[labels[r, c], labels[r + down, c + right]]
    torch.testing.assert_close(module(features).score(y)[0], total)


@pytest.mark.parametrize("edges", EDGES)
def test_every_parameter_learns(edges):
    module = random_grid(edges, inference=Exact())
    features = torch.randn(2, 3, 3, 3, dtype=torch.float64)
    nll(module(features), torch.randint(2, (2, 9))).backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("edges", EDGES)
def test_belief_propagation_is_exact_on_a_row_of_pixels(edges):
    module = random_grid(edges, inference=BeliefPropagation())
    features = torch.randn(2, 3, 1, 5, dtype=torch.float64)
    p = module(features)
    module.inference = Enumeration()
    q = module(features)
    torch.testing.assert_close(p.log_partition, q.log_partition, rtol=0, atol=1e-9)
    torch.testing.assert_close(p.node_marginals, q.node_marginals, rtol=0, atol=1e-9)


def test_images_of_one_size_share_their_graph():
    module = random_grid("shared")
    first, second = (module(torch.randn(1, 3, 4, 4, dtype=torch.float64)) for _ in range(2))
    assert first.graph is second.graph


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"edges: expected 'shared', 'contrast', 'full' or 'bilateral', got 'potts'"):
        GridMRF(3, 2, "potts")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"neighbours: expected 4 or 8, got 6"):
        GridMRF(3, 2, neighbours=6)
    with pytest.raises(ValueError, match=r"features: expected shape \[B, 3, H, W\], got \[3, 4, 4\]"):
        GridMRF(3, 2)(torch.zeros(3, 4, 4))
