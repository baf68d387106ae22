"""Variable elimination in plain torch: any device and dtype, any semiring, differentiable any number of times.

For a clique C that eliminates the nodes R and keeps the separator S = C ∖ R (Koller and Friedman 2009, chapter 10):

    combined[c] = Σ_inputs input[c]                     its tables, and the messages of its children
    message[s]  = ln Σ_r exp combined[s, r]             upward; ln Z is the sum of the roots' messages
    P(c)        = exp(combined[c] − message[s]) · P(s)  downward; P(s) is the parent's marginal over S

Only tables and messages are kept; the downward pass makes each combined table anew. The largest entry of each message
is taken away from it and added up in float64: messages stay as small as their range, however large the tree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lnz.ops import branches
from lnz.ops.elimination.program import Program
from lnz.ops.precision import accumulator
from lnz.semirings import Log, Semiring

Tables = list[list[Tensor]]


def arrange(scores: Tensor, base: Tensor, program: Program) -> Tables:
    """Per clique its tables ``[B, L or 1 per node of the clique]``, to be broadcast against each other."""
    flat = scores.gather(1, _entries(scores, base, program))
    shapes = [shapes[len(sent) :] for shapes, sent in zip(program.broadcast_shapes, program.children, strict=True)]
    parts = iter(flat.split([math.prod(shape) for own in shapes for shape in own], 1))
    return [[next(parts).reshape(-1, *shape) for shape in own] for own in shapes]


def _entries(scores: Tensor, base: Tensor, program: Program) -> Tensor:
    """Where in its row of ``scores`` each entry of the arranged tables lies, ``int64 [B, …]``."""
    tables, local = (torch.from_numpy(array).to(base.device) for array in program.gathered)
    return (base[:, tables] + local).expand(scores.shape[0], -1)


class Messages(NamedTuple):
    """What goes up the tree: per clique its message ``[…, one axis per node of the separator]``, and its shift ``[B]``.

    A message and its shift together are the sum over what the clique and those below it eliminate.
    """

    centred: list[Tensor]
    shifts: list[Tensor]


def upward(tables: Tables, program: Program, semiring: Semiring) -> Messages:
    """The messages of all cliques, for tables lifted into ``semiring``. Shifts are constants."""
    found = Messages([], [])
    for clique, (nodes, eliminated, _) in enumerate(program.cliques):
        combined = _combine(clique, tables, found.centred, program, semiring)
        message, top = _sent(combined, eliminated, len(nodes) - eliminated, semiring)
        found.centred.append(message)
        found.shifts.append(top)
    return found


def _sent(combined: Tensor, eliminated: int, kept: int, semiring: Semiring) -> tuple[Tensor, Tensor]:
    """The centred message of a clique, and its shift."""
    message = semiring.plus(combined.flatten(combined.dim() - eliminated), -1)
    top = message.detach().flatten(message.dim() - kept).amax(-1) if kept else message.detach()
    top = top if top.dim() == 1 else top.amax(0)
    top = top.masked_fill(torch.isneginf(top), 0.0)
    return message - _wide(top, kept), top


def _wide(row: Tensor, axes: int) -> Tensor:
    """``row`` ``[…, B]`` with so many axes of size 1 behind."""
    return row[(..., *(None,) * axes)]


def _combine(clique: int, tables: Tables, messages: list[Tensor], program: Program, semiring: Semiring) -> Tensor:
    inputs = list(tables[clique])
    for child, shape in zip(program.children[clique], program.broadcast_shapes[clique], strict=False):
        nodes, eliminated, _ = program.cliques[child]
        message = messages[child]
        inputs.append(message.reshape(*message.shape[: message.dim() - len(nodes) + eliminated], *shape))
    combined = inputs[0]
    for table in inputs[1:]:
        combined = semiring.times(combined, table)
    return combined


def partition(scores: Tensor, base: Tensor, program: Program, semiring: Semiring) -> Tensor:
    """The sum over all labellings, float64: ``[B]`` under :class:`~lnz.semirings.Log`, ``[at most k, B]`` under k-max.

    Args:
        scores: ``[B, program.size]``.
        base: ``int64 [B or 1, tables]``, where each table starts.
        program: the junction tree.
        semiring: how labellings are added up.
    """
    tables = arrange(scores, base, program)
    lifted = [[semiring.lift(table) for table in own] for own in tables]
    messages = upward(lifted, program, semiring)
    return _total(scores, base, messages, program, semiring)


def _total(scores: Tensor, base: Tensor, messages: Messages, program: Program, semiring: Semiring) -> Tensor:
    """The sum over all labellings in float64."""
    constants = scores.gather(1, _constants(scores, base, program)).sum(-1, dtype=torch.float64)
    total = semiring.lift(constants + sum([shift.double() for shift in messages.shifts], torch.zeros_like(constants)))
    for message, (_, _, parent) in zip(messages.centred, program.cliques, strict=True):
        if parent < 0:
            total = semiring.times(total, message.double())
    return total


def _constants(scores: Tensor, base: Tensor, program: Program) -> Tensor:
    return base[:, program.constants].expand(scores.shape[0], -1)


def marginals(scores: Tensor, base: Tensor, program: Program) -> tuple[Tensor, Tensor]:
    """ln Z ``[B]``, float64, and the probability of every table's entries ``[B, program.size]``, all 0 where Z = 0."""
    tables = arrange(scores, base, program)
    messages = upward(tables, program, Log())
    log_partition = _total(scores, base, messages, program, Log())
    possible = (~torch.isneginf(log_partition)).to(scores.dtype)
    beliefs = [possible] * len(program.cliques)  # of the separators; a root's is P(∅) = 1
    parts: list[list[Tensor]] = [[] for _ in program.cliques]
    for clique in reversed(range(len(program.cliques))):
        above = _wide(beliefs[clique], program.cliques[clique][1])
        belief = _conditional(clique, tables, messages, program) * above
        parts[clique] = _hand_down(clique, belief, beliefs, program)
    constants = _constants(scores, base, program)
    ones = possible[:, None].expand_as(constants)
    return log_partition, _scatter(parts, scores, base, program).scatter(1, constants, ones)


def _conditional(clique: int, tables: Tables, messages: Messages, program: Program) -> Tensor:
    """P(r|s) of a clique, over all its nodes; 0 where the separator's labels are impossible."""
    message, nodes = messages.centred[clique], len(program.cliques[clique][0])
    combined = _combine(clique, tables, messages.centred, program, Log()) - _wide(messages.shifts[clique], nodes)
    return (combined - _wide(message.masked_fill(torch.isneginf(message), 0.0), program.cliques[clique][1])).exp()


def _hand_down(clique: int, belief: Tensor, beliefs: list[Tensor], program: Program) -> list[Tensor]:
    """Sum a clique's table down to each input: into ``beliefs`` for its children, returned for its tables."""
    children = program.children[clique]
    parts = []
    for place, shape in enumerate(program.broadcast_shapes[clique]):
        absent = [axis + 1 for axis, card in enumerate(shape) if card < belief.shape[axis + 1]]
        marginal = belief.sum(absent) if absent else belief
        if place < len(children):
            nodes, eliminated, _ = program.cliques[children[place]]
            separator = [program.cardinalities[node] for node in nodes[: len(nodes) - eliminated]]
            beliefs[children[place]] = marginal.reshape(-1, *separator)
        else:
            parts.append(marginal.flatten(1))
    return parts


def _scatter(parts: Sequence[Sequence[Tensor]], scores: Tensor, base: Tensor, program: Program) -> Tensor:
    """What :func:`arrange` took apart, put back into rows; 0 elsewhere."""
    flat = torch.cat([scores.new_zeros(len(scores), 0), *[part for own in parts for part in own]], 1)
    return torch.zeros_like(scores).scatter(1, _entries(scores, base, program), flat)


def surprisal(scores: Tensor, other: Tensor, base: Tensor, program: Program) -> Tensor:
    """E_P[−ln Q(y)] ``[B]`` in double precision, P of ``scores`` and Q of ``other``; the entropy where both are one.

    By the chain rule, up the tree: −ln Q(y) = Σ over cliques of −ln Q(r|s), of which no term is negative. A clique
    sends E_P[the terms of it and of those below it | s]. Each −ln Q(r|s) is a difference of sums that share their
    labels s, so that nothing is lost where scores are huge. +∞ where P(y) > 0 = Q(y).
    """
    wide = accumulator(scores)
    tables = [arrange(x.to(wide), base, program) for x in (scores, other)]
    messages: list[list[Tensor]] = [[], []]
    moments: list[Tensor] = []
    nothing = [[scores.new_zeros((), dtype=wide)]] * len(program.cliques)
    for clique, (nodes, eliminated, _) in enumerate(program.cliques):
        kept = len(nodes) - eliminated
        joint = [_combine(clique, own, sent, program, Log()) for own, sent in zip(tables, messages, strict=True)]
        below = _combine(clique, nothing, moments, program, Log()).expand_as(joint[0])
        moments.append(branches.surprisal(*(x.flatten(1 + kept) for x in (below, *joint))))
        for sent, combined in zip(messages, joint, strict=True):
            sent.append(_sent(combined, eliminated, kept, Log())[0])
    constants = other.detach().gather(1, _constants(other, base, program)).sum(-1)
    roots = [moment for moment, (_, _, parent) in zip(moments, program.cliques, strict=True) if parent < 0]
    return sum(roots, constants.new_zeros(len(scores), dtype=wide)).masked_fill(torch.isneginf(constants), torch.inf)


def decode(
    scores: Tensor, base: Tensor, program: Program, semiring: Semiring, uniforms: Tensor | None, labels: Tensor
) -> Tensor:
    """Labellings read off from the roots down, given the messages of ``semiring``.

    Args:
        scores: ``[B, program.size]``.
        base: ``int64 [B or 1, tables]``.
        program: the junction tree.
        semiring: :class:`~lnz.semirings.Max` with no ``uniforms``, or :class:`~lnz.semirings.Log` with them.
        uniforms: ``[n, B, cliques]`` in [0, 1), one per clique for the inverse of its distribution function; ``None``
            takes a best label.
        labels: ``int64 [n, B, N]``; the entries of observed nodes are kept, all others are filled in.
    """
    tables = arrange(scores, base, program)
    messages = upward(tables, program, semiring).centred
    labels = labels.clone()
    rows = torch.arange(len(scores), device=scores.device)
    for clique in reversed(range(len(messages))):
        nodes, eliminated, _ = program.cliques[clique]
        kept = len(nodes) - eliminated
        combined = _combine(clique, tables, messages, program, semiring).flatten(1 + kept)
        given = combined[(rows, *labels[..., nodes[:kept]].unbind(-1))]
        given = given.expand(*labels.shape[:-1], -1)  # [n, B, joint labels of the eliminated nodes]
        if uniforms is None:
            chosen = given.argmax(-1)
        else:
            cumulative = (given - given.amax(-1, keepdim=True)).double().exp().cumsum(-1)
            target = uniforms[..., clique, None] * cumulative[..., -1:]
            chosen = torch.searchsorted(cumulative.contiguous(), target, right=True).squeeze(-1)
        cards = program.shapes[clique][kept:]
        labels[..., nodes[kept:]] = torch.stack(torch.unravel_index(chosen, cards), -1)
    return labels
