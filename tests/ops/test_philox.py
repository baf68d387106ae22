"""Philox: the published answers, the reference, and the uniform numbers made of it."""

import numpy as np
import pytest
from numba import njit

from lnz.ops.jit.cpu.memory import load, store
from lnz.ops.jit.cpu.philox import U64, philox4x32, uniform24, uniform53
from lnz.ops.jit.cpu.vectors import broadcast
from lnz.ops.philox import philox4x32 as reference
from lnz.ops.philox import uniform

# counter, key and answer: the known-answer vectors that come with the paper's own implementation (Random123)
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def _words(text):
    return np.array([int(word, 16) for word in text.split()], np.uint32)


@njit
def _one(counter, key):
    return philox4x32(U64(counter[0]), U64(counter[1]), U64(counter[2]), U64(counter[3]), U64(key[0]), U64(key[1]))


@njit
def _uniforms(words):
    return [uniform24(word) for word in words], [uniform53(a, b) for a, b in zip(words[::2], words[1::2])]  # noqa: B905


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_known_answers(counter, key, answer):
    assert (reference(_words(counter), _words(key)) == _words(answer)).all()
    assert list(_one(_words(counter), _words(key))) == _words(answer).tolist()


@njit
def _sixteen(counters, key, out):
    c = load(counters, (0,)), broadcast(U64(5)), broadcast(U64(6)), broadcast(U64(7))
    w0, w1, w2, w3 = philox4x32(c[0], c[1], c[2], c[3], key[0], key[1])
    store(w0, out, (0, 0))
    store(w1, out, (1, 0))
    store(w2, out, (2, 0))
    store(w3, out, (3, 0))


def test_sixteen_counters_in_registers_equal_the_reference():
    out, key = np.empty((4, 16), np.uint32), np.array([123, 2**32 - 1], np.uint64)
    numbers = np.arange(2**32 - 7, 2**32 + 9, dtype=np.uint64)  # the first word wraps around: its upper half is ignored
    _sixteen(numbers, key, out)
    counters = np.stack((numbers % 2**32, *(np.full(16, word, np.uint64) for word in (5, 6, 7))), -1)
    assert (reference(counters.astype(np.uint32), key.astype(np.uint32)) == out.T).all()


def test_uniform_numbers():
    counters = np.zeros((20_000, 4), np.uint32)
    counters[:, 0] = np.arange(20_000)
    words = reference(counters, np.array([1, 2], np.uint32)).flatten()
    words[:2], words[2:4] = 0, 2**32 - 1
    single, double = (np.array(numbers) for numbers in _uniforms(words))
    assert (single == uniform(words, np.float32)).all()
    assert (double == uniform(words.reshape(-1, 2), np.float64)).all()
    for numbers, bits in ((single, 24), (double, 53)):
        assert numbers.min() == 0
        assert numbers.max() == 1 - 2.0**-bits
        assert abs(numbers.mean() - 0.5) < 5 / np.sqrt(12 * len(numbers))
        counts = np.histogram(numbers, 64, (0, 1))[0]
        assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 63 + 5 * np.sqrt(2 * 63)
