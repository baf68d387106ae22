"""Every kernel at every configuration that dispatch can choose, compiled for cards that are not there.

The functions that dispatch calls run on tensors of the shapes, with their launches recorded in place of run; what they
would launch is compiled. So the configurations cannot differ from those in use.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.gpu import families
from lnz.ops.jit.triton.launch import Launch, recording

DTYPES = (torch.float32, torch.bfloat16, torch.float64)


class Configuration(NamedTuple):
    """A kernel as it is compiled for one shape.

    Attributes:
        family: of distributions, such as ``"chain"``.
        shape: what its configuration depends on.
        dtype: of the scores.
        launch: the kernel with its arguments.
    """

    family: str
    shape: str
    dtype: torch.dtype
    launch: Launch

    @property
    def key(self) -> tuple[Any, ...]:
        """Configurations of the same key are compiled to the same binary."""
        arguments = tuple(_kind(x) for x in self.launch.arguments)
        return self.launch.kernel.__name__, arguments, self.launch.warps, tuple(self.launch.constants.items())


def _kind(argument: Any) -> Any:
    if isinstance(argument, Tensor):
        return argument.dtype
    return argument == 1, argument % 16 == 0, argument >= 2**31


def configurations(family: str, dtype: torch.dtype) -> Iterator[Configuration]:
    """Those of a family and dtype, each binary once."""
    seen = set()
    for shape, run in families.ALL[family](dtype):
        with recording() as launches:
            run()
        for launch in launches:
            found = Configuration(family, shape, dtype, launch)
            if found.key not in seen:
                seen.add(found.key)
                yield found
