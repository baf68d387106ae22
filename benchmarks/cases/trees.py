"""Constituency trees and grammars: ln Z of a batch of sentences, and its gradients."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

import lnz
from benchmarks.case import OURS, AbsentError, Contender, Numbers, Workload, require

SENTENCES = {
    "16x40": (16, 40, 1),
    "16x40x64": (16, 40, 64),
    "4x128": (4, 128, 1),
    "2x256": (2, 256, 1),
}
GRAMMARS = {"8x20x30x60": (8, 20, 30, 60)}


class Constituency:
    name = "constituency"
    title = "Constituency trees, ln Z and marginals"
    summary = (
        "B sentences of N words (BxN, or BxNxL with L labels per span), float32: the summed ln Z over labelled binary "
        "trees, and its gradient by the scores, which is the marginals. The torch loop is the same recursion, all "
        "spans of a width at once, differentiated by autograd. SuPar's has no labels."
    )

    @property
    def shapes(self) -> list[str]:
        return list(SENTENCES)

    def workload(self, shape: str, threads: int) -> Workload:
        b, n, k = SENTENCES[shape]
        scores = torch.randn(b, n, n, k, generator=torch.Generator().manual_seed(0)).requires_grad_()
        return Workload(
            contenders={
                OURS: partial(_contender, _lnz, scores, "lnz"),
                "torch loop": partial(_contender, _loop, scores, "torch"),
                "torch-struct": partial(_torch_struct, scores),
                "supar": partial(_supar, scores),
            },
            reference=lambda: _reference(_loop, scores),
            tolerance=1e-4,
            tolerances={"torch loop": 0.05, "torch-struct": 0.05, "supar": 0.05},
            targets={"torch-struct": 10.0 if k > 1 else 15.0, "supar": 8.0},
        )


def _contender(log_z: Any, scores: Tensor, package: str) -> Contender:
    def call() -> Tensor:
        scores.grad = None
        total = log_z(scores).sum()
        total.backward()
        return total

    def read(total: Tensor) -> Numbers:
        assert scores.grad is not None
        upper = scores.grad.movedim(-1, 1).triu()
        return {"ln Z": total.detach().numpy(), "marginals": upper.numpy().copy()}

    return Contender(call, read, package)


def _lnz(scores: Tensor) -> Tensor:
    return lnz.ConstituencyTree(scores).log_partition


def _loop(scores: Tensor) -> Tensor:
    own = scores.logsumexp(-1)
    rows, columns = own.new_empty(0), own.new_empty(0)  # left parts by first word, right parts by last
    chart = own.diagonal(0, 1, 2)
    for w in range(1, own.shape[1]):
        left, right = chart[:, :-1, None], chart[:, 1:, None]
        rows = left if w == 1 else torch.cat((rows[:, :-1], left), 2)
        columns = right if w == 1 else torch.cat((right, columns[:, 1:]), 2)
        chart = own.diagonal(w, 1, 2) + (rows + columns).logsumexp(2)
    return chart[:, 0]


def _torch_struct(scores: Tensor) -> Contender:
    torch_struct: Any = require("torch_struct", "torch-struct==0.5")
    lengths = torch.full((len(scores),), scores.shape[1])
    return _contender(lambda x: torch_struct.TreeCRF(x, lengths=lengths).partition, scores, "torch-struct")


def _supar(scores: Tensor) -> Contender:
    b, n, _, k = scores.shape
    if k > 1:
        raise AbsentError("left out: it has no labels")
    structs: Any = require("supar.structs", "supar==1.1.4")
    mask = torch.ones(n + 1, n + 1, dtype=torch.bool).triu(1).expand(b, -1, -1)

    def log_z(x: Tensor) -> Tensor:
        fences = torch.nn.functional.pad(x.squeeze(-1), (1, 0, 0, 1))  # from fence i to fence j + 1
        return structs.ConstituencyCRF(fences, mask).log_partition

    return _contender(log_z, scores, "supar")


def _reference(log_z: Any, *scores: Tensor) -> Numbers:
    """The recursion in float64, differentiated by autograd."""
    contender = _contender(log_z, scores[0].detach().double().requires_grad_(), "")
    return contender.read(contender.call())


class Grammar:
    name = "pcfg"
    title = "Grammars, inside and outside"
    summary = (
        "B sentences of N words, each with a grammar of NT nonterminals and PT preterminals of its own (BxNxNTxPT), "
        "float32: the summed ln Z, and its gradients by roots, rules and preterminals, which are expected counts."
    )

    @property
    def shapes(self) -> list[str]:
        return list(GRAMMARS)

    def workload(self, shape: str, threads: int) -> Workload:
        b, n, nt, pt = GRAMMARS[shape]
        generator = torch.Generator().manual_seed(0)
        drawn = [torch.randn(*size, generator=generator) for size in ((b, nt), (b, nt, (nt + pt) ** 2), (b, n, pt))]
        root, rules, words = (x.log_softmax(-1) for x in drawn)
        leaves = (root, rules.unflatten(-1, (nt + pt, nt + pt)), words)
        given = tuple(x.clone().requires_grad_() for x in leaves)
        return Workload(
            contenders={OURS: partial(_grammar, _pcfg, given, "lnz"), "torch-struct": partial(_sentence, given)},
            reference=lambda: _inside_of_outer_products(given),
            tolerance=1e-4,
            tolerances={"torch-struct": 1e-2},
            targets={"torch-struct": 15.0},
        )


def _grammar(log_z: Any, given: tuple[Tensor, ...], package: str) -> Contender:
    def call() -> Tensor:
        for leaf in given:
            leaf.grad = None
        total = log_z(*given).sum()
        total.backward()
        return total

    def read(total: Tensor) -> Numbers:
        counts = {name: leaf.grad.numpy().copy() for name, leaf in zip(("root", "rules", "words"), given, strict=True)
                  if leaf.grad is not None}  # fmt: skip
        return {"ln Z": total.detach().numpy(), **counts}

    return Contender(call, read, package)


def _pcfg(root: Tensor, rules: Tensor, words: Tensor) -> Tensor:
    return lnz.PCFG(root, rules, words).log_partition


def _sentence(given: tuple[Tensor, ...]) -> Contender:
    torch_struct: Any = require("torch_struct", "torch-struct==0.5")
    lengths = torch.full((len(given[2]),), given[2].shape[1])

    def log_z(root: Tensor, rules: Tensor, words: Tensor) -> Tensor:
        return torch_struct.SentCFG((words, rules, root), lengths=lengths).partition

    return _grammar(log_z, given, "torch-struct")


def _inside_of_outer_products(given: tuple[Tensor, ...]) -> Numbers:
    """Sums of exponentials, span by span in float64, which these scores have room in; differentiated by autograd."""

    def log_z(root: Tensor, rules: Tensor, words: Tensor) -> Tensor:
        n, nt, table = words.shape[1], root.shape[1], rules.exp()
        symbols = torch.nn.functional.pad(words.exp(), (nt, 0))
        chart = {(i, i): symbols[:, i] for i in range(n)}
        for w in range(1, n):
            for i in range(n - w):
                pairs = sum(chart[i, k][:, :, None] * chart[k + 1, i + w][:, None] for k in range(i, i + w))
                spans = torch.einsum("bxyz,byz->bx", table, pairs)
                chart[i, i + w] = torch.nn.functional.pad(spans, (0, words.shape[2]))
        return (root.exp() * chart[0, n - 1][:, :nt]).sum(1).log()

    contender = _grammar(log_z, tuple(x.detach().double().requires_grad_() for x in given), "")
    return contender.read(contender.call())
