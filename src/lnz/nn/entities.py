"""Whole entities under a chain: which tags say that one begins, goes on and ends, and how probable that is."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lnz.checks import as_integers, concrete
from lnz.distributions import LinearChain
from lnz.nn.tag_schemes import SCHEMES, Scheme, parsed_tag, scheme_name

ENTRIES = 2**22
"""Scores of conditioned chains that are computed at once."""


class Entity(NamedTuple):
    """Steps ``start`` … ``end`` − 1, which are one entity of a ``type`` with this posterior ``probability``."""

    start: int
    end: int
    type: str
    probability: float


class Spans(NamedTuple):
    """N spans, each in a chain of its own: first steps, steps after the last, numbers of types; ``int64 [N]`` each."""

    start: Tensor
    end: Tensor
    kind: Tensor


class _Role(IntEnum):
    """What a step is to a span."""

    OTHER = 0
    BEFORE = 1
    FIRST = 2
    INSIDE = 3
    LAST = 4
    SINGLE = 5
    AFTER = 6


class SpanRules:
    """The taggings in which a span is exactly one entity, as sets of tags per step.

    The taggings are those of a chain that keeps the scheme. Under IOB1 an entity begins in two ways, by B after another
    of its type and by I after anything else; otherwise there is one.

    Args:
        tags: names of L tags.
        scheme: of :func:`~lnz.nn.transition_mask`.

    Attributes:
        kinds: the types of entities, in order of the alphabet.
        table: bool ``[ways, types, roles, L]``, the tags of each role; the ways exclude each other.
    """

    def __init__(self, tags: Sequence[str], scheme: Scheme) -> None:
        name = scheme_name(scheme)
        self._parsed = [parsed_tag(tag, name) for tag in tags]
        self._begins = tuple(SCHEMES[name].begin)
        self.kinds = tuple(sorted({kind for letter, kind in self._parsed if letter != "O"}))
        ways = [(begin, self._sets(name, begin)) for begin in ("BI" if name == "IOB1" else "B")]
        self.table = np.array([table for _, table in ways]).reshape(len(ways), len(self.kinds), len(_Role), len(tags))

    def _sets(self, name: str, begin: str) -> list[np.ndarray]:
        """Of the entities whose first letter is ``begin``, the table ``[roles, L]`` of each type."""
        (begins, inside, opened), tables = SCHEMES[name], []
        for kind in self.kinds:
            table = np.ones((len(_Role), len(self._parsed)), bool)
            if opened:  # the end of a span, and spans of one step, have letters of their own
                table[_Role.FIRST] = self._those(set(begins) & set(opened), kind)
                table[_Role.SINGLE] = self._those(set(begins) - set(opened), kind)
                table[_Role.INSIDE] = self._those(set(inside) & set(opened), kind)
                table[_Role.LAST] = self._those(set(inside) - set(opened), kind)
            else:
                table[_Role.FIRST] = table[_Role.SINGLE] = self._those({begin}, kind)
                table[_Role.INSIDE] = table[_Role.LAST] = self._those({"I"}, kind)
                table[_Role.AFTER] = ~self._those({"I"}, kind)
                if begin == "I":
                    table[_Role.BEFORE] = ~self._those({"B", "I"}, kind)
            tables.append(table)
        return tables

    def _those(self, letters: set[str], kind: str) -> np.ndarray:
        return np.array([letter in letters and other == kind for letter, other in self._parsed])

    def found(self, tags: Sequence[int]) -> list[tuple[int, int, str]]:
        """Start, end and type of the entities of a tagging that keeps the scheme."""
        spans: list[tuple[int, int, str]] = []
        before = "O", ""
        for step, tag in enumerate(tags):
            letter, kind = self._parsed[tag]
            if letter != "O" and (letter in self._begins or before[0] == "O" or before[1] != kind):
                spans.append((step, step + 1, kind))
            elif letter != "O":
                spans[-1] = (spans[-1][0], step + 1, kind)
            before = letter, kind
        return spans

    def numbers(self, types: str | Sequence[str], count: int) -> list[int]:
        """The numbers of ``count`` types by name, or of one for all."""
        names = [types] * count if isinstance(types, str) else list(types)
        if len(names) != count:
            raise ValueError(f"types: expected a name for each of {count} sequences, or one for all, got {len(names)}")
        for name in names:
            if name not in self.kinds:
                raise ValueError(f"types: expected {' or '.join(map(repr, self.kinds))}, got {name!r}")
        return [self.kinds.index(name) for name in names]

    def log_prob(self, chains: LinearChain, spans: Spans) -> Tensor:
        """ln P(span n is exactly one entity) of chain n, ``[N]``; −inf where that is impossible.

        Per way in which an entity begins, ln Z of the chain whose other tags are excluded. O(N T L²) time.
        """
        (T,), scores = chains.event_shape, chains.node_scores
        start, end, kind = (each.unsqueeze(1) for each in spans)
        step = torch.arange(T, device=scores.device)
        role = torch.where((step >= start) & (step < end), _Role.INSIDE, _Role.OTHER)
        role = torch.where(step == end - 1, _Role.LAST, role)
        role = torch.where(step == start, torch.where(end - start == 1, _Role.SINGLE, _Role.FIRST), role)
        role = torch.where(step == start - 1, _Role.BEFORE, torch.where(step == end, _Role.AFTER, role))
        allowed = torch.as_tensor(self.table, device=scores.device)[:, kind, role]  # [ways, N, T, L]
        lengths = None if chains.lengths is None else chains.lengths.expand(len(allowed), -1)
        conditioned = LinearChain(
            scores.masked_fill(~allowed, -torch.inf), chains.edge_scores, lengths, validate_args=False
        )
        z = conditioned._wide_log_partition
        possible = ~torch.isneginf(z).all(0)
        joint = torch.where(possible, z, 0.0).logsumexp(0)
        return (joint - chains._wide_log_partition).masked_fill(~possible, -torch.inf)

    def probabilities(self, chains: LinearChain, found: Sequence[tuple[int, int, int, str]]) -> list[float]:
        """P of every entity ``(chain, start, end, type)``, as many chains at once as fit in :data:`ENTRIES` scores."""
        if not found:
            return []
        device, L = chains.node_scores.device, chains.num_labels
        rows = [(owner, start, end, self.kinds.index(kind)) for owner, start, end, kind in found]
        owner, start, end, kind = torch.tensor(rows, device=device).T
        logs = []
        for part in torch.arange(len(found), device=device).split(max(1, ENTRIES // (chains.event_shape[0] * L))):
            at = owner[part]
            lengths = None if chains.lengths is None else chains.lengths[at]
            one_each = LinearChain(chains.node_scores[at], chains.edge_scores, lengths, validate_args=False)
            logs.append(self.log_prob(one_each, Spans(start[part], end[part], kind[part])))
        return torch.cat(logs).exp().clamp(max=1.0).tolist()


def as_ends(start: Tensor | Sequence[int], end: Tensor | Sequence[int], mask: Tensor) -> tuple[Tensor, Tensor]:
    """Start and end of a span per sequence, as numbers of steps of the ``mask`` ``[B, T]`` before them; ``[B]`` each.

    Raises:
        TypeError, ValueError: no integers ``[B]``; a span outside the sequence, or without a step of the mask.
    """
    B, T = mask.shape
    ends = []
    for name, given in (("start", start), ("end", end)):
        steps = as_integers(name, given, mask.device)
        if steps.shape != (B,):
            raise ValueError(f"{name}: expected shape {[B]}, a step per sequence, got {list(steps.shape)}")
        ends.append(steps)
    wrong = (ends[0] < 0) | (ends[0] >= ends[1]) | (ends[1] > T)
    if concrete(wrong) and wrong.any():
        b = int(wrong.nonzero()[0])
        raise ValueError(
            f"start, end: expected 0 <= start < end <= {T}, got start {int(ends[0][b])}, end {int(ends[1][b])} "
            f"in sentence {b}"
        )
    before = torch.nn.functional.pad(mask.long().cumsum(1), (1, 0))
    first, last = (before.gather(1, steps.unsqueeze(1)).squeeze(1) for steps in ends)
    empty = first == last
    if concrete(empty) and empty.any():
        b = int(empty.nonzero()[0])
        raise ValueError(
            f"mask: expected a step in the span from {int(ends[0][b])} to {int(ends[1][b])} of sentence {b}, got none"
        )
    return first, last
