"""Which thread does what: the rows of a batch are shared, or, where they are few, the blocks of each large clique.

Kernels release the interpreter's lock, so that plain threads run them side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from lnz.ops.elimination.cpu import expectation
from lnz.ops.elimination.cpu import messages as kernels
from lnz.ops.elimination.cpu.layout import ENTRIES, INBOX, MESSAGES, WIDTH, Layout, freeing, layout
from lnz.ops.elimination.cpu.tree import Below, Passed, Row
from lnz.ops.elimination.program import Program
from lnz.ops.jit.threads import side_by_side

_KEPT = 2**20  # entries of all tables together up to which they are kept for the downward pass
_SHARED = 2**18  # entries from which threads share a clique, or the rows
_INBOXES = 2**27  # entries of all threads' inboxes together, at most


def marginals(
    scores: np.ndarray, base: np.ndarray, program: Program, clamped: bool, threads: int
) -> tuple[np.ndarray, np.ndarray]:
    """As :func:`lnz.ops.elimination.reference.marginals`, by up to so many threads."""
    value, out = np.empty(len(scores)), np.zeros_like(scores)
    tree: Layout = program.cached("layout", layout)
    if _shares_cliques(len(scores), tree, threads):
        for row in range(len(scores)):
            given = Row(scores[row], base[min(row, len(base) - 1)], clamped)
            value[row] = _wide_marginals(given, out[row], tree, threads)
    else:
        keep = tree.sizes[ENTRIES] <= _KEPT
        _share_rows(kernels.rows, threads, tree, scores, base, value, out, tree.addresses, keep, clamped)
    return value, out


def partition(scores: np.ndarray, base: np.ndarray, program: Program, clamped: bool, threads: int) -> np.ndarray:
    """ln Z alone, ``[B]``, in float64."""
    value = np.empty(len(scores))
    tree: Layout = program.cached("freeing", freeing)
    if _shares_cliques(len(scores), tree, threads):
        for row in range(len(scores)):
            given = Row(scores[row], base[min(row, len(base) - 1)], clamped)
            value[row] = _wide_upward(given, tree, False, threads)[0]
    else:
        nothing = np.empty((0, 0), scores.dtype)
        _share_rows(kernels.rows, threads, tree, scores, base, value, nothing, tree.addresses, False, clamped)
    return value


def surprisal(scores: np.ndarray, other: np.ndarray, base: np.ndarray, program: Program, threads: int) -> np.ndarray:
    """As :func:`lnz.ops.elimination.reference.surprisal`, of float64 scores."""
    value = np.empty(len(scores))
    tree: Layout = program.cached("freeing", freeing)
    if not _shares_cliques(len(scores), tree, threads):
        _share_rows(expectation.rows, threads, tree, scores, other, base, value, tree.addresses)
        return value
    work = np.empty((threads, expectation.ROOM, tree.sizes[WIDTH]))
    sent, shifts = np.empty((3, tree.sizes[MESSAGES])), np.empty(len(tree.blocks))
    for row in range(len(scores)):
        pair = expectation.Pair(scores[row], other[row], base[min(row, len(base) - 1)])

        def send(c: int, thread: int, begin: int, end: int, pair: expectation.Pair = pair) -> None:
            expectation.send(c, begin, end, pair, sent, tree.addresses, work[thread])

        for c in range(len(tree.blocks)):
            _share_blocks(c, tree, threads, send)
            for messages in sent[: expectation.BELOW]:
                kernels.centre(c, messages, shifts, tree.addresses)
        value[row] = expectation.total(pair, sent, tree.addresses)
    return value


def decode(
    scores: np.ndarray,
    base: np.ndarray,
    program: Program,
    uniforms: np.ndarray | None,
    labels: np.ndarray,
    threads: int,
) -> np.ndarray:
    """As :func:`lnz.ops.elimination.reference.decode`: best labellings where ``uniforms`` is ``None``, else samples."""
    maximise = uniforms is None
    if uniforms is None:
        uniforms = np.empty((*labels.shape[:2], 0))
    labels = labels.copy()
    tree: Layout = program.cached("layout", layout)
    if _shares_cliques(len(scores), tree, threads):
        work = np.empty(tree.sizes[WIDTH], scores.dtype)
        for row in range(len(scores)):
            given = Row(scores[row], base[min(row, len(base) - 1)], True)
            messages = _wide_upward(given, tree, maximise, threads)[1].messages
            for n in range(len(labels)):
                kernels.decode(given, messages, uniforms[n, row], labels[n, row], tree.addresses, work)
    else:
        _share_rows(kernels.label_rows, threads, tree, scores, base, uniforms, labels, tree.addresses, maximise)
    return labels


def _shares_cliques(rows: int, tree: Layout, threads: int) -> bool:
    """Whether threads share the cliques of one row rather than the rows."""
    return threads > 1 and rows < threads and tree.sizes[ENTRIES] >= _SHARED


def _together(threads: int, task: Callable[[int], None]) -> None:
    """Call ``task`` with the number of each thread, all at once; kernels release the interpreter's lock."""
    side_by_side([partial(task, thread) for thread in range(threads)])


def _share_rows(rows: Callable[..., None], threads: int, tree: Layout, scores: np.ndarray, *args: Any) -> None:
    threads = min(threads, len(scores)) if len(scores) * int(tree.sizes[ENTRIES]) >= _SHARED else 1
    _together(max(threads, 1), lambda thread: rows(thread, max(threads, 1), scores, *args))


def _wide_upward(given: Row, tree: Layout, maximise: bool, threads: int) -> tuple[float, Passed]:
    """ln Z or the best score of one row, and what was passed; threads share the blocks of each large clique."""
    dtype = given.scores.dtype
    messages, work = np.empty(tree.sizes[MESSAGES], dtype), np.empty((threads, 4, tree.sizes[WIDTH]), dtype)
    passed = Passed(messages, np.empty(len(tree.blocks)), messages[:0])

    def send(c: int, thread: int, begin: int, end: int) -> None:
        kernels.send(c, begin, end, given, passed, tree.addresses, work[thread], maximise)

    for c in range(len(tree.blocks)):
        _share_blocks(c, tree, threads, send)
        kernels.centre(c, messages, passed.shifts, tree.addresses)
    return kernels.total(given, passed, tree.addresses), passed


def _wide_marginals(given: Row, out: np.ndarray, tree: Layout, threads: int) -> float:
    """ln Z and the marginals of one row, as :func:`_wide_upward`; each thread gathers sums of its own."""
    value, passed = _wide_upward(given, tree, False, threads)
    if value == -np.inf:
        return value
    dtype, threads = out.dtype, max(1, min(threads, _INBOXES // max(1, int(tree.sizes[INBOX]))))
    work, inboxes = np.empty((threads, 4, tree.sizes[WIDTH]), dtype), np.empty((threads, tree.sizes[INBOX]), dtype)
    sums = np.zeros((threads, len(out)), dtype)

    def receive(c: int, thread: int, begin: int, end: int) -> None:
        below = Below(inboxes[thread], sums[thread])
        kernels.receive(c, begin, end, given, passed, below, tree.addresses, work[thread])

    def hand_down(c: int, parts: int, thread: int) -> None:
        kernels.hand_down(c, thread, parts, inboxes, passed.messages, tree.addresses, False)

    kernels.begin_downward(given, passed, sums[0], tree.addresses)
    for c in range(len(tree.blocks) - 1, -1, -1):
        parts = _share_blocks(c, tree, threads, receive)
        _together(parts, partial(hand_down, c, parts))
    out[:] = sums.sum(0)
    return value


def _share_blocks(c: int, tree: Layout, threads: int, task: Callable[[int, int, int, int], None]) -> int:
    """Call ``task(c, thread, begin, end)`` for parts of a clique's blocks; returns how many parts."""
    blocks = int(tree.blocks[c])
    parts = threads if blocks * tree.summed[c] * tree.lanes[c] >= _SHARED else 1
    _together(parts, lambda thread: task(c, thread, blocks * thread // parts, blocks * (thread + 1) // parts))
    return parts
