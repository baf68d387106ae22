"""Several processes that learn one model, each from observations of its own: sums over all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

Result = TypeVar("Result")


def several() -> bool:
    """Whether this process is one of several of an initialised ``torch.distributed`` group."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def summed(*tensors: Tensor) -> list[Tensor]:
    """Each summed over all processes, in float64, the same in all of them."""
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    flat = torch.cat([each.detach().to(device, torch.float64).flatten() for each in tensors])
    distributed.all_reduce(flat)
    parts = flat.split([each.numel() for each in tensors])
    return [part.reshape(each.shape).to(each.device) for part, each in zip(parts, tensors, strict=True)]


def together(statistics: Any) -> Any:
    """Statistics of all processes: the sums of a list of tensors; others say themselves, in a method ``together``.

    Raises:
        TypeError: statistics of another kind.
    """
    if hasattr(statistics, "together"):
        return statistics.together(summed, _gathered)
    if isinstance(statistics, list | tuple) and all(isinstance(each, Tensor) for each in statistics):
        return summed(*statistics)
    raise TypeError(f"em: {type(statistics).__name__} cannot be summed over processes; learn in one of them")


def _gathered(rows: Tensor) -> Tensor:
    """The rows ``[R, …]`` of all processes, in their order."""
    sizes = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(distributed.get_world_size())]
    distributed.all_gather(sizes, torch.tensor([len(rows)], device=rows.device))
    most = max(int(size) for size in sizes)
    padded = torch.cat((rows, rows.new_zeros(most - len(rows), *rows.shape[1:]))).contiguous()
    each = [torch.empty_like(padded) for _ in sizes]
    distributed.all_gather(each, padded)
    return torch.cat([part[: int(size)] for part, size in zip(each, sizes, strict=True)])


def same(tensors: Iterable[Tensor]) -> None:
    """Give tensors the values that they have in the first process, in place."""
    for each in tensors:
        distributed.broadcast(each, 0)


def attempted(step: Callable[[], Result]) -> Result:
    """``step()``; where it fails in any process, all of them raise, instead of waiting for that one."""
    error, result = None, None
    try:
        result = step()
    except Exception as raised:  # raised again below, when the others know
        error = raised
    (failed,) = summed(torch.tensor(float(error is not None)))
    if error is not None:
        raise error
    if failed:
        raise RuntimeError("em: another process failed; its error says why")
    return result  # pyright: ignore[reportReturnType]
