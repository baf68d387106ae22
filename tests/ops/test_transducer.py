"""The transducer's ops: kernels against the reference, extreme ranges, memory, and their registration."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lnz.ops import backend, transducer
from lnz.ops.transducer import Lattice
from lnz.ops.transducer.decode import SAMPLE, TOPK
from lnz.ops.transducer.joint import JOINT
from lnz.ops.transducer.op import TRANSDUCER
from lnz.ops.transducer.records import Arcs, Joint
from tests import memory
from tests.suite import equal, impossibilities, random_scores, seeds


def random_lattice(B: int, T: int, C: int, U: int, seed: int, several: bool) -> tuple[torch.Tensor, Lattice]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(1, C, (B, U), generator=generator)
    lengths = torch.randint(T // 2, T + 1, (B,), generator=generator)
    sizes = torch.randint(U + 1, (B,), generator=generator)
    return labels, Lattice(lengths, sizes, several)


def value_and_gradient(
    name: str, logits: torch.Tensor, labels: torch.Tensor, of: Lattice, blank: int = 0, normalise: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    with backend(name):  # type: ignore[arg-type]
        leaf = logits.detach().requires_grad_()
        value = transducer.log_prob(leaf, labels, of, blank, normalise)
        return value.detach(), torch.autograd.grad(value, leaf, torch.arange(1.0, 1 + len(value)).to(value))[0]


@given(st.data())
def test_kernels_equal_the_reference(data: st.DataObject) -> None:
    draw = data.draw
    B, T, C, U = draw(st.integers(1, 4)), draw(st.integers(1, 20)), draw(st.integers(2, 9)), draw(st.integers(0, 12))
    seed, normalise = draw(seeds), draw(st.booleans())
    labels, of = random_lattice(B, T, C, U, seed, draw(st.booleans()))
    logits = draw(st.sampled_from([1.0, 30.0, 1e3])) * random_scores((B, T, U + 1, C), seed, draw(impossibilities) / 4)
    wanted = value_and_gradient("reference", logits, labels, of, 0, normalise)
    for actual, want in zip(value_and_gradient("auto", logits, labels, of, 0, normalise), wanted, strict=True):
        equal(actual, want)
    single = logits.float()
    wanted = value_and_gradient("reference", single.double(), labels, of, 0, normalise)
    actual = value_and_gradient("auto", single, labels, of, 0, normalise)
    equal(actual[0].double(), wanted[0], rtol=1e-6, atol=1e-4)
    equal(actual[1].double(), wanted[1], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("several", [True, False])
def test_what_lies_beside_the_lattice_is_not_looked_at(several: bool) -> None:
    labels, of = random_lattice(3, 12, 5, 6, 0, several)
    logits = random_scores((3, 12, 7, 5), 0)
    beside = ~of.blanks(12, 6)[..., None]
    for name in ("auto", "reference"):
        poisoned = value_and_gradient(name, logits.masked_fill(beside, torch.nan), labels, of)
        for actual, wanted in zip(poisoned, value_and_gradient(name, logits, labels, of), strict=True):
            assert torch.equal(actual, wanted)
        assert (poisoned[1].masked_select(beside) == 0).all()


def test_nan_gives_nan_for_its_sequence_alone() -> None:
    labels, of = torch.tensor([[1, 2]] * 3), Lattice(torch.tensor([4, 4, 3]), torch.tensor([2, 2, 2]), True)
    for dtype in (torch.float32, torch.float64):
        logits = random_scores((3, 4, 3, 4), 0).to(dtype)
        logits[1, 2, 1, 3] = torch.nan
        value, gradient = value_and_gradient("auto", logits, labels, of)
        assert torch.isnan(value).tolist() == [False, True, False]
        assert torch.isfinite(gradient[[0, 2]]).all()
        assert torch.isnan(gradient[1]).all()


@pytest.mark.parametrize("scale", [1.0, 30.0, 300.0, 1e5])
def test_any_range_of_logits_is_right_in_float32(scale: float) -> None:
    labels, of = random_lattice(2, 60, 20, 25, 1, True)
    logits = (scale * random_scores((2, 60, 26, 20), 0)).float()
    value, gradient = value_and_gradient("auto", logits, labels, of)
    wanted = value_and_gradient("reference", logits.double(), labels, of)
    equal(value.double(), wanted[0], rtol=1e-6, atol=1e-4)
    equal(gradient.double(), wanted[1], rtol=0, atol=2 * 1e-5)


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_float32_is_as_good_as_float64_at_the_size_of_an_utterance(scale: float) -> None:
    T, U, C = 200, 50, 500
    labels = torch.randint(1, C, (1, U), generator=torch.Generator().manual_seed(0))
    of = Lattice(torch.tensor([T]), torch.tensor([U]), True)
    logits = scale * torch.randn(1, T, U + 1, C, generator=torch.Generator().manual_seed(1))
    value, gradient = value_and_gradient("auto", logits, labels, of)
    wide = value_and_gradient("auto", logits.double(), labels, of)
    equal(value.double(), wide[0], rtol=1e-6, atol=0)
    equal(gradient.double(), wide[1], rtol=0, atol=1e-5)


def test_a_path_far_behind_that_alone_can_end_is_found() -> None:
    """The labels are cheap early and needed late: what leads by thousands of nats meets −inf in the end."""
    T, U = 300, 40
    blank, label = torch.zeros(1, T, U + 1), torch.full((1, T, U), -50.0)
    blank[0, T // 2 :, :-1] = -torch.inf
    label[0, T // 2 :] = -torch.inf
    of = Lattice(torch.tensor([T]), torch.tensor([U]), True)
    for dtype in (torch.float32, torch.float64):
        actual = transducer.forward_backward(blank.to(dtype), label.to(dtype), of)
        with backend("reference"):
            wanted = transducer.forward_backward(blank.double(), label.double(), of)
        assert torch.isfinite(wanted[0]).all()
        for a, w in zip(actual, wanted, strict=True):
            equal(a.double(), w, rtol=1e-6, atol=1e-6)


def test_threads_change_nothing() -> None:
    labels, of = random_lattice(7, 30, 12, 10, 0, True)
    logits = random_scores((7, 30, 11, 12), 0).float()
    one = value_and_gradient("auto", logits, labels, of)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        three = value_and_gradient("auto", logits, labels, of)
    finally:
        torch.set_num_threads(threads)
    for a, b in zip(one, three, strict=True):
        assert torch.equal(a, b)


@memory.linux
def test_memory_beyond_the_joint_and_its_gradient_is_small() -> None:
    """A joint of 134 MB, 8,192 nodes of 4,096 classes: a log-softmax or another copy would be that much again."""
    program = """
import torch
from lnz.ops import backend, transducer
from tests.memory import begin, peak

def train(T, C):
    logits = torch.ones(1, T, 32, C, requires_grad=True)  # zeros would not be in memory yet
    before = begin()
    of = transducer.Lattice(torch.tensor([T]), torch.tensor([31]), True)
    transducer.log_prob(logits, torch.ones(1, 31, dtype=torch.int64), of, 0, True).backward()
    return peak() - before - 4 * logits.numel()

for name in ("auto", "reference"):
    with backend(name):
        train(2, 8)  # compiles
        print(train(256, 4096))
"""
    for beyond in map(int, memory.run(program).split()):
        assert -1e6 < beyond < 30e6  # one more copy would be 134e6


@pytest.mark.parametrize(("several", "normalise"), [(True, True), (False, False)])
def test_derivatives(several: bool, normalise: bool) -> None:
    labels, of = random_lattice(2, 4, 3, 2, 0, several)
    of = of._replace(target_lengths=torch.tensor([2, 1]), lengths=torch.tensor([4, 3]))
    leaf = random_scores((2, 4, 3, 3), 0).requires_grad_()

    def value(x: torch.Tensor) -> torch.Tensor:
        return transducer.log_prob(x, labels, of, 0, normalise)

    assert torch.autograd.gradcheck(value, leaf)
    assert torch.autograd.gradgradcheck(value, leaf)
    assert torch.autograd.gradcheck(lambda x: transducer.arcs(x, labels, of, 0, normalise)[1].exp().sum(), leaf)


def test_registration() -> None:
    labels, of = random_lattice(2, 5, 4, 3, 0, True)
    logits = random_scores((2, 5, 4, 4), 0)
    joint = Joint(logits, labels, of.lengths, of.target_lengths, 0, True)
    torch.library.opcheck(JOINT.solve.op, tuple(joint))
    made = JOINT.solve(joint)
    weights = torch.ones_like(made.blank), torch.ones_like(made.label)
    torch.library.opcheck(JOINT.gradient_op, (*weights, *joint, *made, [True]))
    arcs = Arcs(made.blank, made.label, *of)
    torch.library.opcheck(TRANSDUCER.solve.op, tuple(arcs))
    done = TRANSDUCER.solve(arcs)
    for weight in (None, torch.ones(2, dtype=torch.float64)):
        for wanted in ([True, True], [False, True]):
            torch.library.opcheck(TRANSDUCER.gradient_op, (weight, *arcs, *done, wanted))
    torch.library.opcheck(TOPK.op, (*arcs, 2))
    uniform = torch.rand(3, 2, 5 + 3 + 1, 2, dtype=torch.float64)
    torch.library.opcheck(SAMPLE.op, (*arcs[:4], uniform, True))
