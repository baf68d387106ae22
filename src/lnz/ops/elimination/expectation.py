"""E_P[−ln Q(y)] by variable elimination: the upward pass, differentiated through the reference."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lnz.ops.elimination import reference
from lnz.ops.elimination.program import Program, program_of
from lnz.ops.elimination.records import BASE, KERNELS
from lnz.ops.precision import accumulator
from lnz.ops.scaffold import Answer, Operator


class Pair(NamedTuple):
    """Models P and Q of one junction tree, which cut out the same nodes at the same labels; as :class:`Rows`."""

    scores: Tensor
    other: Tensor
    base: Tensor
    handle: str

    def program(self) -> Program:
        return program_of(self.handle)


class Surprisal(NamedTuple):
    """E_P[−ln Q(y)], float64 ``[B]``."""

    value: Tensor


def _surprisal(pair: Pair) -> Surprisal:
    program, (scores, other) = pair.program(), (x.to(accumulator(x)) for x in pair[:2])
    starts, run = program.starts(pair.base), KERNELS.find("surprisal", scores, other)
    if run is None:
        return Surprisal(reference.surprisal(scores, other, starts, program))
    arrays = scores.contiguous().numpy(), other.contiguous().numpy(), starts.contiguous().numpy()
    return Surprisal(torch.from_numpy(run(*arrays, program, torch.get_num_threads())))


def _plain_surprisal(pair: Pair) -> Surprisal:
    program = pair.program()
    return Surprisal(reference.surprisal(*pair[:2], program.starts(pair.base), program))


def _surprisal_fake(pair: Pair) -> Surprisal:
    return Surprisal(pair.scores.new_empty(len(pair.scores), dtype=accumulator(pair.scores)))


SURPRISAL = Answer(
    Operator("elimination_surprisal", _surprisal, _surprisal_fake, Pair, Surprisal, BASE),
    _plain_surprisal,
    scores=2,
    hold=Pair.program,
)


def surprisal(scores: Tensor, other: Tensor, base: Tensor, handle: str) -> Tensor:
    """E_P[−ln Q(y)] ``[B]``, float64, of the models P of ``scores`` and Q of ``other``; the upward pass.

    The entropy where both are the same. Right at any scale of scores, differentiable any number of times.
    """
    return SURPRISAL(Pair(scores, other, base, handle)).value
