"""The Gibbs kernels: their stationary laws on all states, against the reference, and what must not change them."""

import itertools

import pytest
import torch
from scipy.stats import chi2

import lnz
from lnz.ops import backend
from lnz.ops.gibbs.cpu import checkerboard, spins
from lnz.ops.gibbs.op import gibbs_sweeps
from lnz.scores import Weighted, checked_model, observe

EDGES = 7  # of a grid of 2 × 3 nodes


def _random(*shape, seed=0, dtype=torch.float64, scale=0.7):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) * scale


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _states(model):
    return torch.tensor(list(itertools.product(*map(range, model.graph.cardinalities))))


def _law(model, temperature=1.0):
    """The probability of every state, ``[*batch, S]``, by listing them."""
    states = _states(model)
    score = torch.stack([model.score(y) for y in states], -1).expand(*model.batch_shape, len(states))
    return (score.double() / temperature).softmax(-1)


def _assert_law(model, drawn, temperature=1.0):
    """A chi-square test over all states per batch entry; ``drawn`` is ``[n, *batch, N]``, independent over n."""
    law = _law(model, temperature).reshape(-1, len(_states(model)))
    cards = model.graph.cardinalities
    flat = torch.zeros(drawn.shape[:-1], dtype=torch.int64)
    for node, card in enumerate(cards):
        flat = flat * card + drawn[..., node]
    for p, column in zip(law, flat.reshape(len(drawn), -1).T, strict=True):
        counts = torch.bincount(column, minlength=len(p)).double()
        assert (counts[p == 0] == 0).all()
        expected = p * len(drawn)
        rare = expected < 5
        observed = torch.cat((counts[~rare], counts[rare].sum()[None]))
        expected = torch.cat((expected[~rare], expected[rare].sum()[None]))
        used = expected > 0
        statistic = ((observed - expected)[used] ** 2 / expected[used]).sum().item()
        assert chi2.sf(statistic, int(used.sum()) - 1) > 1e-4


def _start(model, n):
    """n copies of a possible labelling per batch entry, the most probable one."""
    best = _states(model)[_law(model).argmax(-1)]
    return best.expand(n, *model.batch_shape, -1).clone()


GRIDS = {
    "spins": lambda: (2, _random(1, 2), torch.tensor([[0.5, -0.3], [-0.3, 0.4]], dtype=torch.float64)),
    "spins float32": lambda: (2, _random(2).float(), torch.eye(2)),
    "fields": lambda: (2, _random(2, 6, 2), torch.eye(2, dtype=torch.float64)),
    "antisymmetric": lambda: (2, _random(6, 2), _random(2, 2, seed=1)),
    "binary weighted": lambda: (2, _random(6, 2), Weighted(_random(2, EDGES, seed=1), _random(2, 2, seed=2))),
    "binary full": lambda: (2, _random(6, 2), _random(2, EDGES, 2, 2, seed=1)),
    "potts float32": lambda: (3, _random(6, 3).float(), Weighted(_random(EDGES, seed=1).float(), torch.eye(3))),
    "potts per image": lambda: (3, _random(1, 3), Weighted(_random(2, 1, seed=1), torch.eye(3, dtype=torch.float64))),
    "shared table": lambda: (3, _random(6, 3), _random(3, 3, seed=1)),
    "weighted": lambda: (3, _random(6, 3), Weighted(_random(2, EDGES, seed=1), _random(3, 3, seed=2))),
    "full": lambda: (3, _random(6, 3), _random(2, EDGES, 3, 3, seed=1)),
    "full float32": lambda: (2, _random(6, 2).float(), _random(EDGES, 2, 2, seed=1).float()),
}


def _grid_model(name):
    labels, node, edge = GRIDS[name]()
    node = node if node.dim() > 1 else node[None]
    return checked_model(lnz.FactorGraph.grid(2, 3, labels), (node, edge))


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("name", GRIDS)
def test_grid_kernels_draw_from_the_law(name, temperature):
    model = _grid_model(name)
    assert spins.serves(model) == name.startswith("spins")
    drawn = gibbs_sweeps(model, _start(model, 8000), 30, _generator(), temperature=temperature)
    _assert_law(model, drawn, temperature)


@pytest.mark.parametrize("order", ["chromatic", "systematic", "random"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_graph_draws_from_the_law(order, dtype):
    scopes = [torch.tensor([[0], [3]]), torch.tensor([[1, 0], [1, 3]]), torch.tensor([[2, 0, 1]]), torch.tensor([[4]])]
    graph = lnz.FactorGraph([2, 3, 2, 2, 3], [*scopes, torch.tensor([[4, 1]]), torch.zeros(1, 0, dtype=torch.int64)])
    pair = Weighted(_random(2, 2, seed=2, dtype=dtype), _random(3, 2, seed=1, dtype=dtype))
    triple = _random(3, 2, 2, 1, seed=3, dtype=dtype).permute(3, 1, 2, 0)  # a view, strides and all
    scores = (_random(2, 2, dtype=dtype), pair, triple, _random(3, dtype=dtype), _random(2, 1, 3, 3, dtype=dtype))
    model = checked_model(graph, (*scores, _random(1, dtype=dtype)))
    drawn = gibbs_sweeps(model, _start(model, 8000), 40, _generator(), order)
    _assert_law(model, drawn)


def test_the_reference_draws_from_the_same_law():
    model = _grid_model("potts per image")
    with backend("reference"):
        drawn = gibbs_sweeps(model, _start(model, 8000), 30, _generator())
    _assert_law(model, drawn)


@pytest.mark.parametrize(("scale", "strength"), [(1.0, 1.0), (2000.0, 1.0), (400.0, 400.0)])  # the last in logarithms
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("form", ["binary", "potts", "table", "weighted"])
def test_conditionals_of_wide_grids_equal_the_reference(form, dtype, scale, strength):
    """One colour of a grid wider than a tile, given the other: frequencies over chains against the conditionals."""
    height, width, labels, chains = 4, 301, 2 if form == "binary" else 3, 400
    graph = lnz.FactorGraph.grid(height, width, labels)
    node = _random(height * width, labels, scale=scale, dtype=dtype)
    if form != "binary":
        node[::7, 1] = -torch.inf
    edges = graph.num_factors[1]
    table = _random(labels, labels, seed=3, dtype=dtype, scale=strength)
    weight = _random(edges, seed=1, dtype=dtype, scale=strength if form in ("binary", "potts") else 1.0)
    edge = {
        "binary": Weighted(weight, torch.eye(labels, dtype=dtype)),
        "potts": Weighted(weight, torch.eye(labels, dtype=dtype)),
        "table": table,
        "weighted": Weighted(weight, table),
    }[form]
    model = checked_model(graph, (node, edge))
    y = node.argmax(-1)
    last = (torch.arange(height * width) // width + torch.arange(height * width) % width) % 2 == 1
    model = observe(model, torch.where(last, y, -100))
    drawn = gibbs_sweeps(model, y.expand(chains, -1), 1, _generator())
    assert (drawn[:, last] == y[last]).all()
    from lnz.ops.conditionals.reference import label_scores

    p = label_scores(model, y).double().softmax(-1)[~last]
    counts = torch.nn.functional.one_hot(drawn[:, ~last], labels).double().sum(0)
    assert (counts[p == 0] == 0).all()
    expected = p * chains
    sure = expected > 1
    statistic = ((counts - expected) ** 2 / expected)[sure].sum().item()
    freedom = int((sure.sum(-1) - 1).clamp(min=0).sum())
    assert abs(statistic - freedom) < 6 * (2 * freedom) ** 0.5 + 1e-6 * len(p) + 50


@pytest.mark.parametrize("kind", ["spins", "fields", "potts"])
@pytest.mark.parametrize(("height", "width"), [(70, 140), (41, 33)])
def test_answers_do_not_depend_on_the_number_of_threads(kind, height, width):
    labels = 3 if kind == "potts" else 2
    graph = lnz.FactorGraph.grid(height, width, labels)
    node = _random(height * width, labels).float() if kind == "fields" else torch.zeros(1, labels)
    model = checked_model(graph, (node, Weighted(torch.ones(1), torch.eye(labels))))
    start = torch.randint(labels, (1, height * width), generator=_generator())
    threads, answers = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            answers.append(gibbs_sweeps(model, start, 50, _generator()))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(answers[0], answers[1])
    assert torch.equal(answers[0], answers[2])
    assert not torch.equal(answers[0], gibbs_sweeps(model, start, 50, _generator(1)))


def test_large_graphs_do_not_depend_on_the_number_of_threads():
    n = 10_000
    ring = torch.stack((torch.arange(n), torch.arange(1, n + 1) % n), -1)
    model = checked_model(lnz.FactorGraph.pairwise(n, 2, ring), (_random(n, 2), torch.eye(2, dtype=torch.float64)))
    start, threads, answers = torch.zeros(1, n, dtype=torch.int64), torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            answers.append(gibbs_sweeps(model, start, 3, _generator()))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*answers)


@pytest.mark.parametrize("name", ["spins", "fields", "potts float32", "weighted", "full"])
@pytest.mark.parametrize("order", ["chromatic", "systematic"])
def test_observed_nodes_never_move_and_the_rest_is_conditioned(name, order):
    model = _grid_model(name)
    observed = torch.full((*model.batch_shape, 6), -100)
    observed[..., 1], observed[..., 5] = 1, 0
    model = observe(model, observed)
    drawn = gibbs_sweeps(model, _start(model, 4000), 20, _generator(), order)
    assert (drawn[..., 1] == 1).all()
    assert (drawn[..., 5] == 0).all()
    _assert_law(model, drawn)


@pytest.mark.parametrize("form", ["shared", "potts", "full", "spins"])
def test_impossible_labellings_are_never_entered(form):
    labels = 2 if form == "spins" else 4
    table = torch.zeros(labels, labels).fill_diagonal_(-torch.inf)  # a colouring: neighbours differ
    edge = {"shared": table + torch.rand(4, 4, generator=_generator()) if labels == 4 else table}.get(form, table)
    edge = edge.expand(EDGES, labels, labels).contiguous() if form == "full" else edge
    node = torch.zeros(6, labels)
    node[2, 0] = -torch.inf
    model = checked_model(lnz.FactorGraph.grid(2, 3, labels), (node, edge))
    start = _start(model, 500)
    for order in ("chromatic", "systematic", "random"):
        drawn = gibbs_sweeps(model, start, 25, _generator(), order)
        assert torch.isfinite(model.score(drawn)).all()


def test_a_node_without_a_possible_label_keeps_its_own():
    node = torch.zeros(6, 3)
    node[4] = -torch.inf
    model = checked_model(lnz.FactorGraph.grid(2, 3, 3), (node, torch.eye(3)))
    start = torch.randint(3, (50, 6), generator=_generator())
    for order in ("chromatic", "systematic"):
        assert torch.equal(gibbs_sweeps(model, start, 3, _generator(), order)[:, 4], start[:, 4])


def test_strong_fields_hide_no_label_that_is_the_last_one_left():
    """Node scores beyond the range of exponentials where tables of edges rule the better labels out."""
    node = torch.tensor([0.0, -500.0, -501.0]).expand(6, 3).clone()
    node[::2] = torch.tensor([0.0, -1e4, -1e4])
    table = torch.zeros(3, 3)
    table[0, 0] = -torch.inf
    model = checked_model(lnz.FactorGraph.grid(2, 3, 3), (node, table))
    y = torch.tensor([0, 1, 0, 1, 0, 1])
    model = observe(model, torch.where(y == 0, y, -100))
    drawn = gibbs_sweeps(model, y.expand(4000, -1), 1, _generator())
    _assert_law(model, drawn)


@pytest.mark.parametrize(("dtype", "field", "weight"), [
    (torch.float32, -130.0, 9.9), (torch.float32, 130.0, -9.9), (torch.float32, -62.0, 14.0),
    (torch.float64, -1600.0, 149.0),
])  # fmt: skip
def test_strong_edges_do_not_hide_a_stronger_field(dtype, field, weight):
    """Odds that are out of range where all neighbours have label 0, and given neighbours of label 1 as well, or not."""
    node = torch.zeros(9, 2, dtype=dtype)
    node[4, 1] = field
    edge = Weighted(torch.tensor([weight], dtype=dtype), torch.eye(2, dtype=dtype))
    y = torch.ones(9, dtype=torch.int64)
    model = checked_model(lnz.FactorGraph.grid(3, 3, 2), (node, edge))
    model = observe(model, torch.where(torch.arange(9) == 4, -100, y))
    drawn = gibbs_sweeps(model, y.expand(4000, -1), 1, _generator())
    expected = torch.tensor(field + 4 * weight).sigmoid().item()
    assert abs(drawn[:, 4].double().mean().item() - expected) < 5 * (expected * (1 - expected) / 4000) ** 0.5 + 1e-9


def test_directions_with_tables_of_their_own_and_many_labels():
    graph = lnz.FactorGraph.grid(2, 2, 3, by_direction=True)
    model = checked_model(graph, (_random(4, 3), _random(3, 3, seed=1), _random(2, 2, 3, 3, seed=2)))
    _assert_law(model, gibbs_sweeps(model, _start(model, 8000), 30, _generator()))
    labels = 300  # more than a byte holds
    wide = checked_model(
        lnz.FactorGraph.grid(2, 2, labels), (_random(4, labels, scale=3.0), torch.eye(labels).double())
    )
    drawn = gibbs_sweeps(wide, torch.zeros(2000, 4, dtype=torch.int64), 10, _generator())
    assert int(drawn.max()) > 255
    assert drawn.unique().numel() > 100


def test_scores_may_require_gradients_and_dtypes_may_differ():
    graph = lnz.FactorGraph.grid(2, 2, 2)
    mixed = checked_model(graph, (_random(4, 2).requires_grad_(), torch.eye(2)))
    _assert_law(mixed, gibbs_sweeps(mixed, _start(mixed, 4000), 20, _generator()))


def test_the_layout_names_the_block_of_the_kernel():
    from lnz.ops.jit.cpu.vectors import LANES

    assert checkerboard.BLOCK == LANES


def test_wrong_arguments():
    model = _grid_model("spins")
    start = _start(model, 1)
    with pytest.raises(ValueError, match="order: expected 'chromatic'"):
        gibbs_sweeps(model, start, 1, order="raster")
    with pytest.raises(ValueError, match="sweeps: expected a number of sweeps, 0 or more, got -1"):
        gibbs_sweeps(model, start, -1)
    with pytest.raises(ValueError, match="temperature: expected a positive number, got 0"):
        gibbs_sweeps(model, start, 1, temperature=0.0)
    with pytest.raises(ValueError, match=r"labels: expected shape \[n, 6\], got \[6\]"):
        gibbs_sweeps(model, start[0], 1)
    assert torch.equal(gibbs_sweeps(model, start, 0), start)
