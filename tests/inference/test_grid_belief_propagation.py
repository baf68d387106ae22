"""Belief propagation on grids through the public surface: both paths agree, and it behaves as a torch function."""

import pytest
import torch

import lnz
from lnz.errors import ConvergenceWarning
from lnz.inference import BeliefPropagation, Enumeration
from lnz.ops import backend
from lnz.ops.grid_belief.op import GridBethe
from lnz.scores import Weighted

HEIGHT, WIDTH, LABELS = 3, 3, 2
EDGES = 12
FIXED = BeliefPropagation(max_iterations=6, tolerance=0.0)


def _scores(form, scale=0.5):
    g = torch.Generator().manual_seed(0)

    def random(*shape):
        return (torch.randn(*shape, generator=g, dtype=torch.float64) * scale).requires_grad_()

    edges = {
        "shared": lambda: random(LABELS, LABELS),
        "weighted": lambda: Weighted(random(2, EDGES), random(LABELS, LABELS)),
        "full": lambda: random(EDGES, LABELS, LABELS),
    }[form]()
    return random(2, HEIGHT * WIDTH, LABELS), edges


def _grid():
    return lnz.FactorGraph.grid(HEIGHT, WIDTH, LABELS)


def _leaves(scores):
    return [t for s in scores for t in ((s.weight, s.table) if isinstance(s, Weighted) else (s,))]


@pytest.mark.parametrize("form", ["shared", "weighted", "full"])
def test_both_paths_give_the_same_answers(form):
    scores = _scores(form)
    with torch.no_grad():
        ours = lnz.MRF(_grid(), scores, FIXED)
        assert isinstance(ours.solution.functional, GridBethe)
        with backend("reference"):
            theirs = lnz.MRF(_grid(), scores, FIXED)
            assert not isinstance(theirs.solution.functional, GridBethe)
            expected = (theirs.log_partition, theirs.node_marginals, *theirs.marginals, theirs.argmax())
        for a, b in zip(
            (ours.log_partition, ours.node_marginals, *ours.marginals, ours.argmax()), expected, strict=True
        ):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
        for key, value in theirs.diagnostics.items():
            assert key in ours.diagnostics
            if isinstance(value, torch.Tensor):
                torch.testing.assert_close(ours.diagnostics[key], value)


@pytest.mark.parametrize("form", ["shared", "weighted", "full"])
def test_gradients_equal_beliefs_and_gradgrad(form):
    scores = _scores(form)
    settled = BeliefPropagation(max_iterations=200, tolerance=1e-13)

    def log_partition(*tensors, method=FIXED):
        edges = Weighted(*tensors[1:]) if form == "weighted" else tensors[1]
        return lnz.MRF(_grid(), (tensors[0], edges), method).log_partition

    leaves = _leaves(scores)
    assert torch.autograd.gradcheck(lambda *t: log_partition(*t, method=settled), leaves)
    assert torch.autograd.gradgradcheck(log_partition, leaves)
    p = lnz.MRF(_grid(), scores, settled)
    (at_node,) = torch.autograd.grad(p.log_partition.sum(), leaves[:1])
    torch.testing.assert_close(at_node, p.node_marginals.detach())


def test_node_marginals_are_differentiable():
    leaves = _leaves(_scores("shared"))
    assert torch.autograd.gradcheck(lambda *t: lnz.MRF(_grid(), t, FIXED).node_marginals, leaves)


def test_vmap():
    node, edges = (t.detach() for t in _leaves(_scores("shared")))
    one = torch.vmap(lambda n: lnz.MRF(_grid(), (n, edges), FIXED, validate_args=False).log_partition)(node)
    torch.testing.assert_close(one, lnz.MRF(_grid(), (node, edges), FIXED).log_partition)


def test_conditioned_argmax_and_ties():
    node = torch.zeros(HEIGHT * WIDTH, LABELS)
    observed = torch.full((HEIGHT * WIDTH,), -100)
    observed[4] = 1
    p = lnz.MRF(_grid(), (node, 2 * torch.eye(LABELS)), BeliefPropagation(damping=0.3)).condition(observed)
    assert (p.argmax() == 1).all()
    exact = lnz.MRF(_grid(), (node, 2 * torch.eye(LABELS)), Enumeration()).condition(observed)
    torch.testing.assert_close(p.node_marginals, exact.node_marginals, atol=0.1, rtol=0)


def test_unconverged_warns():
    node, edges = (t.detach() * 4 for t in _leaves(_scores("shared")))
    with pytest.warns(ConvergenceWarning, match="did not converge in 1 iterations"):
        _ = lnz.MRF(_grid(), (node, edges), BeliefPropagation(max_iterations=1)).log_partition
