"""The transducer's loss of a batch from joint scores, and its gradient."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.case import OURS, AbsentError, Contender, Numbers, Workload

SHAPES = {
    "8x150x20x500": (8, 150, 20, 500, 1.0),
    "4x200x50x500": (4, 200, 50, 500, 1.0),
    "4x200x50x500-times-30": (4, 200, 50, 500, 30.0),
    "16x200x40x32": (16, 200, 40, 32, 1.0),
}


class TransducerLoss:
    name = "transducer-loss"
    title = "Transducer (RNN-T) loss from joint scores, forward and backward"
    summary = (
        "B sequences of T frames with U labels and C classes (BxTxUxC), float32 logits (standard normal, or 30 times "
        "that): the summed loss and its gradient. torchaudio's kernel for the CPU runs on one thread. Plain torch is a "
        "log-softmax and the recursion along anti-diagonals through autograd, written for this benchmark."
    )

    @property
    def shapes(self) -> list[str]:
        return list(SHAPES)

    def workload(self, shape: str, threads: int) -> Workload:
        B, T, U, C, scale = SHAPES[shape]
        generator = torch.Generator().manual_seed(0)
        logits = (scale * torch.randn(B, T, U + 1, C, generator=generator)).requires_grad_()
        targets = torch.randint(1, C, (B, U), generator=generator)
        return Workload(
            contenders={
                OURS: partial(_ours, logits, targets),
                "torchaudio": partial(_torchaudio, logits, targets),
                "plain torch": lambda: _loss(lambda: _plain(logits, targets), logits),
            },
            reference=lambda: _reference(logits.detach(), targets),
            tolerance=2e-5,
            tolerances={"torchaudio": 5e-3 if scale == 1.0 else 5e-2, "plain torch": 5e-3},
            targets={"torchaudio": 3.0, "plain torch": 5.0},
        )


def _loss(call: Any, logits: Tensor, package: str = "") -> Contender:
    def timed() -> Tensor:
        logits.grad = None
        loss = call()
        loss.backward()
        return loss

    def read(loss: Tensor) -> Numbers:
        assert logits.grad is not None
        # the loss relative to its size: in float32 it has some seven digits
        return {"log of loss": loss.detach().double().log().numpy(), "gradient": logits.grad.numpy().copy()}

    return Contender(timed, read, package)


def _ours(logits: Tensor, targets: Tensor) -> Contender:
    from lnz.nn.functional import rnnt_loss

    lengths = _lengths(logits)
    return _loss(lambda: rnnt_loss(logits, targets, *lengths, blank=0, reduction="sum"), logits, "lnz")


def _torchaudio(logits: Tensor, targets: Tensor) -> Contender:
    try:
        with warnings.catch_warnings(action="ignore"):
            from torchaudio.functional import rnnt_loss  # pyright: ignore[reportMissingImports]
    except (ImportError, OSError) as error:
        raise AbsentError(f"torchaudio does not load beside this torch ({type(error).__name__})") from error
    small, lengths = targets.int(), [n.int() for n in _lengths(logits)]
    return _loss(lambda: rnnt_loss(logits, small, *lengths, blank=0, reduction="sum"), logits, "torchaudio")


def _lengths(logits: Tensor) -> tuple[Tensor, Tensor]:
    B, T, rows, _ = logits.shape
    return torch.full((B,), T), torch.full((B,), rows - 1)


def _plain(logits: Tensor, targets: Tensor) -> Tensor:
    """−ln P(y) summed over the batch: one anti-diagonal of nodes (t, u), t + u = n, after another."""
    (B, T, rows, _), U = logits.shape, targets.shape[1]
    log_probs = logits.log_softmax(-1)
    blank = log_probs[..., 0]
    label = log_probs[:, :, :-1].gather(-1, targets[:, None, :, None].expand(B, T, U, 1)).squeeze(-1)
    label = F.pad(label, (0, 1), value=-torch.inf)
    n = torch.arange(T + U)[:, None] - torch.arange(rows)
    outside, n = (n < 0) | (n >= T), n.clamp(0, T - 1).expand(B, -1, -1)
    blank, label = (x.gather(1, n).masked_fill(outside, -1e30) for x in (blank, label))
    alpha = blank.new_full((B, rows), -1e30).index_fill(1, torch.tensor(0), 0.0)
    for step in range(T + U):
        moved = F.pad((alpha + label[:, step])[:, :-1], (1, 0), value=-1e30)
        alpha = torch.logaddexp(alpha + blank[:, step], moved)
    return -alpha[:, -1].sum()


def _reference(logits: Tensor, targets: Tensor) -> Numbers:
    """In float64, a sequence at a time: the loss and, from α and β over a plain table of nodes, the gradient."""
    total, slopes = 0.0, torch.empty(logits.shape)
    for b, x in enumerate(logits):
        leaf = x.double()[None].requires_grad_()
        loss = _by_frames(leaf[0].log_softmax(-1), targets[b])
        slopes[b] = torch.autograd.grad(loss, leaf)[0][0]
        total += loss.item()
    return {"log of loss": torch.tensor(total, dtype=torch.float64).log().numpy(), "gradient": slopes.numpy()}


def _by_frames(log_probs: Tensor, target: Tensor) -> Tensor:
    """−ln P(y) frame by frame, without anti-diagonals: within a frame, a cumulative logsumexp over labels."""
    blank, label = log_probs[..., 0], log_probs[:, :-1].gather(2, target[None, :, None].expand(len(log_probs), -1, 1))
    climbed = F.pad(label[..., 0].cumsum(1), (1, 0))  # of a path that emits u labels in this frame, from the first on
    alpha = climbed[0]
    for t in range(1, len(log_probs)):
        alpha = climbed[t] + (alpha + blank[t - 1] - climbed[t]).logcumsumexp(0)
    return -(alpha[-1] + blank[-1, -1])
