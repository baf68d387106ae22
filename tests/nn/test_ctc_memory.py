"""How much memory CTC takes at a large vocabulary, measured in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

T, B, C, S, H = 200, 64, 5000, 20, 64
LOGITS = T * B * C * 4 / 2**20  # MiB

PROGRAM = f"""
import re, sys, torch
from pathlib import Path
from lnz.nn.functional import ctc_loss, linear_ctc_loss

T, B, C, S, H = {(T, B, C, S, H)}

def run(kind, T, B):
    targets, lengths, sizes = torch.randint(1, C, (B, S)), torch.full((B,), T), torch.full((B,), S)
    # not ru_maxrss, which a process inherits from the one that started it
    peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 2**10
    if kind == "plain":
        x = torch.zeros(T, B, C).fill_(0.5).requires_grad_()
        before = peak()
        ctc_loss(x, targets, lengths, sizes).backward()
    else:
        x = torch.ones(B, T, H).requires_grad_()
        weight = torch.ones(C, H).requires_grad_()
        before = peak()
        linear_ctc_loss(x, weight, None, targets, lengths, sizes).backward()
    return peak() - before

run(sys.argv[1], 30, 2)  # what kernels and threads take once
print(run(sys.argv[1], T, B))
"""


LONG = """
import re, sys, torch, lnz
from pathlib import Path

T, S, C = 8000, 1500, 12  # a lattice of 0.4 GB, occupancies of 50 MB in float32
from lnz.ops.ctc import op

assert not op.whole_lattice(1, T, S)
op.whole_lattice = lambda *_: False  # so that the first run compiles what the second one measures

def run(kind, T, S):
    peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 2**10
    x, y = torch.zeros(1, T, C).requires_grad_(kind == "gradient"), torch.arange(S)[None] % (C - 1) + 1
    before = peak()
    if kind == "alignments":
        lnz.CTC(x).alignments(y).log_partition
    else:
        value = lnz.CTC(x).log_prob(y)
        if kind == "gradient":
            value.backward()
    return peak() - before

run(sys.argv[1], 40, 5)
print(run(sys.argv[1], T, S))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc, which Linux has")
@pytest.mark.parametrize(("kind", "most"), [("value", 4.0), ("alignments", 4.0), ("gradient", 25.0)])
def test_long_sequences_keep_few_columns_of_their_lattice(kind: str, most: float) -> None:
    """Two columns for the value (0.1 MB), some 2 √T for the gradient (9 MB)."""
    done = subprocess.run([sys.executable, "-c", LONG, kind], capture_output=True, text=True, check=True)
    assert float(done.stdout) < most


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc, which Linux has")
@pytest.mark.parametrize(("kind", "most"), [("plain", 1.15 * LOGITS), ("fused", 0.5 * LOGITS)])
def test_nothing_of_the_size_of_the_logits_lies_beside_their_gradient(kind: str, most: float) -> None:
    """The plain loss takes their gradient and little else; the fused one not even that."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, kind], capture_output=True, text=True, check=True)
    taken = float(done.stdout)
    assert taken < most
    if kind == "plain":
        assert taken > 0.9 * LOGITS  # the gradient itself: the measurement sees what it should
