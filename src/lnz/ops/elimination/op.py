"""Variable elimination: ln Z, the marginals of all tables, best labellings and samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lnz.ops.dispatch import Kernels
from lnz.ops.elimination import reference
from lnz.ops.elimination.program import Program, program_of
from lnz.ops.precision import accumulator
from lnz.ops.scaffold import Answer, Differentiable, Operator
from lnz.ops.scaffold.batch import Axis
from lnz.semirings import KMax, Log, Max

KERNELS = Kernels("elimination")
KERNELS.register("cpu", "lnz.ops.elimination.cpu", devices=("cpu",), dtypes=(torch.float32, torch.float64))


class Rows(NamedTuple):
    """Models of one junction tree.

    Attributes:
        scores: all tables ``[B, program.size]``, float32 or wider.
        base: ``int64 [B or 1, tables]``, where each table starts in its row; no columns where no node is cut out.
        handle: the junction tree's :attr:`Program.handle`.
        clamped: whether any node table holds anything but 0; if not, they need not be read.
    """

    scores: Tensor
    base: Tensor
    handle: str
    clamped: bool

    # a method, not a property, which torch.compile of torch 2.10 cannot trace on named tuples
    def program(self) -> Program:
        return program_of(self.handle)


class Pass(NamedTuple):
    """ln Z, float64 ``[B]``, and the marginal of every entry of every table ``[B, program.size]``."""

    log_z: Tensor
    marginals: Tensor


class Total(NamedTuple):
    """ln Z, float64 ``[B]``."""

    log_z: Tensor


def solve(rows: Rows) -> Pass:
    program, run = rows.program(), KERNELS.find("marginals", rows.scores)
    starts = program.starts(rows.base)
    if run is None:
        return Pass(*reference.marginals(rows.scores, starts, program))
    found = run(*_arrays(rows.scores, starts), program, rows.clamped, torch.get_num_threads())
    return Pass(*map(torch.from_numpy, found))


def gradient(weight: Tensor | None, rows: Rows, done: Pass, wanted: Sequence[bool]) -> list[Tensor]:
    """Σ_b weight_b · the marginals of model b."""
    return [done.marginals if weight is None else weight[:, None] * done.marginals]


def marginals(rows: Rows) -> list[Tensor]:
    """The marginals, in plain torch."""
    program = rows.program()
    return [reference.marginals(rows.scores, program.starts(rows.base), program)[1]]


def _upward(rows: Rows) -> Total:
    program, run = rows.program(), KERNELS.find("partition", rows.scores)
    starts = program.starts(rows.base)
    if run is None:
        return Total(reference.partition(rows.scores, starts, program, Log()))
    found = run(*_arrays(rows.scores, starts), program, rows.clamped, torch.get_num_threads())
    return Total(torch.from_numpy(found))


def _arrays(scores: Tensor, base: Tensor) -> tuple[np.ndarray, np.ndarray]:
    return scores.detach().contiguous().numpy(), base.contiguous().numpy()


def _fake(rows: Rows) -> Pass:
    return Pass(rows.scores.new_empty(rows.scores.shape[0], dtype=torch.float64), torch.empty_like(rows.scores))


BASE = {"base": Axis(shared=True)}
ELIMINATION = Differentiable(
    Operator("elimination", solve, _fake, Rows, Pass, BASE),
    scores=1,
    gradient=gradient,
    marginals=marginals,
    hold=Rows.program,  # the graph may be gone when a derivative asks for it
)
PARTITION = Operator("elimination_partition", _upward, lambda rows: Total(_fake(rows).log_z), Rows, Total, axes=BASE)


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


def log_partition(scores: Tensor, base: Tensor, handle: str, clamped: bool) -> Tensor:
    """ln Z alone, float64 ``[B]``, without gradient: the upward pass."""
    return PARTITION(Rows(scores, base, handle, clamped)).log_z


def partition_and_marginals(scores: Tensor, base: Tensor, handle: str, clamped: bool) -> Pass:
    """ln Z, float64 ``[B]``, and the marginal of every entry of every table, without gradients; see :class:`Rows`.

    :func:`differentiable_log_partition` and :func:`differentiable_marginals` give them some.
    """
    return ELIMINATION.solve(Rows(scores, base, handle, clamped))


def differentiable_log_partition(scores: Tensor, base: Tensor, handle: str, done: tuple[Tensor, Tensor]) -> Tensor:
    """The ln Z of what :func:`partition_and_marginals` has ``done``, as a function of the scores."""
    return ELIMINATION.value(Rows(scores, base, handle, True), Pass(*done))


def differentiable_marginals(scores: Tensor, base: Tensor, handle: str, done: tuple[Tensor, Tensor]) -> Tensor:
    """The marginals of what :func:`partition_and_marginals` has ``done``, as a function of the scores."""
    return ELIMINATION.gradient(None, Rows(scores, base, handle, True), Pass(*done), (True,))[0]


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
    run = KERNELS.find("decode", scores)
    if run is not None:
        drawn = None if uniforms is None else uniforms.numpy()
        arrays, threads = _arrays(scores, base), torch.get_num_threads()
        return torch.from_numpy(run(*arrays, program, drawn, labels.contiguous().numpy(), threads))
    return reference.decode(scores, base, program, Max() if uniforms is None else Log(), uniforms, labels)
