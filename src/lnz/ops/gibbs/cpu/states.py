"""Labels in the layout of :mod:`lnz.ops.gibbs.checkerboard` and back."""

from __future__ import annotations

from lnz.ops.jit.cpu import kernel


@kernel()
def lay(labels, states):
    """Fill in ``states [images, 2, H + 2, K + 16]`` from ``labels [images, H, W]``: −1 all around."""
    states[:] = -1
    for image in range(labels.shape[0]):
        for r in range(labels.shape[1]):
            for colour in range(2):
                own = labels[image, r, (r + colour) & 1 :: 2]
                for k in range(own.size):
                    states[image, colour, r + 1, k + 1] = own[k]


@kernel()
def read(states, labels):
    """The inverse of :func:`lay`."""
    for image in range(labels.shape[0]):
        for r in range(labels.shape[1]):
            for colour in range(2):
                own = labels[image, r, (r + colour) & 1 :: 2]
                for k in range(own.size):
                    own[k] = states[image, colour, r + 1, k + 1]
