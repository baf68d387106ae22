"""The pass by products of exponentials, on any device: nearly all of its arithmetic is that of matrix products.

A span of w + 1 words is the sum over its splits of outer products of two vectors of symbols, a matrix product
``[S, w] [w, S]``; its nonterminals are the rules times that, a product ``[P, S S] [S S, NT]`` for all P spans of a
width. Exponentials are of scores less the largest of their span. A pass down shares out the probability of each span
among what it may become, in proportion to the summands of the pass up.

A sentence is in range where every sum is large enough for underflow to be negligible, or nothing underflows at all,
so that sums of zeros are impossible. Shapes as in :mod:`lnz.ops.grammar.reference`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lnz.ops.grammar.records import Grammar

_LIMIT = {torch.float32: 1e-26, torch.float64: 1e-260}  # underflow below it is negligible
_SMALLEST = {torch.float32: -80.0, torch.float64: -680.0}  # ln of what products must stay above not to underflow


class _Chart(NamedTuple):
    """Twice the same values, so that the parts of neighbouring spans are slices: left by first word and width, right by
    last word and N − 1 − width.

    Attributes:
        left, right: exp(β − the largest of the span) ``[B, N, N, S]``.
        left_top, right_top: the largest β of a span ``[B, N, N]``, float64; −inf where none is possible.
    """

    left: Tensor
    right: Tensor
    left_top: Tensor
    right_top: Tensor


class _Rules(NamedTuple):
    """exp(rules − top) ``[B or 1, NT, S S]``, and the largest score of each nonterminal's ``[B or 1, 1, NT]``."""

    table: Tensor
    top: Tensor


def forward_backward(given: Grammar) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """ln Z, float64 ``[B]``; expected counts of preterminals, root, rules; and which entries are in range ``[B]``."""
    with torch.no_grad(), torch.autocast(given.preterminals.device.type, enabled=False):
        return _solve(given)


def _solve(given: Grammar) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    (B, N, PT), NT, dtype = given.preterminals.shape, given.root.shape[1], given.preterminals.dtype
    flat = given.rules.flatten(2)
    top = _finite(flat.amax(2, keepdim=True))
    below = flat - top
    lowest_rule = _lowest(below)
    rules = _Rules(below.exp_(), top.mT.double())
    words = torch.arange(N, device=given.lengths.device) < given.lengths[:, None]
    chart, widest = _empty_chart(given), int(given.lengths.max())
    scores = torch.cat((given.root[:, None].new_full((1, 1, NT), -math.inf).expand(B, N, NT), given.preterminals), -1)
    lowest = _put(chart, 0, scores.double().where(words.unsqueeze(-1), -math.inf))  # ln of the smallest entry but 0
    whole = top.new_full((B, NT), -math.inf, dtype=torch.float64)  # β of whole sentences
    sums, in_range = [], torch.ones(B, dtype=torch.bool, device=words.device)
    for w in range(1, widest):
        left, right, scale = _parts(chart, w)
        factor, peak = _factors(scale)
        total = _times_rules(_pairs(left, right, factor.to(dtype)), rules.table)
        beta = (peak.unsqueeze(-1) + rules.top) + total.double().log()
        allowed = _allowed(given, w)
        beta = beta.where(allowed, -math.inf)
        inside = words[:, w:].unsqueeze(-1)
        enough = (total >= _LIMIT[dtype]) | ~inside | ~allowed
        reach = lowest_rule + 2 * lowest + _lowest(scale - peak.unsqueeze(-1))
        in_range &= enough.flatten(1).all(1) | (reach > _SMALLEST[dtype])
        beta = beta.where(inside, -math.inf)
        whole = torch.where((given.lengths == w + 1)[:, None], beta[:, 0], whole)
        lowest = torch.minimum(lowest, _put(chart, w, torch.nn.functional.pad(beta, (0, PT), value=-math.inf)))
        sums.append(total)
    log_z, mass = _whole(given, whole)
    in_range &= ~log_z.isnan() & (log_z < math.inf)
    counts = _share_out(given, chart, rules, sums, mass)
    return log_z, *counts, in_range


def _lowest(scores: Tensor) -> Tensor:
    """The smallest finite entry of each of the batch, at most 0."""
    if not scores.numel():
        return scores.new_zeros(1)
    lowest = scores.flatten(1).amin(1)
    if torch.isneginf(lowest).any():
        lowest = scores.masked_fill(torch.isneginf(scores), 0.0).flatten(1).amin(1)
    return lowest


def _finite(top: Tensor) -> Tensor:
    return top.masked_fill(torch.isneginf(top), 0.0)


def _empty_chart(given: Grammar) -> _Chart:
    (B, N, PT), NT = given.preterminals.shape, given.root.shape[1]
    symbols = [given.preterminals.new_zeros(B, N, N, NT + PT) for _ in range(2)]
    tops = [given.preterminals.new_full((B, N, N), -math.inf, dtype=torch.float64) for _ in range(2)]
    return _Chart(*symbols, *tops)


def _put(chart: _Chart, w: int, beta: Tensor) -> Tensor:
    """Enter spans of a width ``[B, N − w, S]``; the smallest finite β, less the largest of its span ``[B]``."""
    N = chart.left.shape[1]
    top = beta.amax(-1)
    below = beta - _finite(top).unsqueeze(-1)
    chart.left[:, : N - w, w] = chart.right[:, w:, N - 1 - w] = below.exp().to(chart.left.dtype)
    chart.left_top[:, : N - w, w] = chart.right_top[:, w:, N - 1 - w] = top
    return _lowest(below)


def _parts(chart: _Chart, w: int) -> tuple[Tensor, Tensor, Tensor]:
    """Left and right parts ``[B, N − w, w, S]`` of spans of a width, and the sums of their tops ``[B, N − w, w]``."""
    N = chart.left.shape[1]
    tops = chart.left_top[:, : N - w, :w] + chart.right_top[:, w:, N - w :]
    return chart.left[:, : N - w, :w], chart.right[:, w:, N - w :], tops


def _factors(tops: Tensor) -> tuple[Tensor, Tensor]:
    """exp(tops − peak), and the peak of each span; 0 if all are −inf."""
    peak = _finite(tops.amax(-1))
    return (tops - peak.unsqueeze(-1)).exp(), peak


def _pairs(left: Tensor, right: Tensor, factor: Tensor) -> Tensor:
    """Σ over splits of products of symbols, ``[B, P, S, S]``."""
    return (left * factor.unsqueeze(-1)).mT @ right


def _times_rules(pairs: Tensor, table: Tensor) -> Tensor:
    """``[B, P, NT]``."""
    flat = pairs.flatten(2)
    return flat @ table[0].mT if len(table) == 1 else flat @ table.mT


def _allowed(given: Grammar, w: int) -> Tensor:
    """Which nonterminals spans of a width may be, ``[B or 1, N − w or 1, NT or 1]``."""
    if given.allowed.shape[1] != given.preterminals.shape[1]:
        return given.allowed[:, 0]
    return given.allowed.diagonal(w, 1, 2).movedim(-1, 1)


def _whole(given: Grammar, beta: Tensor) -> tuple[Tensor, Tensor]:
    """ln Z ``[B]``, and P(the sentence is of nonterminal a) ``[B, NT]``, from β of the whole sentences ``[B, NT]``."""
    joint = given.root.double() + beta
    top = _finite(joint.amax(-1, keepdim=True))
    weight = (joint - top).exp()
    total = weight.sum(-1, keepdim=True)
    log_z = torch.where(given.lengths == 0, 0.0, (top + total.log()).squeeze(-1))
    return log_z, torch.where(total > 0, weight / total, 0.0).to(given.preterminals.dtype)


def _share_out(
    given: Grammar, chart: _Chart, rules: _Rules, sums: list[Tensor], whole: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Expected counts of preterminals, root and rules, from P of the symbols of whole sentences ``[B, NT]``."""
    NT, N = given.root.shape[1], chart.left.shape[1]
    left_mass, right_mass = torch.zeros_like(chart.left), torch.zeros_like(chart.right)
    entry = torch.arange(len(whole), device=whole.device)
    left_mass[entry, 0, (given.lengths - 1).clamp(min=0), :NT] = whole
    counts = whole.new_zeros(len(whole), NT, rules.table.shape[-1])
    for w in range(len(sums), 0, -1):
        left, right, scale = _parts(chart, w)
        factor = _factors(scale)[0].to(left.dtype).unsqueeze(-1)
        total = sums[w - 1]
        mass = left_mass[:, : N - w, w, :NT] + right_mass[:, w:, N - 1 - w, :NT]
        share = torch.where(total > 0, mass / total, 0.0)
        counts.baddbmm_(share.mT, _pairs(left, right, factor.squeeze(-1)).flatten(2))
        weight = (share @ (rules.table[0] if len(rules.table) == 1 else rules.table)).unflatten(-1, left.shape[-1:] * 2)
        scaled = left * factor
        left_mass[:, : N - w, :w] += scaled * (right @ weight.mT)
        right_mass[:, w:, N - w :] += right * (scaled @ weight)
    words = left_mass[:, :, 0, NT:] + right_mass[:, :, N - 1, NT:]
    return words, whole, counts.mul_(rules.table).unflatten(-1, chart.left.shape[-1:] * 2)
