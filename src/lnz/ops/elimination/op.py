"""Variable elimination as operators: dispatch, gradients, vectorisation."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

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
    return scores.new_empty(scores.shape[0]), torch.empty_like(scores)


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
    return scores.new_empty(scores.shape[0])


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


class _Eliminate(torch.autograd.Function):
    """(ln Z, marginals); the gradient of the first is the second, that of the second is the Hessian of ln Z."""

    @staticmethod
    def forward(scores: Tensor, base: Tensor, handle: str, clamped: bool) -> tuple[Tensor, Tensor]:
        return _marginals(scores, base, handle, clamped)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        scores, base, ctx.handle, _ = inputs
        ctx.save_for_backward(scores, base, output[1])
        ctx.set_materialize_grads(False)
        if not torch.compiler.is_compiling():
            ctx.program = program_of(ctx.handle)  # the graph may be gone when the second derivative asks for it

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, None, None, None]:
        scores, base, marginals = ctx.saved_tensors
        of_value, of_marginals = grads
        total = None if of_value is None else of_value[:, None] * marginals
        if of_marginals is not None:
            product = _HessianProduct.apply(scores, base, ctx.handle, of_marginals)
            total = product if total is None else total + product
        return total, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], scores: Tensor, base: Tensor, handle: str, clamped: bool) -> Any:
        scores, base = _fold(info.batch_size, in_dims, scores, base)
        value, marginals = _Eliminate.apply(scores, base, handle, clamped)
        lead = (info.batch_size, -1)
        return (value.reshape(lead), marginals.reshape(*lead, marginals.shape[-1])), (0, 0)


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
    """ln Z alone, ``[B]``, without gradient: the upward pass."""
    return _partition(scores, base, handle, clamped)


def partition_and_marginals(scores: Tensor, base: Tensor, handle: str, clamped: bool) -> tuple[Tensor, Tensor]:
    """ln Z ``[B]`` and the marginal of every entry of every table ``[B, program.size]``; both differentiable.

    Args:
        scores: ``[B, program.size]``, float32 or wider.
        base: ``int64 [B or 1, tables]``, where each table starts in its row; no rows where no node is cut out.
        handle: the junction tree's :attr:`Program.handle`.
        clamped: whether any node table holds anything but 0; if not, they need not be read.
    """
    if torch.is_grad_enabled() and scores.requires_grad:
        return _Eliminate.apply(scores, base, handle, clamped)
    return _marginals(scores, base, handle, clamped)


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
