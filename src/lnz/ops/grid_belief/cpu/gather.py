"""What the pixels of a tile send to their neighbours: scores and all incoming messages but one.

Rows of scratch hold whole vectors; rows of the model end with the image, so their last block is masked.
"""

from __future__ import annotations

from lnz.ops.grid_belief.cpu.arguments import ROOM, TILE
from lnz.ops.grid_belief.cpu.domain import times
from lnz.ops.grid_belief.cpu.reweighted import gather_powers
from lnz.ops.jit.cpu import helper
from lnz.ops.jit.cpu.memory import address, load, store
from lnz.ops.jit.cpu.vectors import LANES


@helper()
def gather(domain, powers, n, received, scratch, below, wide):
    """Fill in ``sent`` for n pixels. ``below [L, wide]`` is what the row above sends down, and then what this one does.

    Where messages count ``powers`` times, the products of all are left in ``products``, over what ``lanes[0]`` holds
    the logarithm of.
    """
    sent, size = scratch.sent, scratch.size
    for l in range(received.labels):
        sent[l * ROOM] = sent[l * ROOM + TILE]  # from the tile before
    to = sent, address(sent, size), address(sent, 2 * size), address(sent, 3 * size)
    for at in range(0, n, LANES):
        if len(powers) == 0:
            gather_block(at, n - at, domain, received, to, below, wide)
        else:
            gather_powers(at, n - at, domain, powers, received, to, below, wide, scratch)


@helper()
def gather_block(at, n, domain, received, to, below, wide):
    """n pixels ``at …``: all blocks are masked, for that costs nothing in loads, and one form is compiled."""
    labels, line, scores, from_left, from_right, from_up, from_down = received
    right, left, down, up = to
    for l in range(labels):
        here, there, under = l * line + at, l * ROOM + at, l * wide + at
        score = load(scores, here, n)
        a, b = load(from_left, here, n), load(from_right, here, n)
        c, d = load(from_up, here, n), load(from_down, here, n)
        vertical, horizontal = times(domain, times(domain, score, c), d), times(domain, times(domain, score, a), b)
        store(times(domain, vertical, a), right, there + 1)
        store(times(domain, vertical, b), left, there)
        store(load(below, under), down, there)
        store(times(domain, horizontal, d), up, there)
        store(times(domain, horizontal, c), below, under)


@helper()
def multiply_block(at, n, domain, received, products):
    """Scores and all incoming messages, into ``products [L, ROOM]``."""
    labels, line, scores, from_left, from_right, from_up, from_down = received
    for l in range(labels):
        here = l * line + at
        across = times(domain, load(from_left, here, n), load(from_right, here, n))
        upright = times(domain, load(from_up, here, n), load(from_down, here, n))
        store(times(domain, times(domain, load(scores, here, n), across), upright), products, l * ROOM + at)
