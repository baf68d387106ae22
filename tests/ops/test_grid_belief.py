"""The grid kernel against the general reference: values, gradients, extreme scores, memory."""

import gc
import tracemalloc

import pytest
import torch

import lnz
from lnz.ops import backend
from lnz.ops.belief.op import Bethe
from lnz.ops.belief.reference import Passing, bethe, log_sum, node_beliefs
from lnz.ops.belief.schedule import Run, iterated
from lnz.ops.envelope import answered, evaluated, settled
from lnz.ops.grid_belief.op import GridBethe, serves
from lnz.scores import Weighted, checked_model, observe

HEIGHT, WIDTH, LABELS, BATCH = 4, 7, 3, 2
EDGES = HEIGHT * (WIDTH - 1) + (HEIGHT - 1) * WIDTH
FORMS = ["shared", "per image", "weighted", "weighted per image", "potts", "full", "full shared"]
RUN = Run(7, 0.0, 0.0, "flooding")


class _Solved:
    """What a functional says of a model."""

    def __init__(self, model, run, functional: type[Bethe] = GridBethe):
        self.model, self.functional = model, functional(run)
        self.state = settled(self.functional, model)
        _, self.iterations, self.residual, *_ = self.state
        self.log_partition = evaluated(self.functional, model, self.state)
        self.beliefs = answered(self.functional, model, self.state, None)

    @property
    def messages(self):
        """As the reference lays them out."""
        return self.functional.ended(self.model, self.state)[0]


def _edges(form, dtype=torch.float64, seed=1):
    g = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, generator=g, dtype=dtype) * 0.7

    return {
        "shared": lambda: random(LABELS, LABELS),
        "per image": lambda: random(BATCH, 1, LABELS, LABELS),
        "weighted": lambda: Weighted(random(BATCH, EDGES), random(LABELS, LABELS)),
        "weighted per image": lambda: Weighted(random(BATCH, 1), random(LABELS, LABELS)),
        "potts": lambda: Weighted(random(EDGES).abs(), torch.eye(LABELS, dtype=dtype) - 0.2),
        "full": lambda: random(BATCH, EDGES, LABELS, LABELS),
        "full shared": lambda: random(EDGES, LABELS, LABELS),
    }[form]()


def _model(edges, dtype=torch.float64, scale=1.0, batch=BATCH, grad=False):
    graph = lnz.FactorGraph.grid(HEIGHT, WIDTH, LABELS)
    g = torch.Generator().manual_seed(0)
    node = torch.randn(batch, HEIGHT * WIDTH, LABELS, generator=g, dtype=dtype) * scale
    model = checked_model(graph, (node, edges))
    for tensor in model.tensors:
        tensor.requires_grad_(grad)
    return model


def _check(model, run=RUN, tolerance=1e-9):
    ours = _Solved(model, run)
    with backend("reference"), torch.no_grad():
        reference = iterated(model, run)
    passing = Passing(model, log_sum)
    torch.testing.assert_close(ours.log_partition, bethe(passing, reference.messages), rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(ours.beliefs, node_beliefs(passing, reference.messages), rtol=0, atol=tolerance)
    torch.testing.assert_close(ours.messages.exp(), reference.messages.exp(), rtol=0, atol=tolerance)
    torch.testing.assert_close(ours.residual, reference.residual, rtol=0, atol=tolerance)
    assert torch.equal(ours.iterations, reference.iterations)


@pytest.mark.parametrize("damping", [0.0, 0.3])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("scale", [1.0, 300.0])  # 300: out of the range of the exponential domain
def test_messages_equal_the_reference(form, damping, scale):
    _check(_model(_edges(form), scale=scale), Run(7, 0.0, damping, "flooding"))


@pytest.mark.parametrize("form", FORMS)
def test_gradient_is_the_reference_gradient(form):
    model = _model(_edges(form), grad=True)
    ours = torch.autograd.grad((_Solved(model, RUN).log_partition * torch.tensor([1.0, -2.0])).sum(), model.tensors)
    with backend("reference"):
        z = _Solved(model, RUN, Bethe).log_partition
        expected = torch.autograd.grad((z * torch.tensor([1.0, -2.0])).sum(), model.tensors)
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_impossible_scores_mixed_domains_and_observed():
    model = _model(_edges("full"))
    model.entries[0][0, 3, 1] = -torch.inf
    model.entries[1][1, 2, 0] = torch.tensor([0.0, -torch.inf, 1.0])  # image 1 needs logarithms, image 0 does not
    observed = torch.full((BATCH, HEIGHT * WIDTH), -100)
    observed[0, 5], observed[1, 9] = 2, 0
    _check(model)
    _check(observe(model, observed))


def test_infeasible_image_is_minus_infinity_and_leaves_the_others_alone():
    model = _model(_edges("shared"))
    model.entries[0][0, 3] = -torch.inf
    node = model.entries[0].requires_grad_()
    z = _Solved(model, RUN).log_partition
    assert torch.isneginf(z[0])
    assert torch.isfinite(z[1])
    (grad,) = torch.autograd.grad(z[1], node)
    assert torch.isfinite(grad).all()
    assert (grad[0] == 0).all()


@pytest.mark.parametrize("scale", [1.0, 300.0])  # 300: in logarithms
def test_directions_of_different_forms(scale):
    graph = lnz.FactorGraph.grid(HEIGHT, WIDTH, LABELS, by_direction=True)
    g = torch.Generator().manual_seed(2)
    sizes = (HEIGHT * WIDTH, LABELS), (2, 1, LABELS, LABELS), ((HEIGHT - 1) * WIDTH, LABELS, LABELS)
    node, across, down = (torch.randn(*size, generator=g, dtype=torch.float64) for size in sizes)
    _check(checked_model(graph, (scale * node, across, down)))


def test_another_backend_may_differentiate():
    model = _model(_edges("shared"), grad=True)
    z = _Solved(model, RUN).log_partition
    expected = torch.autograd.grad(z.sum(), model.tensors, retain_graph=True)
    with backend("reference"):
        ours = torch.autograd.grad(z.sum(), model.tensors)
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_batches_broadcast_and_directions_have_tables_of_their_own():
    graph = lnz.FactorGraph.grid(HEIGHT, WIDTH, LABELS, by_direction=True)
    g = torch.Generator().manual_seed(2)

    def random(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64).requires_grad_()

    across = random(2, 1, HEIGHT * (WIDTH - 1), LABELS, LABELS)
    model = checked_model(graph, (random(3, HEIGHT * WIDTH, LABELS), across, random(LABELS, LABELS)))
    assert _Solved(model, RUN).log_partition.shape == (2, 3)
    _check(checked_model(graph, tuple(t.detach() for t in model.tensors)))
    ours = torch.autograd.grad(_Solved(model, RUN).log_partition.sum(), model.tensors)
    with backend("reference"):
        z = _Solved(model, RUN, Bethe).log_partition
        expected = torch.autograd.grad(z.sum(), model.tensors)
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_stopping_is_per_image():
    model = _model(_edges("shared"))
    model.entries[0][1] *= 20
    run = Run(200, 1e-8, 0.1, "flooding")
    _check(model, run)
    iterations = _Solved(model, run).iterations
    assert iterations[0] != iterations[1]
    assert (_Solved(model, run).residual <= 1e-8).all()


@pytest.mark.slow  # compiles two more kernels
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_float32_stays_close_to_float64(scale):
    single, double = (
        _model(_edges("shared", torch.float64).to(dtype), dtype) for dtype in (torch.float32, torch.float64)
    )
    model = checked_model(single.graph, (single.entries[0] * scale, single.entries[1]))
    exact = checked_model(double.graph, (model.entries[0].double(), model.entries[1].double()))
    a, b = _Solved(model, RUN), _Solved(exact, RUN)
    torch.testing.assert_close(a.log_partition.double(), b.log_partition, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(a.beliefs.double(), b.beliefs, rtol=0, atol=3e-4)


def test_image_wider_than_a_tile_in_bands():
    graph = lnz.FactorGraph.grid(17, 131, 5)
    g = torch.Generator().manual_seed(3)
    node = torch.randn(17 * 131, 5, generator=g, dtype=torch.float64)
    _check(checked_model(graph, (node, torch.randn(5, 5, generator=g, dtype=torch.float64))))


def test_buffers_need_not_be_clean(monkeypatch):
    model = _model(_edges("weighted"))
    clean = _Solved(model, RUN)
    new_empty = torch.Tensor.new_empty
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda self, *a, **k: _poisoned(new_empty(self, *a, **k)))
    again = _Solved(model, RUN)
    for name in ("log_partition", "beliefs", "messages", "residual"):
        assert torch.equal(getattr(clean, name), getattr(again, name))


def _poisoned(tensor):
    return tensor.fill_(torch.nan) if tensor.is_floating_point() else tensor


@pytest.mark.parametrize("form", ["shared", "weighted"])
def test_compact_scores_stay_compact(form):
    height, width, labels = 40, 40, 32
    edges = height * (width - 1) * 2
    graph = lnz.FactorGraph.grid(height, width, labels)
    table = torch.randn(labels, labels, dtype=torch.float64).requires_grad_()
    entry = table if form == "shared" else Weighted(torch.rand(edges, dtype=torch.float64).requires_grad_(), table)
    model = checked_model(graph, (torch.randn(height * width, labels, dtype=torch.float64), entry))
    largest = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            outs = out if isinstance(out, tuple | list) else (out,)
            largest.extend(t.numel() for t in outs if isinstance(t, torch.Tensor))
            return out

    with Watch():  # which imports much when it first looks on
        _Solved(model, RUN).log_partition.backward()
    largest.clear()
    tracemalloc.start()
    with Watch():
        _Solved(model, RUN).log_partition.backward()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert max(largest) <= 4 * height * width * labels  # the messages
    assert peak < edges * labels * labels  # bytes; expanded tables would be eight times that


def test_chains_and_other_models_are_left_to_the_general_path():
    def model(graph, edges=None):
        scores = [torch.zeros(f, *labels) for f, labels in zip(graph.num_factors, graph.labels, strict=True)]
        return checked_model(graph, scores)

    assert serves(model(lnz.FactorGraph.grid(3, 3, 2)), RUN)
    assert not serves(model(lnz.FactorGraph.grid(1, 3, 2)), RUN)
    assert not serves(model(lnz.FactorGraph.grid(3, 3, 2, neighbours=8)), RUN)
    assert not serves(model(lnz.FactorGraph.grid(3, 3, 2)), Run(7, 0.0, 0.0, "sequential"))
    with backend("reference"):
        assert not serves(model(lnz.FactorGraph.grid(3, 3, 2)), RUN)


@pytest.mark.parametrize("shape", [(1, 5), (5, 1)])
def test_kernel_on_chains_equals_enumeration(shape):
    graph = lnz.FactorGraph.grid(*shape, 3, by_direction=False)
    node, edge = torch.randn(2, 5, 3, dtype=torch.float64), torch.randn(3, 3, dtype=torch.float64)
    ours = _Solved(checked_model(graph, (node, edge)), Run(6, 0.0, 0.0, "flooding"))
    exact = lnz.MRF(graph, (node, edge), lnz.inference.Enumeration())
    torch.testing.assert_close(ours.log_partition, exact.log_partition, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(ours.beliefs, exact.node_marginals, rtol=0, atol=1e-9)


@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
def test_compiles_in_one_graph(compiler):
    model = _model(_edges("shared"))

    def value(node, edge):
        bp = lnz.inference.BeliefPropagation(7, tolerance=0.0)
        return lnz.MRF(model.graph, (node, edge), bp).log_partition.sum()

    torch.compiler.reset()
    results = []
    for function in (value, torch.compile(value, fullgraph=True, backend=compiler)):
        leaves = [tensor.clone().requires_grad_() for tensor in model.tensors]
        z = function(*leaves)
        results.append((z, *torch.autograd.grad(z, leaves)))
    for ours, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, ours, rtol=1e-9, atol=1e-9)


def test_func_grad_and_vmap():
    model = _model(_edges("shared"))

    def value(node, edge):
        bp = lnz.inference.BeliefPropagation(7, tolerance=0.0)
        return lnz.MRF(model.graph, (node, edge), bp).log_partition.sum()

    leaves = [tensor.clone().requires_grad_() for tensor in model.tensors]
    expected = torch.autograd.grad(value(*leaves), leaves)
    for ours, known in zip(torch.func.grad(value, argnums=(0, 1))(*model.tensors), expected, strict=True):
        torch.testing.assert_close(ours, known, rtol=1e-9, atol=1e-9)
    each = torch.func.vmap(torch.func.grad(value), in_dims=(0, None))(*model.tensors)
    torch.testing.assert_close(each, expected[0], rtol=1e-9, atol=1e-9)


def test_backward_outlives_the_graph():
    leaves = [tensor.clone().requires_grad_() for tensor in _model(_edges("shared")).tensors]

    def value():
        return _Solved(checked_model(lnz.FactorGraph.grid(HEIGHT, WIDTH, LABELS), leaves), RUN).log_partition.sum()

    z = value()
    gc.collect()  # the tape alone holds the graph now
    grads = torch.autograd.grad(z, leaves)
    assert all(torch.isfinite(g).all() and g.any() for g in grads)
