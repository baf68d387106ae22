"""One chain while it cools."""

from __future__ import annotations

import numpy as np

from lnz.ops.annealing.cpu.fields import fill_fields, sweep
from lnz.ops.jit.cpu import kernel
from lnz.ops.jit.cpu.philox import U64


@kernel()
def run(wiring, scores, temperatures, chain, key, best):
    """Start at the labelling ``best [N]``, which becomes the best one met at the end of a sweep."""
    labels, fields = best.copy(), np.empty(scores.nodes.size)
    score = fill_fields(wiring, scores, labels, fields)
    top = score
    for t in range(temperatures.size):
        score += sweep(wiring, scores, temperatures[t], labels, fields, (U64(t), U64(chain), U64(0)), key)
        if score > top:
            top = score
            best[:] = labels
