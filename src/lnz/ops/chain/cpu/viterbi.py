"""Best labellings: the (max, +) recursion of a few sequences side by side, and the walk back (Viterbi 1967).

The step forward keeps the values only, so that it is one addition and one maximum per pair of labels, in registers; the
walk back looks for the maximising label again, of one column per step. Values are taken relative to the best one of
their step, so that they keep their accuracy in long chains.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from torch import Tensor

from lnz.ops.chain.cpu.rows import FLAGS
from lnz.ops.chain.cpu.sweep import TILE
from lnz.ops.chain.records import Chains, with_a_table
from lnz.ops.jit.cpu import kernel
from lnz.ops.jit.work import arrays, on_threads, shares_of, threads_for
from lnz.ops.registers.cpu.lanes import BLOCK, INT, Lanes, along, running
from lnz.ops.registers.cpu.product import SPLITS, maximise, workspace

IGNORE = -100


@intrinsic
def relative(typing_context: Any, message: Any, r: Any, x: Any, b: Any, t: Any, state: Any, kept: Any) -> Any:
    """``state[r] = kept[r, t] = (message[r] − its largest) + x[b, t]``, −inf where all of the message is."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        message, x, state, kept = (
            (signature.args[i], context.make_array(signature.args[i])(context, builder, arguments[i]))
            for i in (0, 2, 5, 6)
        )
        r, b, t = arguments[1], arguments[3], arguments[4]
        dtype = signature.args[0].dtype
        size, narrow = builder.extract_value(x[1].shape, 2), Lanes(context, builder, dtype)
        top = running(builder, narrow, -math.inf)

        def look(lanes: Any, at: Any) -> None:
            values = lanes.load(message, r, at, other=-math.inf)
            builder.store(lanes.larger(values, builder.load(top)), top)

        along(context, builder, dtype, size, look)
        highest = narrow.reduced(builder.load(top), "fmax")
        lost = builder.fcmp_ordered("==", highest, ir.Constant(narrow.scalar, -math.inf))
        highest = builder.select(lost, ir.Constant(narrow.scalar, 0.0), highest)

        def step(lanes: Any, at: Any) -> None:
            difference = builder.fsub(lanes.load(x, b, t, at), lanes.spread(highest))
            value = builder.fadd(lanes.load(message, r, at), difference)
            lanes.store(value, state, r, at)
            lanes.store(value, kept, r, t, at)

        along(context, builder, dtype, size, step)
        return context.get_dummy_value()

    arguments = message, types.intp, x, types.intp, types.intp, state, kept
    return types.void(*arguments), generate


@njit(fastmath=FLAGS)
def copy(out, x):
    for l in range(out.size):
        out[l] = x[l]


@intrinsic
def maximiser(typing_context: Any, values: Any, r: Any, t: Any, table: Any, line: Any) -> Any:
    """The first l of the largest ``values[r, t, l] + table[line, l]``; 0 where all are NaN or −inf."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values, table = (
            (signature.args[i], context.make_array(signature.args[i])(context, builder, arguments[i])) for i in (0, 3)
        )
        r, t, line = arguments[1], arguments[2], arguments[4]
        dtype = signature.args[0].dtype
        vector, narrow = ir.VectorType(INT, BLOCK), Lanes(context, builder, dtype)
        top = running(builder, narrow, -math.inf)
        place = cgutils.alloca_once_value(builder, ir.Constant(vector, list(range(BLOCK))))

        def step(lanes: Any, at: Any) -> None:
            terms = lanes.load(values, r, t, at, other=-math.inf), lanes.load(table, line, at)
            total, so_far = builder.fadd(*terms), builder.load(top)
            better = builder.fcmp_ordered(">", total, so_far)
            numbers = builder.add(ir.Constant(vector, list(range(BLOCK))), lanes.spread(at, INT))
            builder.store(builder.select(better, total, so_far), top)
            builder.store(builder.select(better, numbers, builder.load(place)), place)

        along(context, builder, dtype, builder.extract_value(values[1].shape, 2), step)
        highest = narrow.reduced(builder.load(top), "fmax")
        found = builder.fcmp_ordered("==", builder.load(top), narrow.spread(highest))
        last = ir.Constant(vector, [2**62] * BLOCK)
        kind = ir.FunctionType(INT, [vector])
        function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.vector.reduce.smin.v{BLOCK}i64")
        return builder.call(function, [builder.select(found, builder.load(place), last)])

    return types.intp(values, types.intp, types.intp, table, types.intp), generate


@njit(fastmath=FLAGS)
def first_of_largest(values):
    place = 0
    for l in range(values.size):
        if values[l] > values[place]:
            place = l
    return place


@kernel(fastmath=FLAGS)
def run(node, edge, lengths, first, last, labels, scores):
    """Of sequences first … last − 1: ``labels int64 [B, T]``, −100 beyond, and float64 ``scores [B]``, both written.

    ``node [B, T, L]``, ``edge [B or 1, T − 1 or 1, L, L]``. An impossible chain gets −100 and −inf.
    """
    T, size = node.shape[1:]
    padded, inner = (size + 15) // 16 * 16, (size + SPLITS - 1) // SPLITS * SPLITS
    several, rows = edge.shape[1] > 1, TILE if len(edge) == 1 else 1
    table, into = workspace(inner, padded + 16, node.dtype), workspace(size, padded, node.dtype)
    state, message = workspace(TILE, padded, node.dtype), workspace(TILE, padded, node.dtype)
    columns = state.T
    values, copied = np.empty((rows, T, size), node.dtype), -1
    for at in range(first, last, rows):
        count, own, longest = min(rows, last - at), at if len(edge) > 1 else 0, 0
        for b in range(at, at + count):
            longest = max(longest, lengths[b])
        state[:] = -math.inf
        message[:] = 0
        for t in range(longest):
            if t:
                if several or copied != own:
                    copied = own
                    scores_here = edge[own, t - 1 if several else 0]
                    for i in range(size):
                        copy(table[i, :size], scores_here[i])
                        if not several:
                            copy(into[:, i], scores_here[i])
                maximise(columns, table, message, count, size)
            for r in range(count):
                if t < lengths[at + r]:
                    relative(message, r, node, at + r, t, state, values)  # type: ignore[call-arg]
        for r in range(count):
            b, n = at + r, lengths[at + r]
            labels[b, n:] = IGNORE
            scores[b] = 0.0
            if n == 0:
                continue
            label, total = first_of_largest(values[r, n - 1]), 0.0
            for t in range(n - 1, -1, -1):
                labels[b, t] = label
                total += node[b, t, label]
                if t:
                    if several:
                        copy(into[label, :size], edge[own, t - 1, :, label])
                    previous = maximiser(values, r, t - 1, into, label)  # type: ignore[call-arg]
                    total += into[label, previous]
                    label = previous
            scores[b] = total
            if total == -math.inf:
                labels[b, :] = IGNORE


def viterbi(chains: Chains) -> tuple[Tensor, Tensor]:
    """A best labelling ``int64 [B, T]`` and its score, float64 ``[B]``; −100 and −inf where there is none."""
    B, T, _ = chains.node.shape
    labels, scores = torch.empty(B, T, dtype=torch.int64), torch.empty(B, dtype=torch.float64)
    inputs, outputs = arrays(*with_a_table(chains)), (labels.numpy(), scores.numpy())
    threads = threads_for(chains.node.numel())
    on_threads(lambda _, first, last: run(*inputs, first, last, *outputs), shares_of(B, threads))
    return labels, scores
