"""How time and memory of trees grow with the number of words, up to 256."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.case import OURS, Contender, Workload
from benchmarks.cases import dependency_tree, trees

WORDS = (16, 32, 64, 128, 256)
KINDS = ("constituency", "projective", "any")
SENTENCES = 4
PEERS = {"constituency": 128, "projective": 128, "any": 256}
"""The most words that torch-struct is asked for: beyond, a run takes it minutes or more memory than there is."""


class TreeGrowth:
    name = "tree-growth"
    title = "Trees: growth with the number of words"
    summary = (
        f"{SENTENCES} sentences of N words (kind/N), float32: ln Z and its gradient of binary trees, of projective "
        "dependency trees and of dependency trees of any shape, any number of words under the root. Each is cubic in N "
        "in time and quadratic in memory. The remark is what a call adds, at its peak, to the memory that the process "
        "has kept from the one before."
    )

    @property
    def shapes(self) -> list[str]:
        return [f"{kind}/{n}" for kind in KINDS for n in WORDS]

    def workload(self, shape: str, threads: int) -> Workload:
        kind, words = shape.split("/")
        n = int(words)
        stream = torch.Generator().manual_seed(0)
        if kind == "constituency":
            scores = torch.randn(SENTENCES, n, n, 1, generator=stream).requires_grad_()
            ours = partial(trees._contender, trees._lnz, scores, "lnz")
            peer, reference = partial(trees._torch_struct, scores), partial(trees._reference, trees._loop, scores)
        else:
            projective = kind == "projective"
            scores = torch.randn(SENTENCES, n + 1, n + 1, generator=stream)
            ours = partial(dependency_tree._lnz, scores, projective)
            peer = partial(dependency_tree._torch_struct, scores, projective)
            reference = partial(dependency_tree._reference, scores, projective)
        contenders = {OURS: ours, **({"torch-struct": peer} if n <= PEERS[kind] else {})}
        note = _memory(ours(), scores)
        return Workload(contenders, reference, tolerance=1e-4, tolerances={"torch-struct": 0.05}, note=note)


def _memory(contender: Contender, scores: Tensor) -> str:
    """What a call of a contender takes at its peak, in words; nothing where Linux does not say."""
    clear = Path("/proc/self/clear_refs")
    if not clear.exists():
        return ""
    contender.call()  # compiles, and fills what is kept for the next call
    before = _megabytes("VmRSS")
    clear.write_text("5")
    contender.call()
    own = scores.numel() * scores.element_size() / 2**20
    return f"{max(0.0, _megabytes('VmHWM') - before):.1f} MB beside scores of {own:.1f} MB"


def _megabytes(field: str) -> float:
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else 0.0
