"""Transducer: against the list of all paths, published values, its transforms, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import lnz
from lnz.nn.functional import rnnt_loss
from lnz.objectives import nll
from tests.distributions import transducer_oracle
from tests.suite import equal, random_scores, seeds

topologies = pytest.mark.parametrize("one", [False, True])


# Against enumeration -------------------------------------------------------------------------------------------------


@topologies
@given(seed=seeds, T=st.integers(0, 4), U=st.integers(0, 3), blank=st.integers(0, 3))
def test_log_prob_and_its_gradient_on_raw_scores(one: bool, seed: int, T: int, U: int, blank: int) -> None:
    logits = random_scores((T, U + 1, 4), seed, 0.1)
    logits[..., (seed + 1) % 4] = logits[..., (seed + 1) % 4].clamp(min=-1.0)  # no node is without classes
    target = torch.tensor([c for c in (3, 1, 0, 2) if c != blank][:U], dtype=torch.int64)
    leaf = logits.clone().requires_grad_()
    value = lnz.Transducer(leaf, blank=blank, one_label_per_frame=one).log_prob(target)
    equal(value, transducer_oracle.log_prob(logits, target.tolist(), blank, one))
    gradient = torch.autograd.grad(value, leaf)[0]
    if torch.isneginf(value):
        assert (gradient == 0).all()
    elif T:
        leaf = logits.clamp(min=-1e5).requires_grad_()  # probability 0 all the same, and its own gradient is not NaN
        wanted = torch.autograd.grad(transducer_oracle.log_prob(leaf, target.tolist(), blank, one), leaf)[0]
        equal(gradient, wanted)


@topologies
def test_gradient_is_arcs_less_softmax(one: bool) -> None:
    logits = random_scores((2, 5, 3, 4), 0).requires_grad_()
    targets, sizes, lengths = torch.tensor([[1, 2], [3, -100]]), torch.tensor([2, 1]), torch.tensor([5, 3])
    p = lnz.Transducer(logits, lengths, one_label_per_frame=one)
    q = p.alignments(targets)
    equal(q.log_partition, p.log_prob(targets, sizes))
    equal(p.score(targets), p.log_prob(targets))
    blanks, labels = q.marginals
    labels = torch.nn.functional.pad(labels, (0, 1))
    wanted = -(blanks + labels)[..., None] * logits.softmax(-1)
    wanted[..., 0] += blanks
    for b in range(2):
        for u in range(int(sizes[b])):
            wanted[b, :, u, targets[b, u]] += labels[b, :, u]
    equal(torch.autograd.grad(p.log_prob(targets).sum(), logits)[0], wanted)


def test_the_alignments_are_differentiable_to_the_logits() -> None:
    logits, targets = random_scores((3, 3, 3), 0).requires_grad_(), torch.tensor([1, 1])
    assert torch.autograd.gradcheck(lambda x: lnz.Transducer(x).alignments(targets).entropy(), logits)
    assert torch.autograd.gradcheck(lambda x: lnz.Transducer(x).alignments(targets).marginals, logits)
    assert torch.autograd.gradgradcheck(lambda x: lnz.Transducer(x).log_prob(targets), logits)


def test_vmap_compile_and_both_backends() -> None:
    targets, sizes = torch.tensor([[1, 1, 2], [2, 0, 0]]), torch.tensor([3, 1])
    logits = random_scores((4, 2, 6, 4, 3), 0)

    def loss(x: torch.Tensor) -> torch.Tensor:
        return -lnz.Transducer(x).log_prob(targets, sizes).sum()

    wanted = torch.stack([loss(x) for x in logits])
    equal(torch.vmap(loss)(logits), wanted)
    slopes = torch.vmap(torch.func.grad(loss))(logits)
    for x, slope in zip(logits, slopes, strict=True):
        leaf = x.clone().requires_grad_()
        equal(torch.autograd.grad(loss(leaf), leaf)[0], slope)
    with lnz.ops.backend("reference"):
        equal(torch.stack([loss(x) for x in logits]), wanted)
    torch.compiler.reset()
    equal(torch.compile(loss, fullgraph=True, backend="eager")(logits[0]), wanted[0])


# Nothing, and what is beside the target -----------------------------------------------------------------------------


@topologies
@pytest.mark.parametrize("sizes", [(0, 3, 2), (2, 0, 0), (2, 3, 0), (0, 0, 0)])
def test_nothing_along_an_axis(one: bool, sizes: tuple[int, int, int]) -> None:
    B, T, U = sizes
    logits, targets = random_scores((B, T, U + 1, 4), 0).requires_grad_(), torch.ones(B, U, dtype=torch.int64)
    p = lnz.Transducer(logits, one_label_per_frame=one)
    values = p.log_prob(targets)
    equal(values, logits[..., 0, :].log_softmax(-1)[..., 0].sum(-1))
    equal(p.alignments(targets).log_partition, values)
    losses = rnnt_loss(logits, targets, [T] * B, [U] * B, 0, reduction="none", one_label_per_frame=one)
    equal(losses, -values)
    equal(rnnt_loss(logits, targets, [T] * B, [U] * B, 0, clamp=1.0, reduction="none"), -values)
    assert torch.autograd.grad(values.sum(), logits)[0].shape == logits.shape


@topologies
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_nodes_beside_the_lattice_are_never_looked_at(one: bool, value: float) -> None:
    lengths, sizes, targets = torch.tensor([5, 3, 0]), torch.tensor([2, 1, 0]), torch.tensor([[1, 2], [3, 0], [0, 0]])
    beside = (torch.arange(5) >= lengths[:, None])[..., None] | (torch.arange(3) > sizes[:, None])[:, None]
    leaves = [random_scores((3, 5, 3, 4), 0).masked_fill(beside[..., None], x).requires_grad_() for x in (0.0, value)]
    found = []
    for leaf in leaves:
        p = lnz.Transducer(leaf, lengths, one_label_per_frame=one)
        q = p.alignments(targets, sizes)
        rest = (targets, lengths, sizes, 0)
        losses = rnnt_loss(leaf, *rest, reduction="sum", one_label_per_frame=one)
        total = p.log_prob(targets, sizes).sum() + q.entropy().sum() + losses
        found.append((total, torch.autograd.grad(total, leaf)[0], *q.marginals, q.argmax()))
    for actual, wanted in zip(*found, strict=True):
        equal(actual, wanted)
    wrong = leaves[1].detach().clone()
    wrong[1, 2, 1, 0] = value  # of the second entry's target, whose length only log_prob knows
    with pytest.raises(ValueError, match=r"logits: 1 of 180 scores are .*, first at \[1, 2, 1, 0\]"):
        lnz.Transducer(wrong, lengths).log_prob(targets, sizes)


# Published values ----------------------------------------------------------------------------------------------------

SMALL = torch.tensor(
    [[[0.1, 0.6, 0.1, 0.1, 0.1], [0.1, 0.1, 0.6, 0.1, 0.1], [0.1, 0.1, 0.2, 0.8, 0.1]],
     [[0.1, 0.6, 0.1, 0.1, 0.1], [0.1, 0.1, 0.2, 0.1, 0.1], [0.7, 0.1, 0.2, 0.1, 0.1]]],
    dtype=torch.float64,
)  # fmt: skip
SMALL_GRADIENTS = {
    0: [-0.13116688, -0.3999269, 0.17703125, 0.17703125, 0.17703125,
        -0.18572757, 0.12247056, -0.18168412, 0.12247056, 0.12247056,
        -0.32091254, 0.06269141, 0.06928472, 0.12624499, 0.06269141,
        0.05456069, -0.21824276, 0.05456069, 0.05456069, 0.05456069,
        0.12073959, 0.12073959, -0.48295835, 0.12073959, 0.12073959,
        -0.6925882, 0.16871116, 0.18645467, 0.16871116, 0.16871116],
    4: [0.17703132, -0.39992708, 0.17703132, 0.17703132, -0.13116692,
        0.12247062, 0.12247062, -0.181684, 0.12247062, -0.1857276,
        0.06269141, 0.06269141, 0.06928471, 0.12624498, -0.32091248,
        0.05456069, -0.2182428, 0.05456069, 0.05456069, 0.05456069,
        0.12073967, 0.12073967, -0.48295838, 0.12073967, 0.12073967,
        0.30741188, 0.16871123, 0.18645471, 0.16871123, -0.83128875],
}  # fmt: skip
PAIR = torch.tensor(
    [0.065357, 0.787530, 0.081592, 0.529716, 0.750675, 0.754135, 0.609764, 0.868140, 0.622532, 0.668522, 0.858039,
     0.164539, 0.989780, 0.944298, 0.603168, 0.946783, 0.666203, 0.286882, 0.094184, 0.366674, 0.736168, 0.166680,
     0.714154, 0.399400, 0.535982, 0.291821, 0.612642, 0.324241, 0.800764, 0.524106, 0.779195, 0.183314, 0.113745,
     0.240222, 0.339470, 0.134160, 0.505562, 0.051597, 0.640290, 0.430733, 0.829473, 0.177467, 0.320700, 0.042883,
     0.302803, 0.675178, 0.569537, 0.558474, 0.083132, 0.060165, 0.107958, 0.748615, 0.943918, 0.486356, 0.418199,
     0.652408, 0.024243, 0.134582, 0.366342, 0.295830, 0.923670, 0.689929, 0.741898, 0.250005, 0.603430, 0.987289,
     0.592606, 0.884672, 0.543450, 0.660770, 0.377128, 0.358021],
    dtype=torch.float64,
).reshape(2, 4, 3, 3)  # fmt: skip
PAIR_GRADIENTS = [
    -0.186844, -0.062555, 0.249399, -0.203377, 0.202399, 0.000977, -0.141016, 0.079123, 0.061893, -0.011552, -0.081280,
    0.092832, -0.154257, 0.229433, -0.075176, -0.246593, 0.146405, 0.100188, -0.012918, -0.061593, 0.074512, -0.055986,
    0.219831, -0.163845, -0.497627, 0.209240, 0.288387, 0.013605, -0.030220, 0.016615, 0.113925, 0.062781, -0.176706,
    -0.667078, 0.367659, 0.299419, -0.356344, -0.055347, 0.411691, -0.096922, 0.029459, 0.067463, -0.063518, 0.027654,
    0.035863, -0.154499, -0.073942, 0.228441, -0.166790, -0.000088, 0.166878, -0.172370, 0.105565, 0.066804, 0.023875,
    -0.118256, 0.094381, -0.104707, -0.108934, 0.213642, -0.369844, 0.180118, 0.189726, 0.025714, -0.079462, 0.053748,
    0.122328, -0.238789, 0.116460, -0.598687, 0.302203, 0.296484,
]  # fmt: skip


@pytest.mark.parametrize(("blank", "cost"), [(0, 4.495666), (4, 5.09566688538)])
def test_the_small_case_of_warp_transducer_and_torchaudio(blank: int, cost: float) -> None:
    leaf = SMALL.clone().requires_grad_()
    loss = -lnz.Transducer(leaf, blank=blank).log_prob(torch.tensor([1, 2]))
    assert loss.item() == pytest.approx(cost, rel=1e-6)
    gradient = torch.autograd.grad(loss, leaf)[0]
    equal(gradient.flatten(), torch.tensor(SMALL_GRADIENTS[blank], dtype=torch.float64), rtol=0, atol=1e-6)


def test_the_batch_of_two_of_torchaudio() -> None:
    leaf = PAIR.clone().requires_grad_()
    losses = -lnz.Transducer(leaf).log_prob(torch.tensor([[1, 2], [1, 1]]))
    equal(losses, torch.tensor([4.2806528590890736, 3.9384369822503591], dtype=torch.float64), rtol=1e-6, atol=0)
    gradient = torch.autograd.grad(losses.sum(), leaf)[0]
    equal(gradient.flatten(), torch.tensor(PAIR_GRADIENTS, dtype=torch.float64), rtol=0, atol=1e-6)


# What it takes and refuses -------------------------------------------------------------------------------------------


def test_batches_broadcast_lengths_are_respected_and_narrow_targets_fit() -> None:
    logits = random_scores((2, 3, 6, 4, 5), 0)
    targets, lengths = torch.tensor([[1, 2, 3], [4, 4, -100], [2, -100, -100]]), torch.tensor([[6], [4]])
    p = lnz.Transducer(logits, lengths)
    values = p.log_prob(targets)
    assert p.batch_shape == (2, 3)
    assert p.event_shape == ()
    assert values.shape == (2, 3)
    for i in range(2):
        for j, m in enumerate((3, 2, 1)):
            cut = logits[i, j, : int(lengths[i, 0]), : m + 1]
            equal(values[i, j], lnz.Transducer(cut).log_prob(targets[j, :m]))
            equal(values[i, j], lnz.Transducer(logits[i, j], lengths[i, 0]).log_prob(targets[j, :m]))
    equal(lnz.Transducer(logits[0, 0]).expand((4,)).log_prob(targets[0]), values[:1, 0].expand(4))
    equal(p.log_partition, torch.zeros(2, 3, dtype=torch.float64))
    equal(p.tempered(2.0).log_prob(targets), lnz.Transducer(logits / 2, lengths).log_prob(targets))


def test_empty_targets_no_frames_and_impossible_targets() -> None:
    logits = random_scores((4, 3, 3, 3), 0)
    logits[3, :, :, 2] = -torch.inf
    logits.requires_grad_()
    p = lnz.Transducer(logits, torch.tensor([3, 0, 0, 3]))
    targets = torch.tensor([[-100] * 2, [-100] * 2, [1, -100], [2, 2]])
    values = p.log_prob(targets)
    equal(values[0], logits[0, :, 0].log_softmax(-1)[:, 0].sum())
    assert values[1] == 0
    assert torch.isneginf(values[2:]).all()
    values[:2].sum().backward()
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad[1:] == 0).all()
    with pytest.raises(lnz.InfeasibleError, match=r"probability 0 in batch entries \[2, 3\]") as error:
        nll(p, targets)
    assert error.value.entries == (2, 3)
    logits.grad = None
    nll(p, targets, zero_infinity=True).backward()
    assert torch.isfinite(logits.grad).all()
    with pytest.raises(lnz.InfeasibleError, match=r"argmax: no labelling has a finite score in batch entries \[2, 3\]"):
        p.alignments(targets).argmax()
    once = lnz.Transducer(logits, one_label_per_frame=True)
    assert torch.isneginf(once.alignments(torch.tensor([1, 1])).condition(torch.tensor([1, 1])).log_partition).all()


def test_a_node_where_everything_is_impossible() -> None:
    logits = random_scores((3, 2, 3), 0)
    logits[1, 0] = -torch.inf  # so the label comes in the first frame
    leaf = logits.requires_grad_()
    value = lnz.Transducer(leaf).log_prob(torch.tensor([1]))
    x = logits.log_softmax(-1)
    equal(value, x[0, 0, 1] + x[0, 1, 0] + x[1, 1, 0] + x[2, 1, 0])
    gradient = torch.autograd.grad(value, leaf)[0]
    assert torch.isfinite(gradient).all()
    assert (gradient[1, 0] == 0).all()


def test_forced_alignment_finds_where_labels_were_put() -> None:
    frames, targets = torch.tensor([2, 2, 5, 11]), torch.tensor([3, 3, 1, 2])
    logits = torch.zeros(12, 5, 4)
    logits[..., 0] = 8.0
    logits[frames, torch.arange(4), targets] = 16.0
    p = lnz.Transducer(logits).alignments(targets)
    assert torch.equal(p.argmax(), frames)
    assert p.marginals[1][frames, torch.arange(4)].min() > 0.99


def test_half_precision() -> None:
    logits, targets = random_scores((3, 6, 4, 5), 0), torch.tensor([1, 2, 3])
    wanted = lnz.Transducer(logits).log_prob(targets)
    for dtype, rtol in ((torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 2e-3)):
        leaf = logits.to(dtype).requires_grad_()
        value = lnz.Transducer(leaf).log_prob(targets)
        assert value.dtype == dtype
        equal(value.double(), wanted, rtol=rtol, atol=1e-5)
        value.sum().backward()
        assert leaf.grad is not None
        assert leaf.grad.dtype == dtype
        assert lnz.Transducer(leaf).alignments(targets).log_partition.dtype == dtype


LOGITS = torch.zeros(2, 5, 3, 4)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: lnz.Transducer(LOGITS[0, 0]), ValueError, r"logits: expected shape \[\*batch, T, U \+ 1, C\]"),
        (lambda: lnz.Transducer(LOGITS[:, :, :0]), ValueError, r"logits: expected shape .* got \[2, 5, 0, 4\]"),
        (lambda: lnz.Transducer(LOGITS.long()), TypeError, "logits: expected floating point scores, got dtype"),
        (lambda: lnz.Transducer(LOGITS * torch.nan), ValueError, "logits: 120 of 120 scores are NaN"),
        (lambda: lnz.Transducer(LOGITS + torch.inf), ValueError, r"logits: 120 of 120 scores are \+inf"),
        (lambda: lnz.Transducer(LOGITS, blank=4), ValueError, r"blank: expected a class in \[0, 4\).*, got 4"),
        (lambda: lnz.Transducer(LOGITS, blank=-1), ValueError, r"blank: expected a class in \[0, 4\).*, got -1"),
        (lambda: lnz.Transducer(LOGITS, blank=None), TypeError, "blank: expected an int, got NoneType"),
        (lambda: lnz.Transducer(LOGITS, torch.tensor([6, 1])), ValueError, r"lengths: expected values in \[0, 5\]"),
        (lambda: lnz.Transducer(LOGITS, torch.zeros(2)), TypeError, "lengths: expected integers, got dtype"),
        (lambda: lnz.Transducer(LOGITS, torch.ones(3).long()), ValueError, "lengths: expected a batch shape"),
        (
            lambda: lnz.Transducer(LOGITS).log_prob(torch.tensor([1, 0])),
            ValueError,
            r"targets: expected labels in \[0, 4\) other than the blank, 0, got 0 at \[1\]",
        ),
        (lambda: lnz.Transducer(LOGITS).log_prob(torch.tensor([4])), ValueError, r"expected labels in \[0, 4\)"),
        (lambda: lnz.Transducer(LOGITS).log_prob([1]), TypeError, "targets: expected .* of integers, got list"),
        (lambda: lnz.Transducer(LOGITS).log_prob(torch.zeros(2, 1)), TypeError, "targets: .* got torch.float32"),
        (lambda: lnz.Transducer(LOGITS).log_prob(torch.ones(3, 1).long()), ValueError, "targets: expected a batch"),
        (
            lambda: lnz.Transducer(LOGITS).log_prob(torch.ones(3).long()),
            ValueError,
            "targets: expected at most 2 labels, for logits have 3 rows per frame, got 3",
        ),
        (
            lambda: lnz.Transducer(LOGITS).log_prob(torch.ones(2, 1).long(), torch.tensor([1, 2])),
            ValueError,
            r"target_lengths: expected values in \[0, 1\], the labels of targets, got 2 at \[1\]",
        ),
        (lambda: lnz.Transducer(LOGITS).argmax(), TypeError, r"decode with the network; alignments\(targets\).argmax"),
        (lambda: lnz.Transducer(LOGITS).mode, TypeError, "decode with the network"),
        (lambda: lnz.Transducer(LOGITS).topk(3), TypeError, r"alignments\(targets\).topk\(3\)"),
        (lambda: lnz.Transducer(LOGITS).sample((2,)), TypeError, r"alignments\(targets\).sample\(\)"),
        (lambda: lnz.Transducer(LOGITS).entropy(), TypeError, r"alignments\(targets\).entropy\(\)"),
        (lambda: lnz.Transducer(LOGITS).marginals, TypeError, r"alignments\(targets\).marginals are those of arcs"),
        (lambda: lnz.Transducer(LOGITS).log_count, TypeError, r"alignments\(targets\).log_count"),
        (lambda: lnz.Transducer(LOGITS).condition(None), TypeError, r"alignments\(targets\).condition\(z\)"),
        (lambda: lnz.Transducer(LOGITS, blank=4), ValueError, r"blank: expected a class in \[0, 4\), got 4"),
        (lambda: lnz.Transducer(LOGITS).tempered(0), ValueError, "temperature: expected a positive number, got 0"),
    ],
)  # fmt: skip
def test_arguments_that_make_no_sense(call, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_a_temperature_per_batch_entry() -> None:
    logits, temperature = random_scores((2, 3, 3, 4), 0), torch.tensor([0.5, 2.0], dtype=torch.float64)
    targets = torch.tensor([[1, 2], [3, 3]])
    wanted = [lnz.Transducer(x).tempered(t).log_prob(y) for x, t, y in zip(logits, (0.5, 2.0), targets, strict=True)]
    equal(lnz.Transducer(logits).tempered(temperature).log_prob(targets), torch.stack(wanted))
    with pytest.raises(ValueError, match=r"temperature: expected a batch shape that broadcasts with \[2\], got \[3\]"):
        lnz.Transducer(logits).tempered(torch.ones(3))
