"""Variable elimination as operators: dispatch, gradients, vectorisation."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lnz.checks import check_no_tangent
from lnz.ops import use_kernels
from lnz.ops.elimination import reference
from lnz.ops.elimination.program import program_of
from lnz.semirings import KMax, Log, Max


@torch.library.custom_op("lnz::elimination_marginals", mutates_args=())
def _marginals(scores: Tensor, base: Tensor, handle: str, clamped: bool) -> tuple[Tensor, Tensor]:
    program = program_of(handle)
    if use_kernels(scores):
        from lnz.ops.elimination import sharing

        arrays = _arrays(scores, program.starts(base))
        value, marginals = sharing.marginals(*arrays, program, clamped, torch.get_num_threads())
        return torch.from_numpy(value), torch.from_numpy(marginals)
    return reference.marginals(scores, program.starts(base), program)


def _arrays(scores: Tensor, base: Tensor) -> tuple[np.ndarray, np.ndarray]:
    return scores.detach().contiguous().numpy(), base.contiguous().numpy()


@_marginals.register_fake
def _(scores: Tensor, base: Tensor, handle: str, clamped: bool) -> tuple[Tensor, Tensor]:
    return scores.new_empty(scores.shape[0], dtype=torch.float64), torch.empty_like(scores)


@torch.library.custom_op("lnz::elimination_partition", mutates_args=())
def _partition(scores: Tensor, base: Tensor, handle: str, clamped: bool) -> Tensor:
    program = program_of(handle)
    if use_kernels(scores):
        from lnz.ops.elimination import sharing

        arrays = _arrays(scores, program.starts(base))
        return torch.from_numpy(sharing.partition(*arrays, program, clamped, torch.get_num_threads()))
    return reference.partition(scores, program.starts(base), program, Log())


@_partition.register_fake
def _(scores: Tensor, base: Tensor, handle: str, clamped: bool) -> Tensor:
    return scores.new_empty(scores.shape[0], dtype=torch.float64)


@_partition.register_vmap
def _(info: Any, in_dims: tuple[Any, ...], scores: Tensor, base: Tensor, handle: str, clamped: bool) -> Any:
    value = _partition(*_fold(info.batch_size, in_dims, scores, base), handle, clamped)
    return value.reshape(info.batch_size, -1), 0


@_marginals.register_vmap
def _(info: Any, in_dims: tuple[Any, ...], scores: Tensor, base: Tensor, handle: str, clamped: bool) -> Any:
    value, marginals = _marginals(*_fold(info.batch_size, in_dims, scores, base), handle, clamped)
    lead = (info.batch_size, -1)
    return (value.reshape(lead), marginals.reshape(*lead, marginals.shape[-1])), (0, 0)


@torch.library.custom_op("lnz::elimination_hessian_product", mutates_args=())
def _hessian_product(scores: Tensor, base: Tensor, handle: str, vector: Tensor) -> Tensor:
    """The Hessian of ln Z times ``vector``, row by row: the derivative of the marginals' product with it."""
    program = program_of(handle)
    return reference.hessian_product(scores, program.starts(base), program, vector)


@_hessian_product.register_fake
def _(scores: Tensor, base: Tensor, handle: str, vector: Tensor) -> Tensor:
    return torch.empty_like(scores)


class _LogPartition(torch.autograd.Function):
    """The ln Z that a pass has computed, as a function of the scores; its gradient is the marginals.

    Each answer from a pass is a node of its own in the graph of gradients, so that one pass serves any number of
    backward calls.
    """

    @staticmethod
    def forward(scores: Tensor, base: Tensor, handle: str, value: Tensor, marginals: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        scores, base, ctx.handle, _, marginals = inputs
        ctx.save_for_backward(scores, base, marginals)
        _hold_program(ctx)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, None, None, None]:
        scores, base, marginals = ctx.saved_tensors
        if torch.is_grad_enabled() and scores.requires_grad:
            marginals = _Marginals.apply(scores, base, ctx.handle, marginals)
        return grads[0].to(marginals.dtype)[:, None] * marginals, None, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], scores: Tensor, base: Tensor, handle: str, *done: Tensor) -> Any:
        scores, base = _fold(info.batch_size, in_dims, scores, base)
        value, marginals = (_fold_in(info.batch_size, d, x) for d, x in zip(in_dims[3:], done, strict=True))
        return _LogPartition.apply(scores, base, handle, value, marginals).reshape(info.batch_size, -1), 0


class _Marginals(torch.autograd.Function):
    """The marginals that a pass has computed, as a function of the scores; their gradient is the Hessian of ln Z."""

    @staticmethod
    def forward(scores: Tensor, base: Tensor, handle: str, marginals: Tensor) -> Tensor:
        return marginals.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        scores, base, ctx.handle, _ = inputs
        ctx.save_for_backward(scores, base)
        _hold_program(ctx)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        return _HessianProduct.apply(*ctx.saved_tensors, ctx.handle, grads[0]), None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], scores: Tensor, base: Tensor, handle: str, done: Tensor) -> Any:
        scores, base = _fold(info.batch_size, in_dims, scores, base)
        marginals = _Marginals.apply(scores, base, handle, _fold_in(info.batch_size, in_dims[3], done))
        return marginals.reshape(info.batch_size, -1, marginals.shape[-1]), 0


def _hold_program(ctx: Any) -> None:
    if not torch.compiler.is_compiling():
        ctx.program = program_of(ctx.handle)  # the graph may be gone when a derivative asks for it


def _fold_in(size: int, in_dim: int | None, done: Tensor) -> Tensor:
    """What a pass has computed, the vectorised axis made part of the rows."""
    outer = done.expand(size, *done.shape) if in_dim is None else done.movedim(in_dim, 0)
    return outer.flatten(0, 1)


class _HessianProduct(torch.autograd.Function):
    """Hessian times vector. ln Z is differentiable twice, not three times: this has no gradient."""

    @staticmethod
    def forward(scores: Tensor, base: Tensor, handle: str, vector: Tensor) -> Tensor:
        return _hessian_product(scores, base, handle, vector)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise NotImplementedError("ln Z by elimination is differentiable twice, not three times")

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], scores: Tensor, base: Tensor, handle: str, vector: Tensor) -> Any:
        size = info.batch_size
        scores, base = _fold(size, in_dims, scores, base)
        vector = vector.movedim(in_dims[3], 0) if in_dims[3] is not None else vector.expand(size, *vector.shape)
        product = _HessianProduct.apply(scores, base, handle, vector.reshape(scores.shape))
        return product.reshape(size, -1, product.shape[-1]), 0


def _fold(size: int, in_dims: tuple[Any, ...], scores: Tensor, base: Tensor) -> tuple[Tensor, Tensor]:
    """Make the vectorised axis part of the rows."""
    scores = scores.movedim(in_dims[0], 0) if in_dims[0] is not None else scores.expand(size, *scores.shape)
    if in_dims[1] is not None or base.shape[0] > 1:
        base = base.movedim(in_dims[1], 0) if in_dims[1] is not None else base.expand(size, *base.shape)
        base = base.expand(size, scores.shape[1], -1).reshape(-1, base.shape[-1])
    return scores.reshape(-1, scores.shape[-1]), base


def log_partition(scores: Tensor, base: Tensor, handle: str, clamped: bool) -> Tensor:
    """ln Z alone, float64 ``[B]``, without gradient: the upward pass."""
    _check_reverse_mode(scores)
    return _partition(scores, base, handle, clamped)


def partition_and_marginals(scores: Tensor, base: Tensor, handle: str, clamped: bool) -> tuple[Tensor, Tensor]:
    """ln Z, float64 ``[B]``, and the marginal of every entry of every table ``[B, program.size]``, without gradients.

    :func:`differentiable` gives them some. Args:

        scores: ``[B, program.size]``, float32 or wider.
        base: ``int64 [B or 1, tables]``, where each table starts in its row; no rows where no node is cut out.
        handle: the junction tree's :attr:`Program.handle`.
        clamped: whether any node table holds anything but 0; if not, they need not be read.
    """
    _check_reverse_mode(scores)
    return _marginals(scores.detach(), base, handle, clamped)


def differentiable_log_partition(scores: Tensor, base: Tensor, handle: str, done: tuple[Tensor, Tensor]) -> Tensor:
    """The ln Z of what :func:`partition_and_marginals` has ``done``, as a function of the scores."""
    return _LogPartition.apply(scores, base, handle, *done)


def differentiable_marginals(scores: Tensor, base: Tensor, handle: str, done: tuple[Tensor, Tensor]) -> Tensor:
    """The marginals of what :func:`partition_and_marginals` has ``done``, as a function of the scores."""
    return _Marginals.apply(scores, base, handle, done[1])


def _check_reverse_mode(scores: Tensor) -> None:
    check_no_tangent(
        "Exact",
        scores,
        "reverse mode (torch.func.grad, torch.func.vjp), or Enumeration() on models small enough to list",
    )


def argmax(scores: Tensor, base: Tensor, handle: str, labels: Tensor) -> Tensor:
    """A best labelling per row, ``int64 [B, N]``; ``labels`` ``[B, N]`` says those of the nodes that are cut out."""
    return _decode(scores, base, handle, None, labels[None])[0]


def topk(scores: Tensor, base: Tensor, handle: str, k: int) -> tuple[Tensor, Tensor]:
    """The best scores ``[at most k, B]`` and the indicators of their labellings ``[at most k, B, program.size]``.

    The gradient of the j-th best score is the indicator of a labelling that has it, as that of ln Z is the marginals.
    """
    program = program_of(handle)
    with torch.enable_grad():
        scores = scores.detach().requires_grad_()
        best = reference.partition(scores, program.starts(base), program, KMax(k))
        indicators = [torch.autograd.grad(row.sum(), scores, retain_graph=True)[0] for row in best]
    return best.detach(), torch.stack(indicators)


def sample(scores: Tensor, base: Tensor, handle: str, uniforms: Tensor, labels: Tensor) -> Tensor:
    """Independent labellings ``int64 [n, B, N]``, one per ``uniforms`` ``[n, B, cliques]``."""
    return _decode(scores, base, handle, uniforms, labels.expand(len(uniforms), -1, -1))


def _decode(scores: Tensor, base: Tensor, handle: str, uniforms: Tensor | None, labels: Tensor) -> Tensor:
    program = program_of(handle)
    base = program.starts(base)
    if use_kernels(scores):
        from lnz.ops.elimination import sharing

        drawn = None if uniforms is None else uniforms.numpy()
        arrays, threads = _arrays(scores, base), torch.get_num_threads()
        return torch.from_numpy(sharing.decode(*arrays, program, drawn, labels.contiguous().numpy(), threads))
    return reference.decode(scores, base, program, Max() if uniforms is None else Log(), uniforms, labels)
