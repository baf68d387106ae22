"""Words of a target: the best alignment of a text some of whose words may be left out, and the posterior of each word.

The lattice of one target (:mod:`lnz.ops.ctc.lattice`) and arcs over words: from the blank before a word to the first
label of a later word, at the sum of the costs of the words between. A word is thus left out in a blank, of one frame at
least. At the end of the recording no frame is needed: an alignment may end before words that can all be left out.

Of long recordings every √T-th column of the lattice is kept, and those between are made once more (Griewank and Walther
2000): O(S √T) memory beside the scores, O(T (S + W)) time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lnz.ops.branches import shares
from lnz.ops.columns import Columns
from lnz.ops.ctc import reference
from lnz.ops.ctc.lattice import Lattice, as_single
from lnz.ops.ctc.records import KERNELS
from lnz.ops.precision import accumulator
from lnz.semirings import Log

Plus = Callable[[Tensor, Tensor], Tensor]


class Words(NamedTuple):
    """Which labels of a target make words, each with what follows it before the next word begins.

    Attributes:
        begins: ``int64 [W + 1]``, the first label of each word, 0 of the first one; last, the number S of labels.
        ends: ``int64 [W]``, the label after the last one of each word; from there to the next word are separators.
        costs: ``float64 [W]``, what is taken off the score where a word and its separators are left out; +∞: never.
    """

    begins: Tensor
    ends: Tensor
    costs: Tensor


class WordPosteriors(NamedTuple):
    """Probabilities under the distribution of alignments.

    Attributes:
        within: ``[T]``, of being at each frame within the word asked about: in one of its labels, or in a blank
            between two of them; 0 where none was asked about.
        left_out: ``[W]``, of leaving out each word.
    """

    within: Tensor
    left_out: Tensor


def best_states(scores: Tensor, of: Lattice, words: Words) -> tuple[Tensor, Tensor]:
    """The states of the best alignment ``int64 [T]``, and its score ``[]`` in double precision.

    Args:
        scores: ``[1, T, C]``.
        of: the lattice of one target; state 2 u is the blank before label u, state 2 u + 1 label u.
        words: of the target.

    Returns:
        States, and the score; −1 throughout and −∞ where nothing is possible. Of equal alignments always the same.
    """
    scores = as_single(scores)
    run = KERNELS.find("best_states", scores) if scores.numel() else None
    return (run or _best_states)(scores, of, words)


def word_posteriors(scores: Tensor, of: Lattice, words: Words, asked: Tensor) -> WordPosteriors:
    """The probability of each frame's word in ``asked`` ``int64 [T]`` (−1: none), and of leaving out each word.

    Arguments as of :func:`best_states`; some alignment must be possible. Shares of sums flow back from the last frame
    (:func:`lnz.ops.ctc.reference.forward_backward`): no difference of large sums.
    """
    scores = as_single(scores)
    run = KERNELS.find("word_posteriors", scores) if scores.numel() else None
    return (run or _word_posteriors)(scores, of, words, asked)


def _best_states(scores: Tensor, of: Lattice, words: Words) -> tuple[Tensor, Tensor]:
    x, (stays, skips) = _emissions(scores, of), _arcs(scores, of)
    T, begins, costs = scores.shape[1], words.begins.tolist(), words.costs.tolist()
    word_at = {2 * begin + 1: w for w, begin in enumerate(begins[:-1])}

    def step(alpha: Tensor, t: int) -> Tensor:
        paths = torch.cat((reference.ways(alpha, (stays, skips)), _over(alpha, words, torch.maximum)[0][:, None]), -1)
        return paths.amax(-1) + x(t)

    def arrivals(alpha: Tensor, state: int) -> list[tuple[float, int]]:
        """Scores of the paths into a state, and the states they come from."""
        found = [(float(alpha[state] + stays[state]), state)]
        found += [(float(alpha[state - 1]), state - 1)] if state else []
        found += [(float(alpha[state - 2] + skips[state]), state - 2)] if state > 1 else []
        return found + left_out(alpha, word_at[state], 0) if state in word_at else found

    def left_out(alpha: Tensor, w: int, before: int) -> list[tuple[float, int]]:
        found, cost = [], 0.0
        for v in range(w - 1, -1, -1):
            cost += costs[v]
            near = range(max(0, 2 * begins[v] - before), 2 * begins[v] + 1)
            found.extend((float(alpha[state]) - cost, state) for state in near)
        return found

    columns = Columns(_begin(scores, of), step, T, False)
    last, ends = columns[T], [2 * begins[-1]] + ([2 * begins[-1] - 1] if begins[-1] else [])
    score, state = max([(float(last[k]), k) for k in ends] + left_out(last, len(costs), 1), key=lambda end: end[0])
    states = torch.full((T,), -1, device=scores.device)
    for t in range(T - 1 if score > -torch.inf else -1, -1, -1):
        states[t] = state
        state = max(arrivals(columns[t], state), key=lambda way: way[0])[1]
    return states, last.new_tensor(score)


def _word_posteriors(scores: Tensor, of: Lattice, words: Words, asked: Tensor) -> WordPosteriors:
    x, between = _emissions(scores, of), _arcs(scores, of)
    T, W, S = scores.shape[1], len(words.costs), of.labels.shape[1]
    states, firsts, begins, owner = torch.arange(2 * S + 1), 2 * words.begins[:-1] + 1, words.begins, asked.tolist()

    def step(alpha: Tensor, t: int) -> Tensor:
        paths = torch.cat((reference.ways(alpha, between), _over(alpha, words, torch.logaddexp)[0][:, None]), -1)
        return Log().plus(paths, -1) + x(t)

    columns = Columns(_begin(scores, of), step, T, False)
    last, left_out = columns[T], scores.new_zeros(W, dtype=accumulator(scores))

    def hand_down(mass: Tensor, alpha: Tensor, over: Tensor, there: Tensor, ending: bool) -> None:
        """What comes over words, ``mass`` ``[W + 1]``, goes to the states from which these are left out."""
        for w in range(W, 0, -1):
            left_out[w - 1] += mass[w]
            state = int(2 * begins[w - 1])
            label = alpha[state - 1] if ending and state else alpha.new_tensor(-torch.inf)
            blank, spoken, further = shares(torch.stack((alpha[state], label, over[w - 1]))) * mass[w]
            there[state] += blank
            there[max(0, state - 1)] += spoken
            mass[w - 1] += further

    over = _over(last, words, torch.logaddexp, ending=True)[1]
    ends = torch.stack((last[2 * S], last[2 * S - 1] if S else last.new_tensor(-torch.inf), over[W]))
    blank, label, rest = shares(ends)
    there, mass = torch.zeros_like(last), torch.zeros_like(over)
    there[2 * S] += blank
    there[max(0, 2 * S - 1)] += label
    mass[W] = rest
    hand_down(mass, last, over, there, True)
    within = torch.zeros(T, dtype=left_out.dtype, device=scores.device)
    for t in range(T - 1, -1, -1):
        if owner[t] >= 0:
            first, end = int(2 * begins[owner[t]] + 1), int(2 * words.ends[owner[t]])
            within[t] = there[(states >= first) & (states < end)].sum()
        alpha = columns[t]
        entries, over = _over(alpha, words, torch.logaddexp)
        ways = torch.cat((reference.ways(alpha, between), entries[:, None]), -1)
        stay, onward, skip, jumped = (there[:, None] * shares(ways)).unbind(-1)
        there = stay + reference.moved(onward, 1) + reference.moved(skip, 2)
        mass = torch.cat((jumped[firsts], jumped.new_zeros(1)))
        hand_down(mass, alpha, over, there, False)
    return WordPosteriors(within, left_out)


def _over(alpha: Tensor, words: Words, plus: Plus, *, ending: bool = False) -> tuple[Tensor, Tensor]:
    """Sums over the paths that leave out the words before each word and, last, before the end.

    Given at the states that these lead to ``[2 S + 1]`` (−∞ elsewhere), and by word ``[W + 1]``.
    """
    over = [alpha.new_tensor(-torch.inf)]
    for begin, cost in zip(words.begins[:-1].tolist(), words.costs.tolist(), strict=True):
        from_here = plus(alpha[2 * begin], alpha[2 * begin - 1]) if ending and begin else alpha[2 * begin]
        over.append(plus(from_here, over[-1]) - cost)
    by_word, entries = torch.stack(over), torch.full_like(alpha, -torch.inf)
    entries[2 * words.begins[:-1] + 1] = by_word[:-1]
    return entries, by_word


def _emissions(scores: Tensor, of: Lattice) -> Callable[[int], Tensor]:
    wide = accumulator(scores)
    return lambda t: reference.emissions(scores[:, t : t + 1].to(wide), of)[0, 0]


def _arcs(scores: Tensor, of: Lattice) -> tuple[Tensor, Tensor]:
    stays, skips = reference.arcs(scores.new_empty(0, dtype=accumulator(scores)), of)
    return stays[0], skips[0]


def _begin(scores: Tensor, of: Lattice) -> Tensor:
    return reference.begin(scores.new_empty(0, dtype=accumulator(scores)), of)[0]
