"""How much memory CTC takes at a large vocabulary, measured in a process of its own."""

from __future__ import annotations

import pytest

from tests import memory

T, B, C, S, H = 200, 64, 5000, 20, 64
LOGITS = T * B * C * 4 / 2**20  # MiB

PROGRAM = f"""
import sys, torch
from lnz.nn.functional import ctc_loss, linear_ctc_loss
from tests.memory import begin, peak

T, B, C, S, H = {(T, B, C, S, H)}

def run(kind, T, B):
    targets, lengths, sizes = torch.randint(1, C, (B, S)), torch.full((B,), T), torch.full((B,), S)
    if kind == "plain":
        x = torch.zeros(T, B, C).fill_(0.5).requires_grad_()
        before = begin()
        ctc_loss(x, targets, lengths, sizes).backward()
    else:
        x = torch.ones(B, T, H).requires_grad_()
        weight = torch.ones(C, H).requires_grad_()
        before = begin()
        linear_ctc_loss(x, weight, None, targets, lengths, sizes).backward()
    return (peak() - before) / 2**20

run(sys.argv[1], 30, 2)  # what kernels and threads take once
print(run(sys.argv[1], T, B))
"""


LONG = """
import sys, torch, lnz
from tests.memory import begin, peak

T, S, C = 8000, 1500, 12  # a lattice of 0.4 GB, occupancies of 50 MB in float32
from lnz.ops.ctc import op

assert not op.whole_lattice(1, T, S)
op.whole_lattice = lambda *_: False  # so that the first run compiles what the second one measures

def run(kind, T, S):
    x, y = torch.zeros(1, T, C).requires_grad_(kind == "gradient"), torch.arange(S)[None] % (C - 1) + 1
    before = begin()
    if kind == "alignments":
        lnz.CTC(x).alignments(y).log_partition
    else:
        value = lnz.CTC(x).log_prob(y)
        if kind == "gradient":
            value.backward()
    return (peak() - before) / 2**20

run(sys.argv[1], 40, 5)
print(run(sys.argv[1], T, S))
"""


@memory.linux
@pytest.mark.parametrize(("kind", "most"), [("value", 4.0), ("alignments", 4.0), ("gradient", 25.0)])
def test_long_sequences_keep_few_columns_of_their_lattice(kind: str, most: float) -> None:
    """Two columns for the value (0.1 MB), some 2 √T for the gradient (9 MB)."""
    assert float(memory.run(LONG, kind)) < most


@memory.linux
@pytest.mark.parametrize(("kind", "most"), [("plain", 1.15 * LOGITS), ("fused", 0.5 * LOGITS)])
def test_nothing_of_the_size_of_the_logits_lies_beside_their_gradient(kind: str, most: float) -> None:
    """The plain loss takes their gradient and little else; the fused one not even that."""
    taken = float(memory.run(PROGRAM, kind))
    assert taken < most
    if kind == "plain":
        assert taken > 0.9 * LOGITS  # the gradient itself: the measurement sees what it should
