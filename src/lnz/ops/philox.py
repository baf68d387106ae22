"""Philox4x32-10 as the paper writes it, in NumPy (Salmon, Moraes, Dror and Shaw 2011, section 3.3).

A keyed bijection of 128-bit counters: ten rounds, each of which multiplies two of the four words, exchanges the halves
of the products and mixes the key in. It passes BigCrush; any two counters or keys give independent streams.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
WEYL = 0x9E3779B9, 0xBB67AE85
"""What the key grows by from round to round: the golden ratio and √3 − 1."""
ROUNDS = 10


def key_from(generator: torch.Generator | None) -> NDArray[np.uint64]:
    """A key drawn from ``generator`` (``None``: torch's default one), two times 32 bits in ``uint64 [2]``."""
    device = None if generator is None else generator.device
    drawn = int(torch.randint(2**62, (), generator=generator, device=device))
    return np.array([drawn % 2**32, drawn >> 32], np.uint64)


def philox4x32(counter: NDArray[np.uint32], key: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The four words ``uint32 [..., 4]`` at ``counter`` ``uint32 [..., 4]`` under ``key`` ``uint32 [2]``."""
    c0, c1, c2, c3 = (counter[..., i].astype(np.uint64) for i in range(4))
    k0, k1 = (int(k) for k in key)
    low = np.uint64(0xFFFFFFFF)
    for _ in range(ROUNDS):
        product0, product1 = c0 * np.uint64(MULTIPLIERS[0]), c2 * np.uint64(MULTIPLIERS[1])
        c0, c2 = (product1 >> np.uint64(32)) ^ c1 ^ np.uint64(k0), (product0 >> np.uint64(32)) ^ c3 ^ np.uint64(k1)
        c1, c3 = product1 & low, product0 & low
        k0, k1 = (k0 + WEYL[0]) % 2**32, (k1 + WEYL[1]) % 2**32
    return np.stack((c0, c1, c2, c3), -1).astype(np.uint32)


def uniform(words: NDArray[Any], dtype: Any) -> NDArray[Any]:
    """Numbers in [0, 1): 24 bits of one word (float32 ``[...]``), or 53 bits of a pair ``[..., 2]`` (float64)."""
    if dtype == np.float32:
        return (words >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)
    high, rest = words[..., 0].astype(np.float64), words[..., 1].astype(np.float64)
    return (np.floor(high / 32.0) * 2.0**26 + np.floor(rest / 64.0)) * 2.0**-53
