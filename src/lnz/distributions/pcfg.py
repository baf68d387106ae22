"""Probabilistic context-free grammars: the exponential softmax over the derivations of a sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor

from lnz.checks import (
    as_integers,
    broadcast_shapes,
    check_integer,
    check_lengths,
    check_same_kind,
    check_scores,
    joint_batch_shape,
    promoted,
)
from lnz.distributions.sequence import gathered, without_padding
from lnz.distributions.tree_labels import TreeLabels
from lnz.ops import grammar
from lnz.ops.spans import is_tree


class PCFG(TreeLabels):
    """``P(y) ∝ exp(root[a] + Σ rules[a, b, c] + Σ preterminals[i, p])`` over derivations by a grammar in normal form.

    The whole sentence is of nonterminal a; each constituent of several words, of nonterminal a, splits into two symbols
    b and c; each word i is of a preterminal p. Symbols are the NT nonterminals, then the PT preterminals (Baker 1979).
    With log-probabilities, of rules given a, and of the word given p for the word at hand, ln Z is ln P(sentence); any
    scores make a distribution over derivations. Grammars may differ by sentence, as a network makes them.

    A labelling y is an ``int64`` tensor ``[*batch, N, N]``: entry [i, j] is **the nonterminal of the constituent of
    words i … j (inclusive), the preterminal 0 … PT − 1 on the diagonal, −1 where there is no constituent, −100
    unknown**. So ``condition`` takes brackets, labels and tags in any mixture. Entries below the diagonal are ignored
    (and −1 in labellings returned), padding too (−100). A sentence without words has one derivation, the empty one; a
    single word has none, for rules make two symbols of one.

    All exact: with S = NT + PT, O(N³ S² + N² NT S²) time per batch entry, nearly all of it in matrix products on the
    device of the scores. ``marginals`` are the expected counts of rules: the gradient of ln Z, and what EM needs.
    Entropies, best derivations and second derivatives go through the reference, at O(N² S²) memory.

    Args:
        root: ``[*batch, NT]``.
        rules: ``[*batch, NT, NT + PT, NT + PT]``; −inf forbids.
        preterminals: ``[*batch, N, PT]``, of the words of the sentence.
        lengths: integers ``[*batch]`` in 0 … N, the lengths of the sentences; ``None`` is N everywhere. What lies
            beyond is padding: ignored in scores (NaN, too) and labellings, −100 in labellings returned, 0 in marginals.
        allowed: which nonterminals a constituent may be, bool ``[*batch, N, N, NT]``; ``None`` for all.
        validate_args: check the values of arguments (NaN, labels out of range), as in ``torch.distributions``.

    Raises:
        TypeError, ValueError: scores or lengths of the wrong type, shape or value.
    """

    def __init__(
        self,
        root: Tensor,
        rules: Tensor,
        preterminals: Tensor,
        lengths: Tensor | Sequence[int] | None = None,
        *,
        allowed: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        values = self._validate_args if validate_args is None else validate_args
        check_scores("root", root, values=values)
        check_scores("rules", rules, values=values)
        check_scores("preterminals", preterminals, values=False)
        root, rules, preterminals = promoted(root, rules, preterminals)
        lengths = None if lengths is None else as_integers("lengths", lengths, preterminals.device)
        batch_shape = _joint_batch_shape(root, rules, preterminals, lengths, allowed)
        N = preterminals.shape[-2]
        super().__init__(batch_shape, torch.Size((N, N)), validate_args)
        last = torch.as_tensor(N if lengths is None else lengths, device=preterminals.device)[..., None, None]
        words = torch.arange(N, device=last.device)[:, None]
        self.root, self.rules = root, rules
        self.preterminals = without_padding("preterminals", preterminals, lambda: words < last, values=values, axes=2)
        self.lengths, self.allowed = lengths, allowed

    @property
    def scores(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.root, self.rules, self.preterminals

    @property
    def num_nonterminals(self) -> int:
        """NT."""
        return self.root.shape[-1]

    @property
    def num_preterminals(self) -> int:
        """PT."""
        return self.preterminals.shape[-1]

    @property
    def _label_counts(self) -> tuple[int, int]:
        return self.num_preterminals, self.num_nonterminals

    @property
    def _device(self) -> torch.device:
        return self.preterminals.device

    @property
    def _dtype(self) -> torch.dtype:
        return self.preterminals.dtype

    @property
    def _flat(self) -> grammar.Grammar:
        """Everything with one batch axis, as the operation takes it; half precision in float32."""
        B, dtype = self.batch_shape.numel(), self._working_dtype

        def flat(x: Tensor, axes: int, shared: bool = True) -> Tensor:
            own = x.shape[x.dim() - axes :]
            if shared and x.shape[: x.dim() - axes].numel() == 1:
                return x.reshape(1, *own)  # not copied per entry
            return x.expand(*self.batch_shape, *own).reshape(B, *own)

        everything = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=self._device)
        return grammar.Grammar(
            flat(self.preterminals.to(dtype), 2, shared=False),
            flat(self.root.to(dtype), 1),
            flat(self.rules.to(dtype), 3),
            everything if self.allowed is None else flat(self.allowed, 3),
            self._word_counts.expand(self.batch_shape).reshape(B),
        )

    @property
    def _pass(self) -> grammar.Pass:
        return self._once("forward_backward", lambda: grammar.forward_backward(self._flat))

    @property
    def _wide_log_partition(self) -> Tensor:
        return grammar.log_partition(self._flat, self._pass).reshape(self.batch_shape)

    @property
    def _wide_entropy(self) -> Tensor:
        flat = self._flat
        return grammar.cross_entropy(flat, flat).reshape(self.batch_shape)

    def _wide_cross_entropy(self, other: PCFG, by_conditionals: bool) -> Tensor:
        return grammar.cross_entropy(self._flat, other._flat).reshape(self.batch_shape)  # by conditionals, always

    @property
    def marginals(self) -> tuple[Tensor, Tensor, Tensor]:
        """Expected counts: of root ``[*batch, NT]``, rules ``[*batch, NT, S, S]``, preterminals ``[*batch, N, PT]``."""
        self._require_feasible("marginals")
        words, root, rules = grammar.expected_counts(self._flat, self._pass)
        pairs = zip((root, rules, words), self._expanded_scores(), strict=True)
        root, rules, words = (counts.reshape(scores.shape).to(self._dtype) for counts, scores in pairs)
        return root, rules, words

    def score(self, y: Tensor) -> Tensor:
        """s(y), ``[*batch]``; −inf where it is impossible, also where the constituents are no binary tree."""
        return super().score(y)

    def _wide_score(self, y: Tensor) -> Tensor:
        y = self._full(y)
        shape, N, NT = broadcast_shapes(y.shape[:-2], self.batch_shape), self._words, self.num_nonterminals
        y, there = y.expand(*shape, N, N), ((y >= 0) & self.inside).expand(*shape, N, N)
        words = gathered(self.preterminals.expand(*shape, N, -1), y.diagonal(0, -2, -1).clamp(min=0))
        total = torch.where(there.diagonal(0, -2, -1), words, 0.0).sum(-1)
        if not N:
            return total
        last = (self._word_counts - 1).clamp(min=0).expand(shape).unsqueeze(-1)
        whole = y[..., 0, :].gather(-1, last).clamp(0, NT - 1)
        total = total + gathered(self.root.expand(*shape, NT), whole.squeeze(-1)) + self._rule_scores(y, there)
        proper = is_tree(there, self._word_counts) & (self._word_counts != 1)
        if self.allowed is not None:
            here = self.allowed.expand(*shape, N, N, NT).gather(-1, y.clamp(0, NT - 1).unsqueeze(-1)).squeeze(-1)
            longer = ~torch.eye(N, dtype=torch.bool, device=y.device)
            proper = proper & (here | ~(there & longer)).flatten(-2).all(-1)
        return torch.where(self._word_counts == 0, 0.0, total.masked_fill(~proper, -torch.inf))

    def _rule_scores(self, y: Tensor, there: Tensor) -> Tensor:
        """Σ of the scores of the rules: a constituent splits after the longest one that it starts with."""
        shape, N, NT, S = y.shape[:-2], y.shape[-1], self.num_nonterminals, self.rules.shape[-1]
        at = torch.arange(N, device=y.device)
        ends = torch.where(there, at, -1).cummax(-1).values
        split = torch.nn.functional.pad(ends[..., :-1], (1, 0), value=-1).clamp(min=0)
        symbol = torch.where(at[:, None] == at, y + NT, y).clamp(0, S - 1)
        left = symbol.gather(-1, split)
        right = symbol.gather(-2, (split + 1).clamp(max=N - 1))
        rule = (symbol.clamp(max=NT - 1) * S + left) * S + right
        table = self.rules.flatten(-3)
        if table.dim() == 1:
            own = table[rule].to(torch.float64 if self._device.type != "mps" else torch.float32)
        else:
            own = gathered(table.unsqueeze(-2).expand(*shape, N * N, -1), rule.flatten(-2)).unflatten(-1, (N, N))
        return torch.where(there & (at[:, None] < at), own, 0.0).flatten(-2).sum(-1)

    def condition(self, y: Tensor) -> Self:
        y = self.labelling(y)
        nonterminals, tags = (torch.arange(n, device=y.device) for n in (self.num_nonterminals, self.num_preterminals))
        word = y.diagonal(0, -2, -1).unsqueeze(-1)
        preterminals = self.preterminals.masked_fill((word >= 0) & (word != tags), -torch.inf)
        longer = ~torch.eye(self._words, dtype=torch.bool, device=y.device)
        wrong = (y >= 0).unsqueeze(-1) & (y.unsqueeze(-1) != nonterminals)
        allowed = ~((wrong | self._excluded(y).unsqueeze(-1)) & longer.unsqueeze(-1))
        allowed = allowed if self.allowed is None else allowed & self.allowed
        return self._with(self.root, self.rules, preterminals, allowed)

    def topk(self, k: int) -> tuple[Tensor, Tensor]:
        check_integer("k", k)
        with torch.no_grad():
            labels, scores = grammar.topk(self._flat, k)
        labels = labels.reshape(k, *self.batch_shape, *self.event_shape)
        return labels, scores.reshape(k, *self.batch_shape).to(self._dtype)

    def _sample(self, n: int, generator: torch.Generator | None) -> Tensor:
        return grammar.sample(self._flat, n, generator).reshape(n, *self.batch_shape, *self.event_shape)

    def map_scores(self, function: Callable[[Tensor], Tensor]) -> Self:
        root, rules, preterminals = map(function, self.scores)
        return self._with(root, rules, preterminals, self.allowed)

    def _map_entries(self, function: Callable[[Tensor, int], Tensor]) -> Self:
        each = zip(self.scores, (1, 3, 2), strict=True)
        root, rules, preterminals = (function(x if x.dim() > axes else x.unsqueeze(0), axes) for x, axes in each)
        return self._with(root, rules, preterminals, self.allowed)

    def _with(self, root: Tensor, rules: Tensor, preterminals: Tensor, allowed: Tensor | None) -> Self:
        return self.__class__(
            root, rules, preterminals, self.lengths, allowed=allowed, validate_args=self._validate_args
        )

    def _expanded_scores(self) -> tuple[Tensor, Tensor, Tensor]:
        root, rules, preterminals = (
            x.expand(*self.batch_shape, *x.shape[x.dim() - axes :])
            for x, axes in zip(self.scores, (1, 3, 2), strict=True)
        )
        return root, rules, preterminals

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> Self:
        """The same distribution with a larger batch shape (nothing is copied)."""
        preterminals = self.preterminals.expand(*batch_shape, *self.preterminals.shape[-2:])
        return self._with(self.root, self.rules, preterminals, self.allowed)

    def __repr__(self) -> str:
        lengths = "" if self.lengths is None else ", lengths given"
        symbols = f"{self.num_nonterminals} nonterminals, {self.num_preterminals} preterminals"
        return f"PCFG({self._words} words, {symbols}, batch_shape={list(self.batch_shape)}{lengths})"


def _joint_batch_shape(
    root: Tensor, rules: Tensor, preterminals: Tensor, lengths: Tensor | None, allowed: Tensor | None
) -> torch.Size:
    """The batch shape of well-formed arguments; raises where they are not."""
    if not root.dim() or not root.shape[-1]:
        raise ValueError(f"root: expected shape [*batch, NT] with NT > 0, got {list(root.shape)}")
    if preterminals.dim() < 2 or not preterminals.shape[-1]:
        raise ValueError(f"preterminals: expected shape [*batch, N, PT] with PT > 0, got {list(preterminals.shape)}")
    NT, (N, PT) = root.shape[-1], preterminals.shape[-2:]
    S = NT + PT
    if rules.shape[-3:] != (NT, S, S):
        raise ValueError(f"rules: expected shape [*batch, {NT}, {S}, {S}], got {list(rules.shape)}")
    for name, scores in (("root", root), ("rules", rules)):
        check_same_kind(name, scores, "preterminals", preterminals)
    shapes = {"root": root.shape[:-1], "rules": rules.shape[:-3], "preterminals": preterminals.shape[:-2]}
    if lengths is not None:
        check_lengths(lengths, N)
        shapes["lengths"] = lengths.shape
    if allowed is not None:
        if not isinstance(allowed, Tensor) or allowed.dtype != torch.bool:
            got = allowed.dtype if isinstance(allowed, Tensor) else type(allowed).__name__
            raise TypeError(f"allowed: expected a torch.Tensor of booleans, got {got}")
        if allowed.shape[-3:] != (N, N, NT):
            raise ValueError(f"allowed: expected shape [*batch, {N}, {N}, {NT}], got {list(allowed.shape)}")
        shapes["allowed"] = allowed.shape[:-3]
    return joint_batch_shape(**shapes)
