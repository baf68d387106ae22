"""What the functions of the linear chain take and give. Shapes as in :mod:`lnz.ops.chain.reference`."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lnz.checks import broadcast_shapes
from lnz.ops import precision


class Chains(NamedTuple):
    """B linear chains.

    Attributes:
        node: scores of labels ``[B, T, L]``.
        edge: scores from each label to the next ``[B or 1, S, L, L]``, S = T − 1, or S = 1 for one table at all steps.
        lengths: ``int64 [B]`` in 0 … T.
    """

    node: Tensor
    edge: Tensor
    lengths: Tensor

    @property
    def has_steps(self) -> bool:
        """Whether there is anything for a kernel to do."""
        return self.node.numel() > 0

    @property
    def is_double(self) -> bool:
        """Whether the scores are float64."""
        return self.node.dtype == torch.float64

    def wide(self) -> Chains:
        """In the dtype that a reference runs in: the rounding errors of less than float64 add up over the steps."""
        return precision.astype(self, precision.accumulator(self.node))


def with_a_table(chains: Chains) -> Chains:
    """The same chains; those of one step, which have no edge scores, get a table of zeros for kernels to read."""
    if chains.edge.numel():
        return chains
    return chains._replace(edge=chains.edge.new_zeros(1, 1, *chains.edge.shape[2:]))


class Pass(NamedTuple):
    """What one forward–backward pass gives, as constants.

    Kernels for accelerators run forwards only: of their pass (``is_filter``) ``nodes`` and ``backward_factor`` have no
    steps ``[B, 0, L]``, and ``forward_factor`` is α_t(l) = ln P(y_t = l | the scores up to t), in float32 or wider.

    Attributes:
        log_z: ln Z ``[B]``, in the dtype that it was computed in (:func:`lnz.ops.precision.accumulator`), so that
            differences from it are rounded once.
        nodes: node marginals ``[B, T, L]``.
        forward_factor: ``[B, T, L]``, 0 at the last label and over padding, and
        backward_factor: ``[B, T, L]``:
            P(y_t = k, y_{t+1} = l) = forward_factor_t(k) · backward_factor_{t+1}(l) · exp(A_t(k, l) − max A_t).
            Both are 0 in chains whose ``rung`` is not the first, whose range is too wide for such factors.
        rung: uint8 ``[B]``, of :mod:`lnz.ops.precision`.
    """

    log_z: Tensor
    nodes: Tensor
    forward_factor: Tensor
    backward_factor: Tensor
    rung: Tensor

    @classmethod
    def of_filter(cls, log_z: Tensor, alpha: Tensor, dtype: torch.dtype) -> Pass:
        """What a recursion forwards gives; ``dtype`` is that of the scores."""
        B, _, L = alpha.shape
        rung = torch.zeros(B, dtype=torch.uint8, device=alpha.device)
        return cls(log_z, alpha.new_empty(B, 0, L, dtype=dtype), alpha, alpha.new_empty(B, 0, L, dtype=dtype), rung)

    @property
    def is_filter(self) -> bool:
        """Whether it ran forwards only."""
        return self.nodes.shape[1] < self.forward_factor.shape[1]


class Labelled(NamedTuple):
    """B linear chains, and a full labelling of each: ``int64 [B, T]``, anything from ``lengths`` on."""

    node: Tensor
    edge: Tensor
    lengths: Tensor
    y: Tensor

    @property
    def chains(self) -> Chains:
        return Chains(*self[:3])


class Ended(NamedTuple):
    """Labelled chains that share one table, with scores ``ends [2, L]`` on top of those of first and of last labels."""

    node: Tensor
    edge: Tensor
    lengths: Tensor
    y: Tensor
    ends: Tensor

    def folded(self) -> Labelled:
        """With the ends among the node scores."""
        return Labelled(with_ends(self.node, self.lengths, *self.ends), self.edge, self.lengths, self.y)


def with_ends(node: Tensor, lengths: Tensor | None, start: Tensor, end: Tensor) -> Tensor:
    """Node scores ``[*batch, T, L]`` plus ``start`` and ``end [*batch, L]`` at the first and the last label of each.

    ``lengths`` are ``[*batch]``, ``None`` is T; what is shared may be left out of the batch shapes. An empty sequence
    has neither. Differentiable.
    """
    T, L = node.shape[-2:]
    lengths = torch.as_tensor(T if lengths is None else lengths, device=node.device)
    shape = broadcast_shapes(node.shape[:-2], lengths.shape, start.shape[:-1], end.shape[:-1])
    if T == 0:  # of no step: for gradients of 0
        return (node + start.unsqueeze(-2) + end.unsqueeze(-2)).expand(*shape, T, L)
    steps = torch.zeros_like(lengths), (lengths - 1).clamp(min=0)  # over the padding of an empty sequence
    at = torch.stack([step.expand(shape) for step in steps], -1).unsqueeze(-1).expand(*shape, 2, L)
    values = torch.stack([scores.expand(*shape, L) for scores in (start, end)], -2)
    return node.expand(*shape, T, L).scatter_add(-2, at, values)


class LabelledPass(NamedTuple):
    """ln P(y) ``[B]``, and the :class:`Pass` that it took."""

    log_prob: Tensor
    log_z: Tensor
    nodes: Tensor
    forward_factor: Tensor
    backward_factor: Tensor
    rung: Tensor

    @property
    def done(self) -> Pass:
        return Pass(*self[1:])


class Fused(NamedTuple):
    """ln P(y) and its weighted gradients.

    Attributes:
        log_prob: ``[B]``.
        at_node: Σ_b weight_b ∂ ln P(y_b) / ∂ node scores ``[B, T, L]``; ``None`` if not wanted.
        at_edge: the same for the edge scores ``[1, 1, L, L]``.
        in_range: bool ``[B]``; sequences that are not are left out of the gradients.
    """

    log_prob: Tensor
    at_node: Tensor | None
    at_edge: Tensor | None
    in_range: Tensor
