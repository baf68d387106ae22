"""Of each family of kernels the shapes at which its configurations differ, and the calls that dispatch makes there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch

Runs = Iterator[tuple[str, Callable[[], object]]]


def chain(dtype: torch.dtype) -> Runs:
    """Tables in registers to 128 labels, beyond that column by column; shared or per step; whole chains or blocks."""
    from lnz.ops.chain import Chains

    for L in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512):
        for form, B, T in (("shared", 32, 512), ("per step", 32, 512), ("in blocks", 1, 4096)):
            steps = T - 1 if form == "per step" else 1
            edge = torch.empty(B if form == "per step" else 1, steps, L, L, dtype=dtype, device="meta")
            given = Chains(_scores(B, T, L, dtype=dtype), edge, torch.empty(B, dtype=torch.int64, device="meta"))
            if form != "in blocks" or L <= 64:
                yield f"L {L}, {form}", partial(_chain, given)


def _chain(given) -> None:
    from lnz.ops.chain.gpu.calls import filtered, labelled, smoothed
    from lnz.ops.chain.gpu.sample import sample_in_any_range
    from lnz.ops.chain.gpu.viterbi import viterbi
    from lnz.ops.chain.records import Labelled

    B, T, L = given.node.shape
    y = torch.empty(B, T, dtype=torch.int64, device="meta")
    done = filtered(given)
    labelled(Labelled(*given, y))
    tables = given._replace(edge=given.edge.expand(B, T - 1, L, L))
    for chains, labels, with_edges in ((given, y, True), (given, y, False), (given, None, True), (tables, None, True)):
        smoothed(chains, labels, done, None, (True, with_edges))
    smoothed(given, None, done, None, (True, False))
    viterbi(given, _scores(2, L, dtype=given.node.dtype))
    sample_in_any_range(given, _scores(3, B, T, dtype=torch.float64))


def ctc(dtype: torch.dtype) -> Runs:
    """Blocks of states by the length of targets, blocks of classes by their number; every topology."""
    from lnz.ops.ctc import Lattice

    for S, C in ((1, 30), (40, 64), (100, 128), (200, 256), (400, 512), (900, 1024), (2000, 5000)):
        for blank, stays in ((0, True), (0, False), (-1, False)):
            long = {"dtype": torch.int64, "device": "meta"}
            labels, direct = torch.empty(8, S, **long), torch.empty(8, S, dtype=torch.bool, device="meta")
            of = Lattice(labels, direct, torch.empty(8, **long), torch.empty(8, **long), blank, stays)
            topology = "no blank" if blank < 0 else "repeats collapsed" if stays else "repeats kept"
            yield f"S {S}, C {C}, {topology}", partial(_ctc, _scores(8, 100, C, dtype=dtype), of)


def _ctc(x, of) -> None:
    from lnz.ops.ctc.gpu.calls import gradient, solve, value
    from lnz.ops.ctc.gpu.viterbi import viterbi

    for normalise in (True, False):
        log_z, occupancy, frames = solve(x, x[0, 0], of, normalise)
        value(x, x[0, 0], of, normalise)
        gradient(log_z, x, of, normalise, log_z, occupancy, frames)
    viterbi(x, of)


def trees(dtype: torch.dtype) -> Runs:
    """Blocks of spans by the length of sentences, blocks of labels by their number."""
    from lnz.ops.arcs.records import Arcs
    from lnz.ops.projective.gpu import calls as projective

    for N, L in ((2, 1), (4, 8), (8, 32), (16, 64), (30, 200), (60, 2000)):
        lengths = torch.empty(8, dtype=torch.int64, device="meta")
        yield f"N {N}, L {L}", partial(_spans, _scores(8, N, N, L, dtype=dtype), lengths)
        for single in (True, False):
            arcs = Arcs(_scores(8, N + 1, N + 1, dtype=dtype), lengths, single)
            yield f"N {N}, {'one root' if single else 'any root'}", partial(projective.solve, arcs)


def _spans(scores, lengths) -> None:
    from lnz.ops.spans.gpu.calls import share, solve
    from lnz.ops.spans.records import Spans

    _, peaks, shares = solve(scores, lengths)
    share(Spans(scores, lengths), peaks, shares, shares[:, 0, 0])


def _scores(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


ALL: dict[str, Callable[[torch.dtype], Runs]] = {"chain": chain, "ctc": ctc, "trees": trees}
