"""CTC: the loss of a batch and its gradient, and forced alignment."""

from __future__ import annotations

import atexit
import os
import subprocess
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

import lnz
from benchmarks.case import OURS, AbsentError, Contender, Numbers, Workload, require

SHAPES = {
    "500x32x64x60": (500, 32, 64, 60, 1.0, 6.0),
    "500x32x64x60-times-30": (500, 32, 64, 60, 30.0, 6.0),
    "1500x16x128x200": (1500, 16, 128, 200, 1.0, 6.0),
    "1500x16x128x200-times-30": (1500, 16, 128, 200, 30.0, 6.0),
    "200x64x5000x20": (200, 64, 5000, 20, 1.0, 5.0),
    "200x64x5000x20-times-30": (200, 64, 5000, 20, 30.0, 5.0),
}


COLD = {500: 7.0, 1500: 9.0, 200: 7.0}  # by the number of frames


class CTCLoss:
    name = "ctc-loss"
    title = "CTC loss from logits, forward and backward"
    summary = (
        "B sequences of T frames with C classes and S labels (TxBxCxS), float32 logits (standard normal, or 30 times "
        "that): the summed loss and its gradient, to 2e-5. In float32 torch and optax may be off by 5e-3, and at 30 "
        "times the logits by 5e-2. torch's loss needs a log-softmax in front of it; it is here in float64 too, which "
        "is right everywhere. Ours and optax's (jitted) are given the logits."
    )

    @property
    def shapes(self) -> list[str]:
        return list(SHAPES)

    def workload(self, shape: str, threads: int) -> Workload:
        T, B, C, S, scale, target = SHAPES[shape]
        generator = torch.Generator().manual_seed(0)
        logits = (scale * torch.randn(T, B, C, generator=generator)).requires_grad_()
        targets = torch.randint(1, C, (B, S), generator=generator)
        arguments = (logits, targets, torch.full((B,), T), torch.full((B,), S))
        loose = 5e-3 if scale == 1.0 else 5e-2
        return Workload(
            contenders={
                OURS: partial(_ours, arguments),
                "torch": partial(_torch, arguments, torch.float32),
                "torch, in float64": partial(_torch, arguments, torch.float64),
                "optax": partial(_optax, logits.detach(), targets),
            },
            reference=lambda: _reference(logits.detach().double(), targets),
            tolerance=2e-5,
            tolerances={"torch": loose, "optax": loose},
            targets={"torch": target, "torch, in float64": target},
            cold_targets={"torch": COLD[T]},
        )


def _loss(call: Any, logits: Tensor) -> Contender:
    def timed() -> Tensor:
        logits.grad = None
        loss = call()
        loss.backward()
        return loss

    def read(loss: Tensor) -> Numbers:
        assert logits.grad is not None
        # the loss relative to its size: in float32 it has some seven digits
        return {"log of loss": loss.detach().double().log().numpy(), "gradient": logits.grad.numpy().copy()}

    return Contender(timed, read)


def _ours(arguments: tuple[Tensor, ...]) -> Contender:
    return _loss(lambda: lnz_ctc_loss(*arguments, reduction="sum"), arguments[0])


def _torch(arguments: tuple[Tensor, ...], dtype: torch.dtype) -> Contender:
    logits, targets, frames, labels = arguments

    def loss() -> Tensor:
        return F.ctc_loss(logits.to(dtype).log_softmax(-1), targets, frames, labels, reduction="sum")

    return _loss(loss, logits)


def _optax(logits: Tensor, targets: Tensor) -> Contender:
    jax: Any = require("jax", "jax==0.10.2")
    optax: Any = require("optax", "optax==0.2.8")
    scores = jax.numpy.asarray(logits.transpose(0, 1).numpy())
    labels = jax.numpy.asarray(targets.int().numpy())
    none = [jax.numpy.zeros(x.shape[:2]) for x in (scores, labels)]  # no frame and no label is padding
    loss = jax.jit(jax.value_and_grad(lambda x: optax.ctc_loss(x, none[0], labels, none[1]).sum()))

    def read(answer: Any) -> Numbers:
        value, gradient = map(np.asarray, answer)
        return {"log of loss": np.log(value.astype(np.float64)), "gradient": gradient.swapaxes(0, 1)}

    return Contender(lambda: jax.block_until_ready(loss(scores)), read, "optax")


def lnz_ctc_loss(*arguments: Any, **settings: Any) -> Tensor:
    from lnz.nn.functional import ctc_loss

    return ctc_loss(*arguments, **settings)


def _reference(logits: Tensor, targets: Tensor) -> Numbers:
    """Forward and backward in the log domain, in float64, over the states of the extended targets."""
    (T, B, _), S = logits.shape, targets.shape[1]
    log_probs = logits.log_softmax(-1)
    states = torch.zeros(B, 2 * S + 1, dtype=torch.int64)
    states[:, 1::2] = targets
    emission = log_probs.gather(2, states.expand(T, -1, -1))
    skip = torch.full((B, 2 * S + 1), -torch.inf, dtype=torch.float64)
    skip[:, 3::2] = torch.where(targets[:, 1:] != targets[:, :-1], 0.0, -torch.inf).double()

    def sweep(emission: Tensor, skip: Tensor) -> Tensor:
        alpha = torch.full_like(emission, -torch.inf)
        alpha[0, :, :2] = emission[0, :, :2]
        for t in range(1, T):
            one = F.pad(alpha[t - 1], (1, 0), value=-torch.inf)[:, :-1]
            two = F.pad(alpha[t - 1], (2, 0), value=-torch.inf)[:, :-2] + skip
            alpha[t] = torch.stack((alpha[t - 1], one, two)).logsumexp(0) + emission[t]
        return alpha

    alpha = sweep(emission, skip)
    reverse_skip = F.pad(skip.flip(1), (2, 0), value=-torch.inf)[:, :-2]
    beta = sweep(emission.flip(0, 2), reverse_skip).flip(0, 2)
    log_q = alpha[-1, :, -2:].logsumexp(-1)
    occupied = (alpha + beta - emission - log_q[:, None]).exp()
    gradient = log_probs.exp().scatter_add_(2, states.expand(T, -1, -1), -occupied)
    return {"log of loss": (-log_q.sum()).log().numpy(), "gradient": gradient.numpy()}


class LinearCTCLoss:
    name = "linear-ctc-loss"
    title = "A linear layer and CTC, forward and backward"
    summary = (
        "Hidden states of H features to C classes (TxBxCxSxH), float32: the summed loss and the gradients of the "
        "states and of the layer. Ours is the fused loss, which computes the logits twice and never holds them all; "
        "torch's is linear, log-softmax and CTC loss."
    )

    @property
    def shapes(self) -> list[str]:
        return ["200x64x5000x20x256"]

    def workload(self, shape: str, threads: int) -> Workload:
        T, B, C, S, H = map(int, shape.split("x"))
        generator = torch.Generator().manual_seed(0)
        hidden = torch.randn(B, T, H, generator=generator).requires_grad_()
        weight = (torch.randn(C, H, generator=generator) / H**0.5).requires_grad_()
        targets = torch.randint(1, C, (B, S), generator=generator)
        leaves, rest = (hidden, weight), (targets, torch.full((B,), T), torch.full((B,), S))

        def ours() -> Tensor:
            from lnz.nn.functional import linear_ctc_loss

            return linear_ctc_loss(hidden, weight, None, *rest, reduction="sum")

        def theirs(hidden: Tensor = hidden, weight: Tensor = weight) -> Tensor:
            log_probs = F.linear(hidden, weight).log_softmax(-1).transpose(0, 1)
            return F.ctc_loss(log_probs, *rest, reduction="sum")

        def numbers(loss: Tensor, gradients: tuple[Tensor | None, ...]) -> Numbers:
            found = {"log of loss": loss.detach().double().log().numpy()}
            for name, gradient in zip(("hidden", "weight"), gradients, strict=True):
                assert gradient is not None
                found[name] = gradient.detach().clone().numpy()
            return found

        def contender(call: Any) -> Contender:
            def timed() -> Tensor:
                for leaf in leaves:
                    leaf.grad = None
                loss = call()
                loss.backward()
                return loss

            return Contender(timed, lambda loss: numbers(loss, tuple(leaf.grad for leaf in leaves)))

        def reference() -> Numbers:
            wide = [leaf.detach().double().requires_grad_() for leaf in leaves]
            loss = theirs(*wide)
            return numbers(loss, torch.autograd.grad(loss, wide))

        return Workload(
            contenders={OURS: lambda: contender(ours), "torch": lambda: contender(theirs)},
            reference=reference,
            tolerance=2e-5,
            tolerances={"torch": 5e-3},
            targets={"torch": 1.0},
        )


class ForcedAlignment:
    name = "forced-alignment"
    title = "CTC forced alignment of a batch"
    summary = (
        "The best alignments of B targets of S labels in T frames with C classes (TxBxCxS), float32 log-probs. "
        "torchaudio's aligner takes one sequence at a time; it is not to be had for this torch, so that it runs in a "
        "process of its own, with its own torch, which holds the inputs already: what is timed is the loop there and "
        "a line through a pipe. Beside it, a loop of a Viterbi recursion in NumPy, vectorised over the states."
    )

    @property
    def shapes(self) -> list[str]:
        return ["500x32x64x60"]

    def workload(self, shape: str, threads: int) -> Workload:
        T, B, C, S = map(int, shape.split("x"))
        generator = torch.Generator().manual_seed(0)
        log_probs = torch.randn(B, T, C, generator=generator).log_softmax(-1)
        targets = torch.randint(1, C, (B, S), generator=generator)

        def best() -> np.ndarray:
            return lnz.CTC(log_probs, validate_args=False).alignments(targets).argmax().numpy()

        def loop() -> np.ndarray:
            return np.stack([_viterbi(x, y) for x, y in zip(log_probs.numpy(), targets.numpy(), strict=True)])

        def score(z: np.ndarray) -> Numbers:
            at = log_probs.double().numpy()
            return {"score": np.take_along_axis(at, z[..., None], 2).sum((1, 2)) / T}

        wide = log_probs.double().numpy()
        return Workload(
            contenders={
                OURS: lambda: Contender(best, score, "lnz"),
                "torchaudio": lambda: _torchaudio(log_probs, targets, threads, score),
                "a loop of NumPy": lambda: Contender(loop, score),
            },
            reference=lambda: score(np.stack([_viterbi(x, y) for x, y in zip(wide, targets.numpy(), strict=True)])),
            tolerance=1e-6,
            targets={"torchaudio": 10.0, "a loop of NumPy": 10.0},
        )


def _torchaudio(log_probs: Tensor, targets: Tensor, threads: int, score: Any) -> Contender:
    """A loop over ``torchaudio.functional.forced_align`` in the environment ``.venv-audio``."""
    root = Path(__file__).parents[2]
    python = Path(os.environ.get("LNZ_BENCH_TORCHAUDIO", root / ".venv-audio" / "bin" / "python"))
    if not python.exists():
        raise AbsentError(f"no {python.name} in .venv-audio (see benchmarks/README.md)")
    folder = tempfile.TemporaryDirectory()
    np.savez(f"{folder.name}/in.npz", log_probs=log_probs.numpy(), targets=targets.int().numpy())
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    worker = subprocess.Popen(
        [python, root / "benchmarks" / "torchaudio_worker.py", str(threads)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, env=environment,
    )  # fmt: skip
    assert worker.stdin is not None
    assert worker.stdout is not None
    atexit.register(worker.kill)

    def ask(line: str) -> str:
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write(line + "\n")
        answer = worker.stdout.readline()
        if not answer:
            raise RuntimeError("the process with torchaudio ended")
        return answer.strip()

    release = ask(folder.name)

    def read(_: str) -> Numbers:
        ask("save")
        return score(np.load(f"{folder.name}/out.npy").astype(np.int64))

    return Contender(lambda: ask("align"), read, version=release)


def _viterbi(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The best alignment ``[T]`` of labels y ``[S]`` in scores x ``[T, C]``."""
    T, K = len(x), 2 * len(y) + 1
    states = np.zeros(K, np.int64)
    states[1::2] = y
    skip = np.full(K, -np.inf, x.dtype)
    skip[3::2] = np.where(y[1:] != y[:-1], 0.0, -np.inf)
    came = np.zeros((T, K), np.int8)
    alpha = np.full(K, -np.inf, x.dtype)
    alpha[:2] = x[0, states[:2]]
    ways = np.full((3, K), -np.inf, x.dtype)
    for t in range(1, T):
        ways[0], ways[1, 1:], ways[2, 2:] = alpha, alpha[:-1], alpha[:-2] + skip[2:]
        came[t] = ways.argmax(0)
        alpha = ways.max(0) + x[t, states]
    state = K - 1 if alpha[-1] > alpha[-2] else K - 2
    path = np.empty(T, np.int64)
    for t in range(T - 1, -1, -1):
        path[t] = states[state]
        state -= came[t, state]
    return path
