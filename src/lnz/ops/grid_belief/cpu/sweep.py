"""Flooding belief propagation on a grid, row by row.

Messages are stored where they arrive, label-major, ``M[direction, b, row, label, column]``, so that every inner loop
runs along a row of pixels. A sweep updates them in place: tile by tile, the four products "all incoming but one" are
formed, and an edge is served as soon as both of its ends are; what a finished row sends down waits one row. Bands of
rows can be swept side by side; the edges between bands are served last. The result does not depend on the bands.
"""

from __future__ import annotations

from lnz.ops.grid_belief.cpu.arguments import ROOM, TILE, received, scratch
from lnz.ops.grid_belief.cpu.commit import commit_block, hold_block
from lnz.ops.grid_belief.cpu.gather import gather
from lnz.ops.grid_belief.cpu.reweighted import powers_of
from lnz.ops.grid_belief.cpu.transfer import tables_of, transfer
from lnz.ops.jit.cpu import helper, kernel
from lnz.ops.jit.cpu.memory import address, for_blocks, full_like, load, store
from lnz.ops.jit.cpu.vectors import LANES, max_lanes


@kernel()
def sweep(grid, tasks, rule, waiting, iterations, residual):
    """Iterate bands of rows up to ``rule.limit`` times, or serve the edges between each band and the next, once.

    Args:
        grid: a :class:`~.arguments.Grid`, whose messages are updated.
        tasks: a :class:`~.arguments.Tasks`.
        rule: a :class:`~.arguments.Rule`.
        waiting: ``[2, B, bands, L, columns]``, the columns rounded up to tiles: what the first row of a band sends up,
            and what its last row sends down; for one band ``[2, 1, 1, L, columns]``, scratch.
        iterations: ``int64 [B, bands]``, written.
        residual: float64 ``[B, bands]``, written: that of the last iteration; edges between bands add theirs.
    """
    domain, form, node, which, edges, rho, messages = grid
    first, last, images, cuts, work = tasks
    limit, tolerance, damping, floor, joins = rule
    labels, width, bands, wide = node.shape[2], node.shape[3], len(cuts) - 1, waiting.shape[4]
    space, count = scratch(work, labels), labels if len(domain) == 0 else 1
    held = len(domain) > 0 or damping[0] > 0
    change = address(space.lanes, ROOM)  # the first row is gather's
    for task in range(first, last):
        b, band = images[task // bands], task % bands
        if band + joins == bands:  # nothing follows the last
            continue
        own = (b, band) if bands > 1 else (0, 0)
        below, above = address(waiting, (1, *own)), address(waiting, (0, own[0], own[1] + joins))
        top, bottom = cuts[band + joins], cuts[band + 1]
        for step in range(limit):
            store(full_like(change, 0), change, 0)
            for h in range(top, bottom + joins):
                for w in range(0, width, TILE):
                    n = width - w if width - w < TILE else TILE
                    under = address(below, w)
                    if joins:
                        copy_rows(under, wide, address(space.sent, 2 * space.size), ROOM, labels, n)
                        copy_rows(address(above, w), wide, address(space.sent, 3 * space.size), ROOM, labels, n)
                    else:
                        arrived = received(node, messages, which[0, b], b, h, w)
                        gather(domain, powers_of(rho, which[3, b], h, w), n, arrived, space, under, wide)
                        if h == top:
                            copy_rows(address(space.sent, 3 * space.size), ROOM, address(above, w), wide, labels, n)
                    for side in range(joins, 2 if joins or h > top else 1):
                        begin = 1 if side == 0 and w == 0 else 0  # of a row: no edge
                        row, column = (h - 1, w) if side else (h, w - 1 + begin)
                        tables = tables_of(form, edges[side], which[1 + side, b], row, column)
                        sent, made = address(space.sent, 2 * side * space.size + begin), address(space.made, begin)
                        transfer(domain, form, tables, n - begin, labels, sent, made, space.size)
                        for end in range(2):
                            at = (row, column) if end else (h, w + begin)
                            arriving = address(messages, (2 * side + end, b, at[0], 0, at[1]))
                            new = address(made, end * space.size)
                            if held:
                                for k in range(0, n - begin, LANES):
                                    m = n - begin - k
                                    hold_block(k, m, domain, damping, floor[b], new, arriving, width, labels)
                            for_blocks(
                                commit_block, n - begin, domain, damping[0] == 0, new, arriving, width, labels, change
                            )
            largest = max_lanes(load(change, 0)) / count
            iterations[b, band] = step + 1
            residual[b, band] = residual[b, band] if joins and residual[b, band] > largest else largest
            if 0 < tolerance >= residual[b, band]:
                break


@helper()
def copy_rows(x, line, out, room, labels, n):
    """The first n numbers of each row, up to whole vectors."""
    for l in range(labels):
        for at in range(0, n, LANES):
            store(load(x, l * line + at), out, l * room + at)
