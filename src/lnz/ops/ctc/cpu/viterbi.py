"""The best alignment of a range of sequences (Viterbi 1967), eight labels of a target at a time.

After a frame, column u holds the best score of the paths that end in the blank after u labels, and of those that end
in label u, counted from 0, which follows it. A path moves by one column per frame at most: columns are looked at only
where one can have come from the start and can still reach the end. Two bits per column say where its best paths came
from, which is all that the walk back reads.

Scores are summed in float64, whatever those of frames are, for in float32 sums over thousands of frames no longer tell
paths apart: no alignment is better by more than T roundings of float64 at the size of the sum.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from lnz.ops.ctc.cpu.floating import WIDE, Eight
from lnz.ops.ctc.cpu.rows import FLAGS, fill
from lnz.ops.jit.cpu import kernel
from lnz.ops.registers.cpu.product import workspace

IGNORE = -100
BLANK, LABEL = 0, 1  # rows of states, and of the bits that say where these came from

_INDEX, _SHORT = ir.IntType(64), ir.IntType(32)
_BITS = ir.VectorType(ir.IntType(1), WIDE)
_SHIFTED = ir.Constant(ir.VectorType(_SHORT, WIDE), list(range(WIDE - 1, 2 * WIDE - 1)))


class _Columns(Eight):
    """Eight columns."""

    def address(self, array: Any, *index: Any) -> Any:
        kind, value = array
        return cgutils.get_item_pointer(self.context, self.builder, kind, value, index, wraparound=False)

    def bits(self, array: Any, *index: Any) -> Any:
        """The address of one byte as that of a bit for each column."""
        return self.builder.bitcast(self.address(array, *index), _BITS.as_pointer())

    def gathered(self, x: Any, row: Any, places: Any) -> Any:
        """Scores of a row that lie ``places`` bytes from its start, as float64."""
        builder, size = self.builder, x[0].dtype.bitwidth
        start = self.address(x, row, ir.Constant(_INDEX, 0))
        pointers = builder.add(self.spread(builder.ptrtoint(start, _INDEX)), places)
        pointers = builder.inttoptr(pointers, ir.VectorType(start.type, WIDE))
        vector = ir.VectorType(self.context.get_value_type(x[0].dtype), WIDE)
        every, nothing = ir.Constant(_BITS, [1] * WIDE), ir.Constant(vector, None)
        arguments = [pointers, ir.Constant(_SHORT, size // 8), every, nothing]
        kind = ir.FunctionType(vector, [argument.type for argument in arguments])
        name = f"llvm.masked.gather.v{WIDE}f{size}.v{WIDE}p0"
        found = builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)
        return found if size == 64 else builder.fpext(found, ir.VectorType(ir.DoubleType(), WIDE))


@intrinsic
def _frame(
    typing_context: Any, x: Any, row: Any, places: Any, blank: Any, skips: Any, stays: Any, states: Any, came: Any,
    t: Any, begin: Any, end: Any,
) -> Any:  # fmt: skip
    """Blocks ``begin`` … ``end`` − 1 of ``states`` after frame t, the scores of whose classes are a row of x."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        eight = _Columns(context, builder, signature, arguments)
        x, row, places, blank, skips, stays, states, came, t, begin, end = eight.arguments
        before = cgutils.alloca_once_value(builder, eight.constant(-math.inf))
        blank, new = eight.spread(blank), eight.spread(builder.not_(stays))
        with cgutils.for_range(builder, builder.sub(end, begin)) as loop:
            k = builder.add(begin, loop.index)
            at = builder.mul(k, ir.Constant(_INDEX, WIDE))
            b, l = eight.load(states, at, BLANK), eight.load(states, at, LABEL)
            last = builder.shuffle_vector(builder.load(before), l, _SHIFTED)  # the label before each blank
            builder.store(l, before)
            spoken = builder.fcmp_ordered(">", last, b)
            either = builder.select(spoken, last, b)
            come = builder.select(builder.load(eight.bits(skips, k)), either, b)
            moved = builder.or_(builder.fcmp_ordered(">", come, l), new)
            label = eight.gathered(x, row, eight.integers(places, at))
            eight.store(builder.fadd(either, blank), states, at, BLANK)
            eight.store(builder.fadd(builder.select(moved, come, l), label), states, at, LABEL)
            for which, bits in ((BLANK, spoken), (LABEL, moved)):
                builder.store(bits, eight.bits(came, t, k, ir.Constant(_INDEX, which)))
        return context.get_dummy_value()

    numbers = types.intp, types.intp, types.intp
    return types.void(x, types.intp, places, types.float64, skips, types.boolean, states, came, *numbers), generate


@njit(fastmath=FLAGS)
def _forward(x, start, stride, n, U, places, blank, skips, stays, states, came):
    """The states after n frames, and where those of every frame came from."""
    fill(states[BLANK], -math.inf)
    fill(states[LABEL], -math.inf)
    states[BLANK, 0] = 0.0  # as if a blank came before the first frame
    for t in range(n):
        row = start + t * stride
        at_blank = np.float64(x[row, blank]) if blank >= 0 else -math.inf
        begin = max(0, U - n + t - 1) // WIDE  # one column before the first that matters, which needs it
        end = min(U, t) // WIDE + 1
        _frame(x, row, places, at_blank, skips, stays, states, came, t, begin, end)  # type: ignore[call-arg]


@njit
def _walk(n, y, in_label, blank, skips, came, best):
    """Write the classes of n frames, from the last one back."""
    u = y.size - 1 if in_label else y.size
    for t in range(n - 1, -1, -1):
        best[t] = y[u] if in_label else blank
        block, bit = u // WIDE, np.uint8(1 << u % WIDE)
        spoken = came[t, block, BLANK] & bit
        if not in_label:
            if spoken:
                in_label, u = True, u - 1
        elif came[t, block, LABEL] & bit:
            if spoken and skips[block] & bit:
                u -= 1
            else:
                in_label = False


@kernel(fastmath=FLAGS)
def viterbi(x, strides, labels, direct, lengths, sizes, blank, stays, first, last, best, scores):
    """Write the best alignments ``[B, T]``, −100 over padding, or throughout where there is none, and their scores.

    Of several, that which, seen from its end, stays in a state rather than comes from another, and comes from a blank
    rather than from a label.
    """
    T, blocks = best.shape[1], labels.shape[1] // WIDE + 1
    states, places = workspace(2, blocks * WIDE, np.float64), workspace(1, blocks * WIDE, np.int64)[0]
    came, skips = np.empty((T, blocks, 2), np.uint8), np.empty(blocks, np.uint8)
    for b in range(first, last):
        n, y = lengths[b], labels[b, : sizes[b]]
        U = y.size
        fill(skips, 0)
        for u in range(U):
            places[u] = y[u] * x.itemsize
            skips[u // WIDE] |= np.uint8(direct[b, u]) << np.uint8(u % WIDE)
        _forward(x, b * strides[0], strides[1], n, U, places, blank, skips, stays, states, came)
        in_label = U > 0 and states[LABEL, U - 1] > states[BLANK, U]
        score = states[LABEL, U - 1] if in_label else states[BLANK, U]
        scores[b], possible = score, score > -math.inf
        if possible:
            _walk(n, y, in_label, blank, skips, came, best[b])
        fill(best[b, n if possible else 0 :], IGNORE)
