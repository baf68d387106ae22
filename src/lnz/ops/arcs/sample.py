"""Samples of dependency trees, one word at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lnz.ops.arcs.records import Arcs, Drawn, Pass, Uniform
from lnz.ops.choices import picked
from lnz.ops.scaffold import Operator
from lnz.ops.scaffold.batch import Axis
from lnz.typing import IGNORE


def sample_operator(name: str, solve: Callable[[Arcs], Pass]) -> Operator[Uniform, Drawn]:
    """``lnz::name``: independent trees ``int64 [n, B, N + 1]``, by random numbers.

    The head of each word is drawn given those of the words before it, from marginals of the trees that have these
    (Colbourn, Myrvold & Neufeld 1996, who update the marginals). N passes for all samples at once.
    """
    axes = {"uniform": Axis(1), "heads": Axis(1)}

    def fake(given: Uniform) -> Drawn:
        return Drawn(given.lengths.new_empty(given.uniform.shape))

    return Operator(name, lambda given: Drawn(_drawn(solve, given)), fake, Uniform, Drawn, axes=axes)


def _drawn(solve: Callable[[Arcs], Pass], arcs: Uniform) -> Tensor:
    uniform = arcs.uniform
    n, B, M = uniform.shape
    given = Arcs(arcs.scores.repeat(n, 1, 1), arcs.lengths.repeat(n), arcs.single_root)
    numbers, places = uniform.reshape(n * B, M), torch.arange(M, device=uniform.device)
    heads = [torch.zeros_like(given.lengths)]
    for word in range(1, M):
        head = picked(solve(given).marginals[:, word], numbers[:, word])
        heads.append(torch.where(word <= given.lengths, head, IGNORE))
        others = (places != head[:, None]) & (word <= given.lengths)[:, None]
        row = given.scores[:, word].masked_fill(others, -torch.inf)
        given = given._replace(scores=given.scores.index_copy(1, places[word : word + 1], row[:, None]))
    return torch.stack(heads, -1).view(n, B, M)
