"""What is checked and measured on a card: a kernel of lnz beside its peers, on the same tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

import lnz
from lnz.ops import backend

Answers = dict[str, Tensor]


class Work(NamedTuple):
    """What a call must do at least, by counting: an estimate, not a measurement.

    Attributes:
        bytes: that are read and written, each array once.
        operations: multiply–adds and exponentials.
        steps: that depend on each other.
    """

    bytes: float
    operations: float
    steps: int


class Case(NamedTuple):
    """One workload.

    Attributes:
        name: of it, with its size.
        calls: a function per contender, ``"lnz"`` first, that returns what is compared.
        reference: the same in float64, by plain torch.
        work: of one call.
        tolerance: of the largest difference, relative to the largest number of each answer (at least 1).
    """

    name: str
    calls: dict[str, Callable[[], Answers]]
    reference: Callable[[], Answers]
    work: Work
    tolerance: float


def every(device: torch.device, toy: bool) -> Sequence[Callable[[], Case]]:
    """The cases, made one after the other; at sizes for the interpreter where ``toy``."""
    chains = [(2, 5, 4)] if toy else [(32, 512, 64), (32, 128, 16), (256, 64, 32), (16, 256, 128), (16, 256, 256)]
    alignments = [(6, 2, 9, 3)] if toy else [(500, 32, 64, 60), (1500, 16, 128, 200), (200, 64, 5000, 20)]
    long = (1, 12, 3) if toy else (1, 100_000, 8)
    sentences = (2, 4, 3) if toy else (16, 40, 64)
    return [
        *(partial(chain_nll, *size, device) for size in chains),
        partial(chain_marginals, *long, device),
        partial(chain_viterbi, *chains[0], device),
        *(partial(ctc_loss, *size, torch.float32, device) for size in alignments),
        partial(ctc_loss, *alignments[-1], torch.bfloat16, device),
        partial(constituency_trees, *sentences, device),
        partial(dependency_trees, *sentences[:2], device),
    ]


def _normal(*shape: int, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device, dtype)


def _labels(high: int, *shape: int, device: torch.device, low: int = 0) -> Tensor:
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(1)).to(device)


def _gradients(loss: Tensor, *leaves: Tensor) -> Answers:
    gradients = torch.autograd.grad(loss, leaves)
    return {"loss": loss.detach(), **{f"gradient {i}": g for i, g in enumerate(gradients)}}


def _in_plain_torch(call: Callable[[], Answers]) -> Answers:
    with backend("reference"):
        return call()


def chain_nll(B: int, T: int, L: int, device: torch.device) -> Case:
    """The summed negative log-likelihood of labellings, and its gradients by nodes and by the shared table."""
    node, edge, y = _normal(B, T, L, device=device), _normal(L, L, device=device) / 2, _labels(L, B, T, device=device)

    def loss(dtype: torch.dtype = torch.float32) -> Answers:
        leaves = node.to(dtype, copy=True).requires_grad_(), edge.to(dtype, copy=True).requires_grad_()
        p = lnz.LinearChain(*leaves, validate_args=False)
        return _gradients(lnz.objectives.nll(p, y, "sum"), *leaves)

    calls: dict[str, Callable[[], Answers]] = {"lnz": loss, "plain torch": partial(_in_plain_torch, loss)}
    if (peer := _pytorch_crf(L, edge)) is not None:

        def crf() -> Answers:
            leaf = node.clone().requires_grad_()
            mask = torch.ones(B, T, dtype=torch.bool, device=device)
            return _gradients(-peer(leaf, y, mask, "sum"), leaf, peer.transitions)

        calls["pytorch-crf"] = crf
    wide = partial(_in_plain_torch, partial(loss, torch.float64))
    work = Work(4 * (4 * B * T * L + 2 * L * L), 6.0 * B * T * L * L, 2 * T)  # nodes, the filter twice, the gradient
    return Case(f"chain nll {B}x{T}x{L}", calls, wide, work, 1e-4)


def _pytorch_crf(labels: int, edge: Tensor):
    try:
        from torchcrf import CRF
    except ImportError:
        return None
    layer = CRF(labels, batch_first=True).to(edge.device)
    with torch.no_grad():
        layer.transitions.copy_(edge)
        layer.start_transitions.zero_()
        layer.end_transitions.zero_()
    return layer


def chain_marginals(B: int, T: int, L: int, device: torch.device) -> Case:
    """ln Z and node marginals of few long chains, which are cut into blocks."""
    node, edge = _normal(B, T, L, device=device), _normal(L, L, device=device)

    def marginals(dtype: torch.dtype = torch.float32) -> Answers:
        p = lnz.LinearChain(node.to(dtype), edge.to(dtype), validate_args=False)
        return {"ln Z": p.log_partition, "marginals": p.node_marginals}

    def wide() -> Answers:  # on the processor: plain torch takes half a minute for so many steps
        p = lnz.LinearChain(node.double().cpu(), edge.double().cpu())
        return {"ln Z": p.log_partition, "marginals": p.node_marginals}

    steps = 4 * (T // 512 + 512)  # 512 blocks: through one, and from one to the next, four times
    work = Work(12 * B * T * L, 4.0 * B * T * L * L * (L + 2), steps)
    return Case(f"chain marginals {B}x{T}x{L}", {"lnz": marginals}, wide, work, 1e-4)


def chain_viterbi(B: int, T: int, L: int, device: torch.device) -> Case:
    """The score of the best labelling of each chain."""
    node, edge = _normal(B, T, L, device=device), _normal(L, L, device=device)

    def scored(labels: Tensor) -> Answers:
        return {"score": lnz.LinearChain(node.double(), edge.double(), validate_args=False).score(labels)}

    def best(dtype: torch.dtype = torch.float32) -> Answers:
        return scored(lnz.LinearChain(node.to(dtype), edge.to(dtype), validate_args=False).argmax())

    calls: dict[str, Callable[[], Answers]] = {"lnz": best, "plain torch": partial(_in_plain_torch, best)}
    if (peer := _pytorch_crf(L, edge)) is not None:
        calls["pytorch-crf"] = lambda: scored(torch.tensor(peer.decode(node), device=device))
    wide = partial(_in_plain_torch, partial(best, torch.float64))
    return Case(f"chain viterbi {B}x{T}x{L}", calls, wide, Work(6 * B * T * L, 2.0 * B * T * L * L, 2 * T), 1e-6)


def ctc_loss(T: int, B: int, C: int, S: int, dtype: torch.dtype, device: torch.device) -> Case:
    """The summed CTC loss of targets, and its gradient by the logits; torch's own, and cuDNN's where it serves."""
    logits, y = _normal(T, B, C, device=device, dtype=dtype), _labels(C, B, S, device=device, low=1)
    lengths, sizes = torch.full((B,), T, device=device), torch.full((B,), S, device=device)

    def ours(wide: torch.dtype = dtype) -> Answers:
        leaf = logits.detach().to(wide, copy=True).requires_grad_()
        p = lnz.CTC(leaf.transpose(0, 1), lengths, validate_args=False)
        return _gradients(-p.log_prob(y, sizes).sum(), leaf)

    def native(targets: Tensor, *counts: Tensor) -> Answers:
        leaf = logits.detach().clone().requires_grad_()
        log_probs = leaf.float().log_softmax(-1)
        return _gradients(torch.nn.functional.ctc_loss(log_probs, targets, *counts, reduction="sum"), leaf)

    calls: dict[str, Callable[[], Answers]] = {"lnz": ours, "torch": partial(native, y, lengths, sizes)}
    if device.type == "cuda" and torch.backends.cudnn.is_available() and S <= 256:
        flat = y.flatten().int().cpu()
        calls["cuDNN"] = partial(native, flat, lengths.int().cpu(), sizes.int().cpu())
    wide = partial(_in_plain_torch, partial(ours, torch.float64))
    size = logits.element_size()
    work = Work(3 * size * T * B * C + 32 * T * B * (S + 1), 3.0 * T * B * C + 20.0 * T * B * S, 2 * T)
    kind = str(dtype).removeprefix("torch.")
    return Case(f"ctc loss {T}x{B}x{C}x{S} {kind}", calls, wide, work, 2e-4 if dtype == torch.float32 else 2e-2)


def constituency_trees(B: int, N: int, L: int, device: torch.device) -> Case:
    """The summed ln Z of binary trees with labels, and its gradient: marginals of spans."""
    scores = _normal(B, N, N, L, device=device)

    def total(dtype: torch.dtype = torch.float32) -> Answers:
        leaf = scores.to(dtype, copy=True).requires_grad_()
        return _gradients(lnz.ConstituencyTree(leaf, validate_args=False).log_partition.sum(), leaf)

    calls: dict[str, Callable[[], Answers]] = {"lnz": total, "plain torch": partial(_in_plain_torch, total)}
    if (peer := _torch_struct()) is not None:

        def struct() -> Answers:
            leaf = scores.clone().requires_grad_()
            return _gradients(peer.TreeCRF(leaf).partition.sum(), leaf)

        calls["torch-struct"] = struct
    wide = partial(_in_plain_torch, partial(total, torch.float64))
    work = Work(16 * B * N * N * L, B * (4.0 * N * N * L + 3.0 * N**3), 2 * N)
    return Case(f"constituency trees {B}x{N}x{L}", calls, wide, work, 1e-4)


def dependency_trees(B: int, N: int, device: torch.device) -> Case:
    """The summed ln Z of projective trees with one root, and its gradient: marginals of arcs."""
    scores = _normal(B, N + 1, N + 1, device=device)

    def total(dtype: torch.dtype = torch.float32) -> Answers:
        leaf = scores.to(dtype, copy=True).requires_grad_()
        return _gradients(lnz.DependencyTree(leaf, validate_args=False).log_partition.sum(), leaf)

    calls: dict[str, Callable[[], Answers]] = {"lnz": total, "plain torch": partial(_in_plain_torch, total)}
    wide = partial(_in_plain_torch, partial(total, torch.float64))
    return Case(f"dependency trees {B}x{N}", calls, wide, Work(100.0 * B * N * N, 6.0 * B * N**3, 4 * N), 1e-4)


def _torch_struct():
    try:
        import torch_struct
    except ImportError:
        return None
    return torch_struct
