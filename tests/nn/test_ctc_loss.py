"""lnz.nn.functional.ctc_loss beside torch's, the fused linear loss beside the plain one, and the head."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import lnz
from lnz.nn import CTCHead
from lnz.nn.functional import ctc_loss, linear_ctc_loss
from tests.suite import equal, random_scores

SIZES, LENGTHS = torch.tensor([3, 0, 2, 4]), torch.tensor([12, 7, 5, 10])
LOGITS = random_scores((12, 4, 6), 0)
TARGETS = torch.tensor([[1, 1, 2, 0], [0, 0, 0, 0], [3, 5, 0, 0], [4, 4, 4, 1]])


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("concatenated", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_equals_torch_with_log_softmax_in_front(reduction: str, concatenated: bool, dtype: torch.dtype) -> None:
    targets = torch.cat([y[:n] for y, n in zip(TARGETS, SIZES, strict=True)]) if concatenated else TARGETS
    results = []
    for ours in (True, False):
        leaf = LOGITS.to(dtype).requires_grad_()
        arguments = (targets, LENGTHS, SIZES)
        if ours:
            loss = ctc_loss(leaf, *arguments, reduction=reduction)
        else:
            loss = F.ctc_loss(leaf.log_softmax(-1), *arguments, reduction=reduction)
        weights = torch.arange(1.0, 1.0 + loss.numel(), dtype=dtype).reshape(loss.shape)
        results.append((loss, torch.autograd.grad((loss * weights).sum(), leaf)[0]))
    tolerance = {} if dtype == torch.float64 else {"rtol": 1e-5, "atol": 2e-5}
    for actual, wanted in zip(*results, strict=True):
        assert actual.dtype == dtype
        equal(actual, wanted, **tolerance)


def test_of_log_probabilities_it_is_the_same_loss() -> None:
    log_probs = LOGITS.log_softmax(-1)
    equal(ctc_loss(log_probs, TARGETS, LENGTHS, SIZES), ctc_loss(LOGITS, TARGETS, LENGTHS, SIZES))
    equal(
        ctc_loss(LOGITS[:, 0], TARGETS[0, :3], [12], [3]),
        F.ctc_loss(log_probs[:, 0], TARGETS[0, :3], torch.tensor(12), torch.tensor(3)),
    )


def test_the_gradient_is_right_where_that_of_torch_is_not() -> None:
    """On raw scores torch's gradient is the one that a log-softmax in front would need."""
    leaf = LOGITS.clone().requires_grad_()
    arguments = (TARGETS, LENGTHS, SIZES)
    assert torch.autograd.gradcheck(lambda x: ctc_loss(x, *arguments), leaf)
    assert torch.autograd.gradgradcheck(lambda x: ctc_loss(x[:5, :1], TARGETS[:1], [5], [3]), leaf)
    loss = F.ctc_loss(leaf, *arguments)
    slopes = torch.autograd.grad(loss, leaf)[0]
    step = 1e-6 * torch.ones_like(leaf)
    moved = (F.ctc_loss(leaf + step, *arguments) - F.ctc_loss(leaf - step, *arguments)) / 2
    assert abs(float(moved - (slopes * step).sum())) > 1e-8  # what this library exists for


def test_impossible_targets() -> None:
    sizes = torch.tensor([3, 0, 2, 4])
    lengths = torch.tensor([3, 7, 5, 5])  # "1 1 2" needs 4 frames, "4 4 4 1" needs 6
    with pytest.raises(
        lnz.InfeasibleError,
        match=r"none in batch entries \[0, 3\]; in entry 0, its 3 labels, 1 of them repeats, need 4 frames and there",
    ) as error:
        ctc_loss(LOGITS, TARGETS, lengths, sizes)
    assert error.value.entries == (0, 3)
    for reduction in ("none", "mean", "sum"):
        results = []
        for ours in (True, False):
            leaf = LOGITS.clone().requires_grad_()
            arguments = {"reduction": reduction, "zero_infinity": True}
            if ours:
                loss = ctc_loss(leaf, TARGETS, lengths, sizes, **arguments)
            else:
                loss = F.ctc_loss(leaf.log_softmax(-1), TARGETS, lengths, sizes, **arguments)
            results.append((loss, torch.autograd.grad(loss.sum(), leaf)[0]))
        for actual, wanted in zip(*results, strict=True):
            equal(actual, wanted)
    with pytest.raises(lnz.InfeasibleError, match="its 3 labels repeat, which needs a blank"):
        ctc_loss(LOGITS, TARGETS, LENGTHS, SIZES, blank=None)
    with pytest.raises(lnz.InfeasibleError, match="every alignment meets a probability of 0"):
        ctc_loss(LOGITS.index_fill(2, torch.tensor(5), -torch.inf), TARGETS, LENGTHS, SIZES)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_losses_beyond_the_range_of_half_precision_are_no_error(dtype: torch.dtype) -> None:
    """Hundreds of thousands of nats: +inf in float16, of targets that are possible all the same."""
    targets, T, eps = torch.tensor([[1, 2, 3]]), 60, torch.finfo(dtype).eps
    logits = (3e3 * random_scores((T, 1, 5), 0)).to(dtype).requires_grad_()
    loss, right = (ctc_loss(x, targets, [T], [3], reduction="sum") for x in (logits, logits.double()))
    assert right > 65504
    torch.testing.assert_close(loss, right.to(dtype), rtol=2 * eps, atol=0.0)
    assert torch.isfinite(torch.autograd.grad(loss, logits)[0]).all()
    hidden, weight = (20 * random_scores(shape, 1).to(dtype).requires_grad_() for shape in ((1, T, 8), (5, 8)))
    logits = (hidden @ weight.T).transpose(0, 1).double()  # as they are rounded
    loss = linear_ctc_loss(hidden, weight, None, targets, [T], [3], reduction="sum")
    right = ctc_loss(logits, targets, [T], [3], reduction="sum")
    assert right > 65504
    torch.testing.assert_close(loss, right.to(dtype), rtol=2 * eps, atol=0.0)
    pairs = zip(torch.autograd.grad(loss, (hidden, weight)), torch.autograd.grad(right, (hidden, weight)), strict=True)
    for actual, wanted in pairs:
        torch.testing.assert_close(actual, wanted, rtol=20 * eps, atol=20 * eps * wanted.abs().max().item())


def test_nan_gives_nan_for_its_sequence_alone() -> None:
    for scores in (LOGITS, LOGITS.float()):
        leaf = scores.clone()
        leaf[4, 2, 3] = torch.nan
        leaf.requires_grad_()
        losses = ctc_loss(leaf, TARGETS, LENGTHS, SIZES, reduction="none")
        assert torch.isnan(losses).tolist() == [False, False, True, False]
        gradient = torch.autograd.grad(losses.sum(), leaf)[0]
        assert torch.isfinite(gradient[:, [0, 1, 3]]).all()
        assert torch.isnan(gradient[:5, 2]).all()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"log_probs": LOGITS[0, 0]}, ValueError, r"log_probs: expected shape \[T, B, C\] or \[T, C\], got \[6\]"),
        ({"log_probs": LOGITS.long()}, TypeError, "log_probs: expected floating point numbers"),
        ({"targets": TARGETS.double()}, TypeError, "targets: expected a torch.Tensor of integers, got torch.float64"),
        ({"targets": TARGETS[0]}, ValueError, "targets: expected the sum of target_lengths, 9 labels, got 4"),
        ({"targets": TARGETS[:3]}, ValueError, r"targets: expected shape \[4, S\]"),
        ({"targets": TARGETS + 5}, ValueError, r"targets: expected labels in \[0, 6\) other than the blank, 0, got 6"),
        ({"input_lengths": [12, 7, 5]}, ValueError, "input_lengths: expected 4 numbers, one per batch entry, got 3"),
        ({"input_lengths": [13, 7, 5, 9]}, ValueError, r"^input_lengths: expected values in \[0, 12\]"),
        ({"input_lengths": "abcd"}, TypeError, "input_lengths: expected integers, got 'abcd'"),
        ({"log_prior": [0.0] * 6}, TypeError, "log_prior: expected a torch.Tensor, got list"),
        ({"log_prior": torch.zeros(5)}, ValueError, r"log_prior: expected 6 finite values, got shape \[5\]"),
        ({"log_prior": torch.full((6,), torch.nan)}, ValueError, "log_prior: 6 of 6 scores are NaN"),
        ({"log_prior": torch.zeros(6).log()}, ValueError, r"log_prior: expected 6 finite values, got -inf at \[0\]"),
        ({"target_lengths": SIZES.double()}, TypeError, "target_lengths: expected integers, got dtype torch.float64"),
        ({"blank": 6}, ValueError, r"blank: expected a class in \[0, 6\) or None, got 6"),
        ({"reduction": "max"}, ValueError, "reduction: expected 'none', 'mean' or 'sum', got 'max'"),
    ],
)
def test_arguments_that_make_no_sense(change: dict, error: type[Exception], message: str) -> None:
    arguments = {"log_probs": LOGITS, "targets": TARGETS, "input_lengths": LENGTHS, "target_lengths": SIZES} | change
    with pytest.raises(error, match=message):
        ctc_loss(**arguments)


@pytest.mark.parametrize("shape", [(6, 0, 4, 3), (0, 2, 4, 0), (5, 2, 4, 0), (0, 0, 4, 0)])
def test_nothing_along_an_axis(shape: tuple[int, int, int, int]) -> None:
    T, B, C, S = shape
    leaf, hidden, weight = (random_scores(x, 0).requires_grad_() for x in ((T, B, C), (B, T, 5), (C, 5)))
    for targets in (torch.ones(B, S, dtype=torch.int64), torch.ones(B * S, dtype=torch.int64)):
        rest = (targets, [T] * B, [S] * B)
        plain = ctc_loss(leaf, *rest, reduction="none")
        equal(plain, -leaf.log_softmax(-1)[..., 0].sum(0))
        equal(ctc_loss(leaf, *rest, reduction="sum"), plain.sum())
        fused = linear_ctc_loss(hidden, weight, None, *rest, reduction="none")
        equal(fused, -F.linear(hidden, weight).log_softmax(-1)[..., 0].sum(1))
        found = torch.autograd.grad(plain.sum() + fused.sum(), (leaf, hidden, weight))
        assert [x.shape for x in found] == [leaf.shape, hidden.shape, weight.shape]
    assert CTCHead(5, C).double().loss(hidden, torch.ones(B, S, dtype=torch.int64), reduction="none").shape == (B,)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_lies_over_padding_is_never_looked_at(value: float) -> None:
    results = []
    for fill in (0.0, value):
        leaf = LOGITS.masked_fill((torch.arange(12)[:, None] >= LENGTHS)[..., None], fill).requires_grad_()
        hidden = random_scores((4, 12, 5), 1).masked_fill((torch.arange(12) >= LENGTHS[:, None])[..., None], fill)
        hidden, weight = hidden.requires_grad_(), random_scores((6, 5), 2).requires_grad_()
        loss = ctc_loss(leaf, TARGETS, LENGTHS, SIZES)
        fused = linear_ctc_loss(hidden, weight, None, TARGETS, LENGTHS, SIZES, frames_at_once=5)
        first = torch.autograd.grad(loss + fused, (leaf, hidden, weight), create_graph=True)
        second = torch.autograd.grad(sum(x.square().sum() for x in first), (leaf, hidden, weight))
        results.append((loss, fused, *first, *second))
    for actual, wanted in zip(*results, strict=True):
        equal(actual, wanted)


def test_a_constant_on_all_logits_changes_nothing() -> None:
    hidden, weight, bias = (random_scores(x, 0).float() for x in ((4, 12, 5), (6, 5), (6,)))
    for offset in (1e4, -1e6):
        shifted = (LOGITS.float() + offset).requires_grad_()
        exact = (shifted.detach().double() - offset).requires_grad_()  # of the rounded logits
        pair = [ctc_loss(x, TARGETS, LENGTHS, SIZES) for x in (shifted, exact)]
        equal(pair[0].double(), pair[1], rtol=1e-6, atol=1e-6)
        gradients = [torch.autograd.grad(loss, x)[0] for loss, x in zip(pair, (shifted, exact), strict=True)]
        equal(gradients[0].double(), gradients[1], rtol=1e-5, atol=1e-6)
        moved = linear_ctc_loss(hidden * 0, weight, bias + offset, TARGETS, LENGTHS, SIZES)
        still = linear_ctc_loss(hidden.double() * 0, weight.double(), (bias + offset).double(), TARGETS, LENGTHS, SIZES)
        equal(moved.double(), still, rtol=1e-6, atol=1e-6)


# Linear and CTC in one ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("blank", "merge"), [(0, True), (5, False), (None, True)])
@pytest.mark.parametrize("frames", [1, 7, None])
def test_the_fused_linear_loss_equals_the_plain_one(blank: int | None, merge: bool, frames: int | None) -> None:
    targets = torch.tensor([[1, 2, 1, 4], [3, 0, 0, 0], [3, 4, 0, 0], [4, 2, 4, 1]])
    sizes = SIZES.clamp(min=1)
    leaves = [random_scores(shape, i).requires_grad_() for i, shape in enumerate([(4, 12, 5), (6, 5), (6,)])]
    hidden, weight, bias = leaves
    rest = (targets, LENGTHS, sizes, blank)
    settings = {"reduction": "none", "collapse_repeats": merge}
    fused = linear_ctc_loss(hidden, weight, bias, *rest, frames_at_once=frames, **settings)
    plain = ctc_loss(F.linear(hidden, weight, bias).transpose(0, 1), *rest, **settings)
    equal(fused, plain)
    factors = torch.arange(1.0, 5.0, dtype=torch.float64)
    pairs = [torch.autograd.grad((losses * factors).sum(), leaves) for losses in (fused, plain)]
    for actual, wanted in zip(*pairs, strict=True):
        equal(actual, wanted)


@pytest.mark.parametrize("blank", [0, None])
def test_a_prior_in_the_fused_linear_loss_is_that_of_the_plain_one(blank: int | None) -> None:
    leaves = [random_scores(shape, i).requires_grad_() for i, shape in enumerate([(4, 12, 5), (6, 5), (6,)])]
    prior = random_scores((6,), 3).log_softmax(-1)
    rest = (torch.tensor([[1, 2, 1, 4], [3, 1, 1, 1], [3, 4, 1, 1], [4, 2, 4, 1]]), LENGTHS, SIZES.clamp(min=1), blank)
    fused = linear_ctc_loss(*leaves, *rest, log_prior=prior, frames_at_once=7)
    plain = ctc_loss(F.linear(*leaves).transpose(0, 1), *rest, log_prior=prior)
    equal(fused, plain)
    assert abs(float(fused - linear_ctc_loss(*leaves, *rest))) > 0.1
    for actual, wanted in zip(*(torch.autograd.grad(loss, leaves) for loss in (fused, plain)), strict=True):
        equal(actual, wanted)


@pytest.mark.parametrize("prior", [None, torch.tensor([-0.5, -1.0, -2.0], dtype=torch.float64)])
def test_second_derivatives_of_the_fused_linear_loss(prior: torch.Tensor | None) -> None:
    leaves = [random_scores(shape, i).requires_grad_() for i, shape in enumerate([(1, 4, 2), (3, 2), (3,)])]

    def loss(*leaves: torch.Tensor) -> torch.Tensor:
        return linear_ctc_loss(*leaves, torch.tensor([[1, 2]]), [4], [2], log_prior=prior)

    assert torch.autograd.gradcheck(loss, leaves)
    assert torch.autograd.gradgradcheck(loss, leaves)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"weight": torch.zeros(5, 6)},
            ValueError,
            r"hidden, weight: .* got \[4, 12, 5\] and \[5, 6\]",
        ),
        ({"weight": torch.zeros(6, 5).double()}, TypeError, "weight: expected dtype torch.float32 as hidden, got"),
        ({"bias": torch.zeros(5)}, ValueError, r"bias: expected shape \[6\], got \[5\]"),
        ({"bias": torch.zeros(6).double()}, TypeError, "bias: expected dtype torch.float32 as hidden, got"),
        ({"bias": [0.0] * 6}, TypeError, "bias: expected a torch.Tensor, got list"),
        ({"log_prior": torch.zeros(5)}, ValueError, r"log_prior: expected 6 finite values, got shape \[5\]"),
        ({"frames_at_once": 0}, ValueError, "frames_at_once: expected a positive integer, got 0"),
        ({"input_lengths": [13, 7, 5, 9]}, ValueError, r"^input_lengths: .* \[0, 12\], the frames of hidden, got 13"),
        ({"blank": 6}, ValueError, r"blank: expected a class in \[0, 6\) or None, got 6"),
    ],
)
def test_arguments_of_the_fused_linear_loss_that_make_no_sense(change, error: type[Exception], message: str) -> None:
    arguments = {"hidden": torch.zeros(4, 12, 5), "weight": torch.zeros(6, 5), "bias": None, "targets": TARGETS}
    with pytest.raises(error, match=message):
        linear_ctc_loss(**arguments | {"input_lengths": LENGTHS, "target_lengths": SIZES} | change)


def test_the_head_trains_under_autocast_and_names_its_own_arguments() -> None:
    head, targets = CTCHead(5, 6), torch.tensor([[1, 2], [3, -100]])
    hidden = torch.randn(2, 8, 5, generator=torch.Generator().manual_seed(0))
    wanted = head.loss(hidden, targets)
    with torch.autocast("cpu", torch.bfloat16):
        equal(head.loss(hidden, targets), wanted)
        loss = head.loss(hidden.bfloat16(), targets)
    loss.backward()
    equal(loss, wanted, rtol=1e-2, atol=0)
    with pytest.raises(ValueError, match=r"^lengths: expected values in \[0, 8\], the frames of hidden, got 9"):
        head.loss(hidden, targets, [9, 8])


def test_the_head_never_holds_all_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    head = CTCHead(8, 50).double()
    hidden, targets = random_scores((3, 20, 8), 0), torch.tensor([[4, 4, 9], [1, -100, -100], [2, 3, 49]])
    wanted = -head(hidden).log_prob(targets)
    equal(head.loss(hidden, targets, reduction="none"), wanted)
    largest = 0
    plain = torch.nn.functional.linear

    def watched(*arguments: torch.Tensor) -> torch.Tensor:
        nonlocal largest
        result = plain(*arguments)
        largest = max(largest, result.numel())
        return result

    monkeypatch.setattr("lnz.ops.ctc.linear.linear", watched)
    loss = head.loss(hidden.requires_grad_(), targets, frames_at_once=4)
    loss.backward()
    assert largest == 4 * 50
    actual = [p.grad.clone() for p in head.parameters()]
    head.zero_grad()
    (-head(hidden).log_prob(targets) / torch.tensor([3, 1, 3])).mean().backward()
    for a, p in zip(actual, head.parameters(), strict=True):
        equal(a, p.grad)
    assert list(head.state_dict()) == ["linear.weight", "linear.bias"]
