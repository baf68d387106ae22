"""From joint scores to the arcs of lattices.

``lnz::transducer_arcs`` reads the joint scores ``[B, T, U + 1, C]`` once, and leaves of every node the two
log-probabilities that matter, in double precision; ``lnz::transducer_arcs_gradient`` writes the gradient of the joint
scores. Nothing else of their size is ever made, neither a log-softmax nor a gradient of one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lnz.ops.precision import accumulator
from lnz.ops.scaffold import Map, Operator
from lnz.ops.transducer import reference
from lnz.ops.transducer.lattice import Lattice
from lnz.ops.transducer.records import KERNELS, ArcScores, Joint


def solve(given: Joint) -> ArcScores:
    run = KERNELS.find("joint_arcs", given.logits) if given.logits.numel() else None
    if run is not None:
        return ArcScores(*run(given))
    logits, inside = given.logits, given.inside()
    (B, T, W, _), wide = logits.shape, accumulator(logits)
    at_blank, at_label = logits.new_empty(B, T, W, dtype=wide), logits.new_empty(B, T, W - 1, dtype=wide)
    scales = logits.new_zeros(B, T, W, 2)
    for t in range(T):  # a frame at a time, for memory
        x, shift = logits[:, t].to(wide), at_blank.new_zeros(B, W)
        if given.normalise:
            scale = reference.normalisers(x, inside[:, t])
            scales[:, t], shift = scale, scale[..., 0] + scale[..., 1].log()
        at_blank[:, t], at_label[:, t] = reference.arcs(x, given.labels, inside[:, t], given.blank, shift)
    return ArcScores(at_blank, at_label, scales)


def gradient(to: Sequence[Tensor], given: Joint, made: ArcScores, wanted: Sequence[bool]) -> list[Tensor]:
    """That of the joint scores from that of the arcs."""
    logits, inside = given.logits, given.inside()
    run = KERNELS.find("joint_slopes", logits, *to) if logits.numel() else None
    if run is not None:
        return [run(*to, given, made.scales)]
    out = torch.empty_like(logits, memory_format=torch.contiguous_format)
    for t in range(logits.shape[1]):
        x, here = logits[:, t].to(to[0].dtype), (to[0][:, t], to[1][:, t])
        out[:, t] = reference.slopes(x, given.labels, inside[:, t], given.blank, given.normalise, here)
    return [out]


def plain(given: Joint) -> tuple[Tensor, Tensor]:
    """Scores of arcs, all frames at once."""
    x, inside = given.logits.to(accumulator(given.logits)), given.inside()
    shift = x.new_zeros(x.shape[:-1])
    if given.normalise:
        largest, total = reference.normalisers(x, inside).unbind(-1)
        shift = largest + total.log()
    return reference.arcs(x, given.labels[:, None], inside, given.blank, shift)


def _fake(given: Joint) -> ArcScores:
    (B, T, W, _), wide = given.logits.shape, accumulator(given.logits)
    at_blank, at_label = (given.logits.new_empty(B, T, n, dtype=wide) for n in (W, W - 1))
    return ArcScores(at_blank, at_label, given.logits.new_empty(B, T, W, 2))


JOINT = Map(
    Operator("transducer_arcs", solve, _fake, Joint, ArcScores), values=2, scores=1, gradient=gradient, plain=plain
)


def arcs(logits: Tensor, labels: Tensor, of: Lattice, blank: int, normalise: bool) -> tuple[Tensor, Tensor]:
    """The scores of blank ``[B, T, U + 1]`` and label arcs ``[B, T, U]``, in double precision; differentiable.

    What lies beside the lattices is −inf. Arguments as of :class:`.records.Joint`.
    """
    given = Joint(logits, labels, of.lengths, of.target_lengths, blank, normalise)
    at_blank, at_label = JOINT.mapped(given, JOINT.solve(given))
    return at_blank, at_label
