"""The last rung of the precision ladder: the recursions of :mod:`lnz.ops.chain.reference`, compiled, in float64.

Sequence by sequence, in logarithms, whatever the range of the scores. α is normalised at every step; from it follows
the conditional of a label given the next one, and from that marginals, samples and ln P(y):

    P(y_t = k | y_{t+1} = l) = exp(α_t(k) + A_t(k, l) − top_{t+1}(l)) / mass_{t+1}(l)

with top the maximum over k and mass the sum of the exponentials, which the forward pass keeps. Taken apart like this,
and not as one logarithm, conditionals sum to 1 however large the scores are. Where all labels k are impossible, top is
kept as 0 and mass is 0, and so is the conditional.

O(T L²) time and exponentials per sequence, O(T L) memory. A score that is NaN or +inf makes all results of its sequence
NaN.

Arrays are those of :class:`lnz.ops.chain.records.Chains`, float64, and sequences first … last − 1.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from lnz.ops.chain.cpu.rows import FLAGS
from lnz.ops.chain.cpu.sample import IGNORE, pick
from lnz.ops.chain.records import Chains, with_a_table
from lnz.ops.jit.cpu import helper, kernel
from lnz.ops.jit.cpu.math import exp, log
from lnz.ops.jit.cpu.rows import copy
from lnz.ops.jit.threads import parallel, partition
from lnz.ops.jit.work import arrays, on_threads, shares_of, threads_for


@helper(fastmath=FLAGS | {"reassoc"})
def total_of(values):
    total = 0.0
    for l in range(values.size):
        total += values[l]
    return total


@helper(fastmath=FLAGS)
def normalise(values, row):
    """Subtract ln Σ exp of the values from them, and return it; −inf, with nothing done, if all are."""
    top = -math.inf
    for l in range(values.size):
        top = values[l] if values[l] > top else top
    if top == -math.inf:
        return top
    for l in range(values.size):
        row[l] = exp(values[l] - top)
    rest = math.log(total_of(row))
    for l in range(values.size):
        values[l] = (values[l] - top) - rest
    return top + rest


@helper(fastmath=FLAGS)
def transition(alpha, table, top, mass, out):
    """``top`` and ``mass`` of a step, and ``out(l) = ln Σ_k exp(alpha(k) + table(k, l))``."""
    size = alpha.size
    top[:] = -math.inf
    mass[:] = 0
    for k in range(size):
        for l in range(size):
            value = alpha[k] + table[k, l]
            top[l] = value if value > top[l] else top[l]
    for l in range(size):
        top[l] = 0.0 if top[l] == -math.inf else top[l]
    for k in range(size):
        for l in range(size):
            mass[l] += exp((alpha[k] + table[k, l]) - top[l])
    for l in range(size):
        out[l] = top[l] + log(mass[l])


@helper(fastmath=FLAGS)
def is_number(values):
    """Whether no value is NaN or +inf."""
    wrong = 0
    for value in values:
        wrong += 0 if value < math.inf else 1
    return wrong == 0


@helper(fastmath=FLAGS)
def forward(node, edge, b, n, alpha, top, mass):
    """α, top and mass ``[T, L]`` of the n steps of sequence b; returns ln Z, NaN where a score is no number below ∞."""
    size, own, several = node.shape[2], b if len(edge) > 1 else 0, edge.shape[1] > 1
    row, log_z, numbers = np.empty(size), 0.0, is_number(node[b, :n].ravel())
    for t in range(n - 1 if several else min(1, n - 1)):
        numbers = numbers and is_number(edge[own, t].ravel())
    if not numbers:
        return math.nan
    for t in range(n):
        if t:
            transition(alpha[t - 1], edge[own, t - 1 if several else 0], top[t], mass[t], row)
            for l in range(size):
                alpha[t, l] = row[l] + node[b, t, l]
        else:
            alpha[0] = node[b, 0]
        log_z += normalise(alpha[t], row)
    return log_z


@helper(fastmath=FLAGS)
def weigh(after, mass, share):
    """``share(l) = after(l) / mass(l)``; 0 where the mass is."""
    for l in range(after.size):
        share[l] = after[l] / mass[l] if mass[l] > 0 else 0.0


@helper(fastmath=FLAGS)
def joint(alpha_k, table_k, top, share, row):
    """``row(l) = P(k | l) after(l)``, ``share`` being after / mass."""
    for l in range(row.size):
        row[l] = exp((alpha_k + table_k[l]) - top[l]) * share[l]


@helper(fastmath=FLAGS)
def exponentials(values):
    for l in range(values.size):
        values[l] = exp(values[l])


@helper()
def rooms(node):
    """α, top and mass of a sequence."""
    shape = node.shape[1:]
    return np.empty(shape), np.empty(shape), np.empty(shape)


@kernel(fastmath=FLAGS)
def run_forward_backward(first, last, node, edge, lengths, log_z, nodes):
    """ln Z ``[B]`` and node marginals ``[B, T, L]``, written; α lies where the marginals will be."""
    size = node.shape[2]
    top, mass, row, share = np.empty(node.shape[1:]), np.empty(node.shape[1:]), np.empty(size), np.empty(size)
    for b in range(first, last):
        own, several, n = b if len(edge) > 1 else 0, edge.shape[1] > 1, lengths[b]
        alpha = nodes[b]
        log_z[b] = forward(node, edge, b, n, alpha, top, mass)
        nodes[b, n:] = 0
        if not log_z[b] > -math.inf:
            nodes[b, :n] = log_z[b] if math.isnan(log_z[b]) else 0.0
        elif n:
            exponentials(nodes[b, n - 1])
            for t in range(n - 2, -1, -1):
                weigh(nodes[b, t + 1], mass[t + 1], share)
                for k in range(size):
                    joint(alpha[t, k], edge[own, t if several else 0, k], top[t + 1], share, row)
                    nodes[b, t, k] = total_of(row)


@kernel(fastmath=FLAGS)
def run_edges(node, edge, lengths, first, last, weight, total):
    """``total [B or 1, S, L, L]`` += Σ ``weight [B]`` · edge marginals."""
    size = node.shape[2]
    alpha, top, mass = rooms(node)
    after, row, share = np.empty(size), np.empty(size), np.empty(size)
    for b in range(first, last):
        own, several, n = b if len(edge) > 1 else 0, edge.shape[1] > 1, lengths[b]
        log_z = forward(node, edge, b, n, alpha, top, mass)
        if n and log_z > -math.inf:
            copy(after, alpha[n - 1])
            exponentials(after)
            for t in range(n - 2, -1, -1):
                at = t if several else 0
                weigh(after, mass[t + 1], share)
                for k in range(size):
                    joint(alpha[t, k], edge[own, at, k], top[t + 1], share, row)
                    after[k] = total_of(row)
                    for l in range(size):
                        total[own, at, k, l] += weight[b] * row[l]
        elif math.isnan(log_z):
            total[own] = log_z


@kernel(fastmath=FLAGS)
def run_log_prob(first, last, node, edge, lengths, y, log_prob):
    """ln P(y) ``[B]`` of full labellings ``[B, T]``, written; a sum of logarithms of conditionals, none above 0."""
    alpha, top, mass = rooms(node)
    for b in range(first, last):
        own, several, n = b if len(edge) > 1 else 0, edge.shape[1] > 1, lengths[b]
        log_z = forward(node, edge, b, n, alpha, top, mass)
        total = alpha[n - 1, y[b, n - 1]] if n else 0.0
        for t in range(n - 1):
            k, l = y[b, t], y[b, t + 1]
            score = (alpha[t, k] + edge[own, t if several else 0, k, l]) - top[t + 1, l]
            total += score - math.log(mass[t + 1, l]) if mass[t + 1, l] > 0 else -math.inf
        log_prob[b] = log_z if math.isnan(log_z) else total


@kernel(fastmath=FLAGS)
def run_filtered(first, last, node, edge, lengths, shares):
    """exp α ``[B, T, L]``, written; 0 over padding."""
    _, top, mass = rooms(node)
    for b in range(first, last):
        n = lengths[b]
        log_z = forward(node, edge, b, n, shares[b], top, mass)
        for t in range(n):
            exponentials(shares[b, t])
        if math.isnan(log_z):
            shares[b] = log_z
        shares[b, n:] = 0


@kernel(fastmath=FLAGS)
def run_sample(first, last, node, edge, lengths, uniform, labels):
    """``labels int64 [n, B, T]``, written, −100 beyond the lengths, by ``uniform [n, B, T]`` numbers."""
    alpha, top, mass = rooms(node)
    weights = np.empty(node.shape[2])
    for b in range(first, last):
        own, several, n = b if len(edge) > 1 else 0, edge.shape[1] > 1, lengths[b]
        forward(node, edge, b, n, alpha, top, mass)
        labels[:, b, n:] = IGNORE
        for m in range(len(labels)):
            for t in range(n - 1, -1, -1):
                copy(weights, alpha[t])
                if t < n - 1:
                    following = labels[m, b, t + 1]
                    for k in range(weights.size):
                        weights[k] += edge[own, t if several else 0, k, following]
                        weights[k] -= top[t + 1, following]
                exponentials(weights)
                labels[m, b, t] = pick(weights, uniform[m, b, t])


def forward_backward_in_logs(node: Tensor, edge: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """ln Z ``[B]`` and node marginals ``[B, T, L]``."""
    log_z, nodes = node.new_empty(len(node)), torch.empty_like(node, memory_format=torch.contiguous_format)
    _in_parallel(run_forward_backward, Chains(node, edge, lengths), log_z, nodes)
    return log_z, nodes


def log_prob_in_logs(node: Tensor, edge: Tensor, lengths: Tensor, y: Tensor) -> Tensor:
    """ln P(y) ``[B]`` of full labellings ``[B, T]``."""
    log_prob = node.new_empty(len(node))
    _in_parallel(run_log_prob, Chains(node, edge, lengths), y, log_prob)
    return log_prob


def filtered_in_logs(node: Tensor, edge: Tensor, lengths: Tensor) -> Tensor:
    """P(y_t given what is up to t) ``[B, T, L]``; 0 over padding."""
    shares = torch.empty_like(node, memory_format=torch.contiguous_format)
    _in_parallel(run_filtered, Chains(node, edge, lengths), shares)
    return shares


def sample_in_logs(node: Tensor, edge: Tensor, lengths: Tensor, uniform: Tensor) -> Tensor:
    """Labellings ``int64 [n, B, T]`` by random numbers ``[n, B, T]`` in [0, 1)."""
    labels = torch.empty(uniform.shape, dtype=torch.int64)
    _in_parallel(run_sample, Chains(node, edge, lengths), uniform, labels)
    return labels


def edges_in_logs(chains: Chains, weight: Tensor) -> Tensor:
    """Σ ``weight [B]`` · edge marginals, in the shape of the edge scores."""
    if not chains.edge.numel():
        return torch.zeros_like(chains.edge)
    inputs, weights = arrays(*chains), arrays(weight)
    parts = shares_of(len(chains.node), threads_for(chains.node.numel()))
    copies = len(parts) if len(chains.edge) == 1 else 1  # of what several threads would add to
    totals = np.zeros((copies, *inputs[1].shape))
    on_threads(
        lambda part, first, last: run_edges(*inputs, first, last, *weights, totals[part % copies]),
        parts,
    )
    return torch.from_numpy(totals.sum(0) if copies > 1 else totals[0])


def _in_parallel(run, chains: Chains, *rest: Tensor) -> None:
    work = partition(len(chains.node), threads_for(chains.node.numel()), 4)
    parallel(run, work, *arrays(*with_a_table(chains)), *(x.numpy() for x in rest))
