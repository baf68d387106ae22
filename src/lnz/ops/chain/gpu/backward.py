"""The recursion backwards by conditionals: node and edge marginals, or the gradient of ln P(y), times a weight.

    P(y_t = k, y_{t+1} = l) = P(y_t = k | y_{t+1} = l) P(y_{t+1} = l),    P(y_t = k) = Σ_l P(y_t = k, y_{t+1} = l)

where P(y_t = k | y_{t+1} = l) ∝ exp(α_t(k) + A(k, l)). It starts from α at the last step. Conditionals are normalised
where they are used, so that marginals sum to 1 for scores of any size.

What all steps of a shared table add to its gradient is summed in registers, by a fixed number of programs, of P the
p-th taking chains p, p + P, …; the sums of programs are added after that in one fixed order. Nothing is added
atomically: the same input has the same gradient, to the last bit.
"""

from __future__ import annotations

from typing import NamedTuple

import triton.language as tl
from torch import Tensor

from lnz.ops.chain.gpu.recursion import columns, in_logarithms, joint, prepared, row_if, shared_out
from lnz.ops.chain.gpu.shapes import WITH_SUMS, Layout
from lnz.ops.jit.triton.launch import kernel, launch

NONE, STEPS, TABLE = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
"""What becomes of edge marginals: nothing, one table per chain and step, or one per program."""


@kernel
def backward_kernel(
    edge, lengths, y, weight, alpha, ends, carried, at_node, at_edge, B, T, size, entry, step, BLOCKS, STEPS_OF,
    LABELS: tl.constexpr, COLUMNS: tl.constexpr, SHARED: tl.constexpr, EDGES: tl.constexpr, LABELLED: tl.constexpr,
    CUT: tl.constexpr,
):  # fmt: skip
    """Programs p, p + P, … of the BLOCKS blocks of B chains: ``at_node [B, T, L]`` and ``at_edge``, both written.

    Weight times marginals, or times (indicators of y − marginals) where LABELLED. ``alpha [B, T, L]``; ``at_edge`` is
    ``[B, T − 1, L, L]`` or ``[P, L, L]``. Where chains are CUT, ``ends [B, BLOCKS + 1, L]`` are the marginals between
    blocks. ``carried [P, L]`` is room for a row, where tables do not fit into registers.
    """
    REAL: tl.constexpr = alpha.dtype.element_ty
    k = tl.arange(0, LABELS)
    pid, programs = tl.program_id(0), tl.num_programs(0)
    cells = k[:, None] * size + tl.arange(0, COLUMNS)[None, :]
    total = tl.zeros([LABELS, COLUMNS], REAL)
    for item in range(pid, B * BLOCKS, programs):
        b, block = (item // BLOCKS).to(tl.int64), item % BLOCKS
        n, scale = tl.load(lengths + b), tl.load(weight + b).to(REAL)
        first = block * STEPS_OF + tl.zeros_like(n)
        last = tl.minimum(first + STEPS_OF, n - 1) if CUT else n - 1
        rows, nodes, labels = alpha + b * T * size, at_node + b * T * size, y + b * T
        tables = edge + b * entry
        pairs = at_edge + b * (T - 1) * size * size
        p = tl.exp(row_if(rows + last * size, k, size, first <= last, REAL))
        if CUT:
            between = tl.load(ends + (b * (BLOCKS + 1) + block + 1) * size + k, mask=k < size, other=0.0).to(REAL)
            p = tl.where(last < n - 1, between, p)
        mine = last
        if LABELLED:
            mine = tl.load(labels + last, mask=first <= last, other=0)
        gold = (k == mine).to(REAL) if LABELLED else 0.0
        mine_to_write = tl.where((first <= last) & (last == n - 1), size, 0)  # not what the next block begins with
        tl.store(nodes + last * size + k, scale * ((gold - p) if LABELLED else p), mask=k < mine_to_write)
        weights, top, reach = 0.0, tl.zeros([], REAL), 0.0
        if SHARED:
            weights, top, reach = prepared(tables, size, LABELS, COLUMNS, REAL)
        following = row_if(rows + (last - 1) * size, k, size, first < last, REAL)
        for t in range(last - 1, first - 1, -1):
            a = following  # loaded a step ahead
            following = row_if(rows + (t - 1) * size, k, size, t > first, REAL)
            after, successor = p, mine
            if LABELLED:
                mine = tl.load(labels + t)
            if COLUMNS == LABELS:
                both = joint(a, after, tables + t * step, weights, top, reach, size, LABELS, SHARED)
                p = tl.sum(both, 1)
                if EDGES != NONE:
                    if LABELLED:
                        l = tl.arange(0, COLUMNS)
                        both = ((k == mine)[:, None] & (l == successor)[None, :]).to(REAL) - both
                    both *= scale
                if EDGES == TABLE:
                    total += both
                if EDGES == STEPS:
                    tl.store(pairs + t * size * size + cells, both, mask=cells_inside(0, size, LABELS, COLUMNS))
            else:  # column by column, through memory
                tl.store(carried + pid * size + k, after, mask=k < size)
                tl.debug_barrier()
                p = tl.zeros([LABELS], REAL)
                for begin in range(0, size, COLUMNS):
                    l = begin + tl.arange(0, COLUMNS)
                    some = columns(tables + t * step, begin, size, LABELS, COLUMNS, REAL)
                    shares = tl.load(carried + pid * size + l, mask=l < size, other=0.0)
                    both = shared_out(in_logarithms(a, some), shares)
                    p += tl.sum(both, 1)
                    inside = cells_inside(begin, size, LABELS, COLUMNS)
                    if EDGES != NONE:
                        if LABELLED:
                            both = ((k == mine)[:, None] & (l == successor)[None, :]).to(REAL) - both
                        both *= scale
                    if EDGES == TABLE:
                        at = at_edge + pid.to(tl.int64) * size * size + begin + cells
                        tl.store(at, tl.load(at, mask=inside, other=0.0) + both, mask=inside)
                    if EDGES == STEPS:
                        tl.store(pairs + t * size * size + begin + cells, both, mask=inside)
                tl.debug_barrier()
            gold = (k == mine).to(REAL) if LABELLED else 0.0
            value = (gold - p) if LABELLED else p  # pyright: ignore[reportOperatorIssue]
            tl.store(nodes + t * size + k, scale * value, mask=k < size)
    if EDGES == TABLE and COLUMNS == LABELS:
        at = at_edge + pid.to(tl.int64) * size * size + cells
        tl.store(at, total, mask=cells_inside(0, size, LABELS, COLUMNS))


@kernel
def cells_inside(first, size, LABELS: tl.constexpr, COLUMNS: tl.constexpr):
    """Which of the pairs of a block of columns are pairs of labels."""
    return (tl.arange(0, LABELS)[:, None] < size) & (first + tl.arange(0, COLUMNS)[None, :] < size)


class Outputs(NamedTuple):
    """What is written.

    Attributes:
        nodes: ``[B, T, L]``, 0 at first.
        edges: ``[B, T − 1, L, L]`` of STEPS, ``[P, L, L]`` of TABLE, 0 at first.
        kind: of the edges.
        programs: P.
    """

    nodes: Tensor
    edges: Tensor
    kind: int
    programs: int


def run(layout: Layout, alpha: Tensor, y: Tensor | None, weight: Tensor, ends: Tensor | None, out: Outputs) -> None:
    """Weight ``[B]`` times marginals, or times (indicators of y ``[B, T]`` − marginals)."""
    (B, T, L), constants = alpha.shape, layout.constants
    whole = constants["COLUMNS"] == constants["LABELS"]
    carried = alpha if whole else alpha.new_empty(out.programs, L)
    labels = layout.arrays[2] if y is None else y
    sums = out.kind == TABLE.value and whole and constants["LABELS"] >= WITH_SUMS // 2
    warps = 2 * layout.warps if sums else layout.warps
    launch(
        backward_kernel, (out.programs,), *layout.arrays[1:], labels, weight, alpha, alpha if ends is None else ends,
        carried, out.nodes, out.edges, B, T, L, *layout.strides, layout.blocks, layout.steps,
        EDGES=out.kind, LABELLED=y is not None, CUT=ends is not None, **constants, warps=warps,
    )  # fmt: skip
