"""lnz.nn.functional.rnnt_loss: torchaudio's signature, reductions, clamping, and targets without alignment."""

from __future__ import annotations

import pytest
import torch

import lnz
from lnz.nn.functional import rnnt_loss
from tests.suite import equal, random_scores

LOGITS = random_scores((4, 6, 4, 5), 0)
TARGETS = torch.tensor([[1, 1, 2], [0, 0, 0], [3, 2, 0], [2, 3, 0]], dtype=torch.int32)
LENGTHS = torch.tensor([6, 4, 5, 3], dtype=torch.int32)
SIZES = torch.tensor([3, 0, 2, 1], dtype=torch.int32)
ARGUMENTS = (TARGETS, LENGTHS, SIZES)


def one_by_one(logits: torch.Tensor, blank: int) -> torch.Tensor:
    rows = zip(logits, TARGETS.long(), LENGTHS.tolist(), SIZES.tolist(), strict=True)
    return torch.stack([-lnz.Transducer(x[:n, : m + 1], blank=blank).log_prob(y[:m]) for x, y, n, m in rows])


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_reductions_are_those_of_torchaudio(reduction: str) -> None:
    """Its mean is over the batch; the last class is its blank."""
    losses = rnnt_loss(LOGITS, *ARGUMENTS, reduction=reduction)
    wanted = one_by_one(LOGITS, 4)
    equal(losses, {"none": wanted, "mean": wanted.mean(), "sum": wanted.sum()}[reduction])
    equal(rnnt_loss(LOGITS, *ARGUMENTS, blank=4, reduction=reduction), losses)


def test_log_probabilities_may_be_given_instead() -> None:
    leaf = LOGITS.clone().requires_grad_()
    wanted = rnnt_loss(leaf, *ARGUMENTS, reduction="none")
    for fused in (True, False):
        losses = rnnt_loss(leaf.log_softmax(-1), *ARGUMENTS, reduction="none", fused_log_softmax=fused)
        equal(losses, wanted)
        slopes = (torch.autograd.grad(x.sum(), leaf, retain_graph=True)[0] for x in (losses, wanted))
        equal(*slopes)


def test_the_gradient_is_that_of_raw_scores() -> None:
    leaf = LOGITS[:, :4, :3, :4].clone().requires_grad_()
    arguments = (TARGETS[:, :2].clamp(max=2), LENGTHS.clamp(max=4), SIZES.clamp(max=2))
    for settings in ({}, {"one_label_per_frame": True}, {"fused_log_softmax": False}):
        assert torch.autograd.gradcheck(lambda x, s=settings: rnnt_loss(x, *arguments, **s), leaf)
        assert torch.autograd.gradgradcheck(lambda x, s=settings: rnnt_loss(x, *arguments, **s), leaf)


@pytest.mark.parametrize("fused", [True, False])
def test_clamping_is_per_sequence_and_before_what_comes_in(fused: bool) -> None:
    leaf = (LOGITS if fused else LOGITS.log_softmax(-1)).clone().requires_grad_()
    factors = torch.tensor([1.0, -2.0, 30.0, 0.5], dtype=torch.float64)
    settings = {"reduction": "none", "fused_log_softmax": fused}
    plain = torch.autograd.grad(rnnt_loss(leaf, *ARGUMENTS, **settings).sum(), leaf)[0]
    losses = rnnt_loss(leaf, *ARGUMENTS, clamp=0.1, **settings)
    equal(losses, rnnt_loss(leaf, *ARGUMENTS, **settings))
    clamped = torch.autograd.grad((losses * factors).sum(), leaf)[0]
    equal(clamped, plain.clamp(-0.1, 0.1) * factors[:, None, None, None])
    assert (plain.abs() > 0.1).any()


def test_compiles_in_one_graph() -> None:
    torch.compiler.reset()
    leaf = LOGITS.clone().requires_grad_()
    compiled = torch.compile(rnnt_loss, fullgraph=True, backend="aot_eager")
    results = []
    for function in (rnnt_loss, compiled):
        loss = function(leaf, *ARGUMENTS)
        results.append((loss, torch.autograd.grad(loss, leaf)[0]))
    for actual, wanted in zip(*results, strict=True):
        equal(actual, wanted)


def test_impossible_targets() -> None:
    with pytest.raises(
        lnz.InfeasibleError,
        match=r"entries \[0, 2\]; in entry 0, its 3 labels need a frame and there is none",
    ) as error:
        rnnt_loss(LOGITS, TARGETS, [0, 0, 0, 3], SIZES)
    assert error.value.entries == (0, 2)
    with pytest.raises(lnz.InfeasibleError, match="its 3 labels need 3 frames and there are 2"):
        rnnt_loss(LOGITS, TARGETS, [2, 4, 5, 3], SIZES, one_label_per_frame=True)
    without = LOGITS.index_fill(3, torch.tensor(1), -torch.inf)
    with pytest.raises(lnz.InfeasibleError, match=r"in entry 0, every alignment meets a probability of 0; zero_inf"):
        rnnt_loss(without, *ARGUMENTS)
    leaf = without.requires_grad_()
    for clamp in (-1, 0.5):
        losses = rnnt_loss(leaf, *ARGUMENTS, reduction="none", zero_infinity=True, clamp=clamp)
        assert losses[0] == 0
        gradient = torch.autograd.grad(losses.sum(), leaf)[0]
        assert torch.isfinite(gradient).all()
        assert (gradient[0] == 0).all()
    assert (gradient[1:, :3, 0] != 0).any()


@pytest.mark.parametrize("clamp", [-1.0, 0.5])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_losses_beyond_the_range_of_half_precision_are_no_error(dtype: torch.dtype, clamp: float) -> None:
    logits = (3e3 * random_scores((1, 60, 4, 5), 0)).to(dtype).requires_grad_()
    rest = torch.tensor([[1, 2, 3]]), [60], [3]
    loss, right = (rnnt_loss(x, *rest, blank=0, clamp=clamp, reduction="sum") for x in (logits, logits.double()))
    assert right > 65504
    torch.testing.assert_close(loss, right.to(dtype), rtol=2 * torch.finfo(dtype).eps, atol=0.0)
    assert torch.isfinite(torch.autograd.grad(loss, logits)[0]).all()


def test_nan_gives_nan_for_its_sequence_alone() -> None:
    for scores in (LOGITS, LOGITS.float()):
        leaf = scores.clone()
        leaf[2, 1, 1, 0] = torch.nan
        losses = rnnt_loss(leaf.requires_grad_(), *ARGUMENTS, reduction="none")
        assert torch.isnan(losses).tolist() == [False, False, True, False]
        gradient = torch.autograd.grad(losses.sum(), leaf)[0]
        assert torch.isfinite(gradient[[0, 1, 3]]).all()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"logits": LOGITS[0]}, ValueError, r"logits: expected shape \[B, T, U \+ 1, C\], got \[6, 4, 5\]"),
        ({"logits": LOGITS[:, :, :0]}, ValueError, r"logits: expected shape \[\*batch, T, U \+ 1, C\]"),
        ({"logits": LOGITS.long()}, TypeError, "logits: expected floating point numbers, got dtype torch.int64"),
        ({"targets": TARGETS.double()}, TypeError, "targets: expected a torch.Tensor of integers, got torch.float64"),
        ({"targets": TARGETS[0]}, ValueError, r"targets: expected shape \[4, U\], got \[3\]"),
        ({"targets": TARGETS[:3]}, ValueError, r"targets: expected shape \[4, U\], got \[3, 3\]"),
        ({"targets": TARGETS + 2}, ValueError, r"labels in \[0, 5\) other than the blank, 4, got 4 at \[0, 2\]"),
        ({"targets": TARGETS + 3}, ValueError, r"labels in \[0, 5\) other than the blank, 4, got 4 at \[0, 0\]"),
        ({"logit_lengths": [6, 4, 5]}, ValueError, "logit_lengths: expected 4 numbers, one per batch entry, got 3"),
        (
            {"logit_lengths": [7, 4, 5, 3]},
            ValueError,
            r"^logit_lengths: expected values in \[0, 6\], the frames of logits",
        ),
        ({"target_lengths": [4, 0, 2, 1]}, ValueError, r"target_lengths: expected values in \[0, 3\]"),
        ({"target_lengths": SIZES.double()}, TypeError, "target_lengths: expected integers, got dtype torch.float64"),
        ({"blank": 5}, ValueError, r"blank: expected a class in \[0, 5\), got 5"),
        ({"blank": -6}, ValueError, r"blank: expected a class in \[0, 5\), got -6"),
        ({"blank": None}, TypeError, "blank: expected an int, got NoneType"),
        ({"reduction": "max"}, ValueError, "reduction: expected 'none', 'mean' or 'sum', got 'max'"),
    ],
)
def test_arguments_that_make_no_sense(change: dict, error: type[Exception], message: str) -> None:
    arguments = {"logits": LOGITS, "targets": TARGETS, "logit_lengths": LENGTHS, "target_lengths": SIZES} | change
    with pytest.raises(error, match=message):
        rnnt_loss(**arguments)


def test_as_many_labels_as_frames_fit_one_per_frame() -> None:
    """What is impossible then is a probability of 0, not the number of frames."""
    logits = torch.zeros(1, 3, 4, 2)
    targets, three = torch.zeros(1, 3, dtype=torch.int32), torch.tensor([3], dtype=torch.int32)
    assert rnnt_loss(logits, targets, three, three, one_label_per_frame=True).isfinite()
    with pytest.raises(lnz.InfeasibleError, match="every alignment meets a probability of 0"):
        rnnt_loss(logits.index_fill(3, torch.tensor([0]), -torch.inf), targets, three, three, one_label_per_frame=True)
    with pytest.raises(lnz.InfeasibleError, match="its 3 labels need 3 frames and there are 2"):
        rnnt_loss(logits, targets, three - 1, three, one_label_per_frame=True)
