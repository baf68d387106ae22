"""What the functions of grammars take and give. Shapes as in :mod:`lnz.ops.grammar.reference`."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from lnz.ops import precision
from lnz.ops.scaffold.batch import Axis

SHARED = {"root": Axis(shared=True), "rules": Axis(shared=True), "allowed": Axis(shared=True)}


class Grammar(NamedTuple):
    """B sentences, each with a grammar of its own, or one for all.

    Attributes:
        preterminals: scores of words ``[B, N, PT]``; those beyond the length are never read.
        root: of the symbol of the whole sentence ``[B or 1, NT]``.
        rules: of a symbol and the two that it becomes ``[B or 1, NT, S, S]``, S = NT + PT, nonterminals first.
        allowed: which nonterminals a span may be, bool ``[B, N, N, NT]`` by first and last word; ``[1, 1, 1, 1]`` where
            all are allowed.
        lengths: ``int64 [B]`` in 0 … N.
    """

    preterminals: Tensor
    root: Tensor
    rules: Tensor
    allowed: Tensor
    lengths: Tensor

    def wide(self) -> Grammar:
        """In the dtype that a reference runs in."""
        return precision.astype(self, precision.accumulator(self.preterminals))


class Pass(NamedTuple):
    """What one pass gives, as constants.

    Attributes:
        log_z: ``[B]``, in the dtype of the accumulator.
        preterminals: P(word i is of preterminal p) ``[B, N, PT]``.
        root: P(the sentence is of nonterminal a) ``[B, NT]``.
        rules: how often each rule is expected to be used ``[B, NT, S, S]``.
    """

    log_z: Tensor
    preterminals: Tensor
    root: Tensor
    rules: Tensor
