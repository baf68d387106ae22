"""The columns of a recursion, of which few are held at a time: for walks back along long sequences."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor


class Columns:
    """Elements 0 … n of a recursion, to be read from the last one back.

    All are kept, or every √n-th, and of the others one block of √n at a time, which is made again (the simplest case of
    Griewank and Walther 2000, "revolve").

    Args:
        first: element 0.
        step: element t + 1 from element t, and t.
        count: n.
        whole: whether all are kept.
    """

    def __init__(self, first: Tensor, step: Callable[[Tensor, int], Tensor], count: int, whole: bool) -> None:
        self.step, self.count = step, count
        self.every = count + 1 if whole else math.isqrt(count) + 1
        self.kept, self.block, self.begin = [first], [first], 0
        for t in range(1, count + 1):
            column = step(self.block[-1], t - 1)
            if t % self.every == 0:
                self.kept.append(column)
                self.block, self.begin = [], t
            self.block.append(column)

    def __len__(self) -> int:
        return self.count + 1

    def __getitem__(self, t: int) -> Tensor:
        if not self.begin <= t < self.begin + len(self.block):
            self.begin = t // self.every * self.every
            self.block = [self.kept[t // self.every]]
            for at in range(self.begin, min(self.begin + self.every, self.count + 1) - 1):
                self.block.append(self.step(self.block[-1], at))
        return self.block[t - self.begin]
