"""Argument checks: each names the argument, what was expected and what came.

Checks of shapes always run. Checks of values need the values, so they are left out while a function is being
traced (``torch.compile``) or vectorised (``torch.vmap``); :func:`concrete` says which.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import SupportsIndex

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from lnz.errors import InfeasibleError
from lnz.typing import IGNORE


def concrete(*tensors: Tensor) -> bool:
    """Whether the values of all ``tensors`` can be looked at in Python."""
    return not torch.compiler.is_compiling() and not any(has_no_values(x) or _is_batched(x) for x in tensors)


def has_no_values(tensor: Tensor) -> bool:
    """Whether a tensor has a shape and no values: on the meta device, or a fake one."""
    if type(tensor) in (Tensor, torch.nn.Parameter):
        return tensor.is_meta
    return isinstance(tensor, Tensor) and (tensor.is_meta or getattr(tensor, "fake_mode", None) is not None)


def _is_batched(tensor: Tensor) -> bool:
    if not isinstance(tensor, Tensor):  # for others to refuse
        return False
    functorch = torch._C._functorch  # pyright: ignore[reportAttributeAccessIssue]
    while functorch.is_functorch_wrapped_tensor(tensor):
        if functorch.is_batchedtensor(tensor):
            return True
        tensor = functorch.get_unwrapped(tensor)
    return False


def plain(tensor: Tensor) -> bool:
    """Whether NumPy may look at a tensor: on the CPU, no subclass, nothing being traced or transformed."""
    return (
        type(tensor) in (Tensor, torch.nn.Parameter)
        and tensor.is_cpu
        and not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()  # pyright: ignore[reportAttributeAccessIssue]
        and forward_ad._current_level < 0  # a tangent would be lost
    )


def check_no_tangent(what: str, tensor: Tensor, instead: str) -> None:
    """Raise where forward mode (``torch.func.jvp``, dual numbers) asks for a tangent that ``what`` would drop."""
    if torch.compiler.is_compiling() or forward_ad._current_level < 0:
        return
    if forward_ad.unpack_dual(tensor).tangent is not None:
        raise NotImplementedError(f"{what} has no forward-mode derivatives; use {instead}")


def constant(*tensors: Tensor) -> bool:
    """Whether all are :func:`plain` and nobody will differentiate by them: no function need be recorded."""
    return all(plain(x) and not (x.requires_grad and torch.is_grad_enabled()) for x in tensors)


_SHARED = 2**20  # scores from which torch's threads share the search for the largest


def largest(scores: Tensor) -> float | None:
    """The largest entry, NaN if any is; ``None`` where there are none, or none that can be looked at.

    NumPy's maximum does not start torch's threads, which wait for work between its calls at the cost of our kernels';
    of large tensors, that costs less than one thread's reading them.
    """
    if not scores.numel():
        return None
    if plain(scores) and scores.dtype in (torch.float32, torch.float64) and scores.numel() < _SHARED:
        return float(scores.detach().numpy().max())
    return scores.detach().amax().item() if concrete(scores) else None


def common_dtype(*scores: Tensor | None) -> torch.dtype:
    """The dtype of a model whose scores come in several: that to which torch promotes them.

    bfloat16 beside float32, as under autocast, is float32; torch's default dtype where there are none.
    """
    dtypes = [tensor.dtype for tensor in scores if tensor is not None]
    dtype = dtypes[0] if dtypes else torch.get_default_dtype()
    for other in dtypes[1:]:
        dtype = torch.promote_types(dtype, other)
    return dtype


def promoted(*scores: Tensor) -> tuple[Tensor, ...]:
    """``scores`` in their :func:`common_dtype`; gradients come back in the dtype of each."""
    dtype = common_dtype(*scores)
    return tuple(tensor.to(dtype) for tensor in scores)


LARGE = 1e9
"""Of scores beyond this float64 keeps less than seven digits behind the point, and float32 none."""


def working_dtype(dtype: torch.dtype, *scores: Tensor) -> torch.dtype:
    """What is added up in for scores of ``dtype``: float32 or wider. Answers are rounded to ``dtype`` once.

    float64 where any of ``scores`` has :data:`LARGE` entries: their sums may lie beyond the range of float32.
    """
    wide = torch.promote_types(dtype, torch.float32)
    return torch.float64 if wide == torch.float32 and any(map(has_large, scores)) else wide


def has_large(scores: Tensor) -> bool:
    """Whether the highest score is known to be :data:`LARGE`, or as far below 0; not on MPS, which has no float64.

    Low scores beside ordinary ones, such as masks are made of, do not count: they are in no likely labelling.
    """
    top = None if scores.device.type == "mps" else largest(scores)
    return top is not None and LARGE < abs(top) < math.inf


def check_tensor(name: str, value: object) -> None:
    """Raise unless ``value`` is a tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(value).__name__}")


def check_generator(generator: object) -> None:
    """Raise unless ``generator`` is one of random numbers, or ``None``."""
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"generator: expected a torch.Generator or None, got {generator!r}")


def check_integer(name: str, value: object, least: int | None = 1) -> None:
    """Raise unless ``value`` is an integer, and at least ``least``."""
    if isinstance(value, SupportsIndex) and (least is None or int(value) >= least):
        return
    kind = "an integer" if least is None else "a positive integer" if least == 1 else f"an integer of at least {least}"
    error = ValueError if isinstance(value, (*_NUMBERS, SupportsIndex)) else TypeError
    raise error(f"{name}: expected {kind}, got {value!r}")


def _any(value: float) -> bool:
    return not math.isnan(value)


def check_number(name: str, value: object, kind: str = "a number", fits: Callable[[float], bool] = _any) -> None:
    """Raise unless a setting is a number that ``fits``, which ``kind`` says in words; by default, any but NaN."""
    if not isinstance(value, _NUMBERS):
        raise TypeError(f"{name}: expected {kind}, got {value!r}")
    if not fits(float(value)):
        raise ValueError(f"{name}: expected {kind}, got {value!r}")


def check_positive(name: str, value: object) -> None:
    """Raise unless ``value`` is a finite number above 0."""
    check_number(name, value, "a positive number", lambda number: 0 < number < math.inf)


def numbers(name: str, values: object) -> tuple[float, ...]:
    """The setting ``values``, a sequence of numbers, as a tuple of floats; raises where it is none."""
    listed = values.tolist() if isinstance(values, Tensor | np.ndarray) else values
    if not isinstance(listed, Sequence) or not all(isinstance(value, _NUMBERS) for value in listed):
        raise TypeError(f"{name}: expected a sequence of numbers, got {values!r}")
    return tuple(float(value) for value in listed)


_NUMBERS = (int, float, np.integer, np.floating)  # neither numbers.Real nor a union, which torch.compile cannot trace


def as_sample_shape(sample_shape: Sequence[int]) -> torch.Size:
    """``sample_shape`` as a size; raises unless it is a sequence of integers of at least 0."""
    try:
        shape = torch.Size(sample_shape)
    except TypeError as error:
        raise TypeError(f"sample_shape: expected a sequence of integers, such as (3,), got {sample_shape!r}") from error
    if any(size < 0 for size in shape):
        raise ValueError(f"sample_shape: expected sizes of at least 0, got {tuple(shape)}")
    return shape


def check_scores(name: str, scores: Tensor, *, values: bool = True) -> None:
    """Raise unless ``scores`` are floating point and hold no NaN and no +inf (−inf is an ordinary score).

    The values are looked at only if ``values``.
    """
    check_tensor(name, scores)
    if not scores.is_floating_point():
        raise TypeError(f"{name}: expected floating point scores, got dtype {scores.dtype}")
    top = largest(scores) if values else None  # NaN wins over everything, +inf over the rest: one pass finds both
    if top is not None and not top < math.inf:
        if math.isnan(top):
            where = torch.isnan(scores).nonzero()
            raise ValueError(f"{name}: {len(where)} of {scores.numel()} scores are NaN, first at {where[0].tolist()}")
        where = torch.isposinf(scores).nonzero()
        raise ValueError(
            f"{name}: {len(where)} of {scores.numel()} scores are +inf, first at {where[0].tolist()}; "
            "a score must be finite, or -inf for an impossible assignment"
        )


def check_labels(name: str, labels: Tensor, cardinalities: Tensor | int, *, unobserved: bool = True) -> None:
    """Raise unless ``labels`` is int64 and each entry lies in [0, cardinality), or is −100 where allowed.

    ``cardinalities`` broadcasts against ``labels``.
    """
    check_tensor(name, labels)
    if labels.dtype != torch.int64:
        raise TypeError(f"{name}: expected dtype torch.int64, got {labels.dtype}")
    if not labels.numel() or not concrete(labels) or _within(labels, cardinalities, unobserved):
        return
    bad = (labels >= cardinalities) | (labels < 0)
    if unobserved:
        bad = bad & (labels != IGNORE)
    if bad.any():
        where = bad.nonzero()[0]
        card = torch.as_tensor(cardinalities, device=labels.device).expand_as(labels)[tuple(where)].item()
        also = f", or {IGNORE} for unobserved" if unobserved else ""
        raise ValueError(
            f"{name}: expected labels in [0, {card}){also}, got {labels[tuple(where)].item()} at {where.tolist()}"
        )


def _within(labels: Tensor, cardinality: Tensor | int, unobserved: bool) -> bool:
    """Whether all labels are known to lie in [0, cardinality), or to be −100; NumPy's way, as in :func:`largest`."""
    if not plain(labels) or not labels.dim():
        return False
    values = labels.numpy()
    if isinstance(cardinality, int):
        inside = values.max() < cardinality
    elif plain(cardinality) and cardinality.dim() == 1:
        inside = (values.reshape(-1, values.shape[-1]).max(0) < cardinality.numpy()).all()
    else:
        return False
    lowest = values.min()
    if not inside or lowest >= 0:
        return bool(inside)
    # as unsigned numbers, −99 … −1 lie above −100
    return unobserved and bool(lowest == IGNORE and values.view(np.uint64).max() == np.uint64(2**64 + IGNORE))


def as_labels(name: str, labels: Tensor) -> Tensor:
    """``labels`` of any integer dtype as int64; raises unless they are integers. Every labelling goes through this."""
    whole = isinstance(labels, Tensor) and not (labels.is_floating_point() or labels.is_complex())
    if not whole or labels.dtype == torch.bool:
        got = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise TypeError(f"{name}: expected a torch.Tensor of integers, got {got}")
    return labels.to(torch.int64)


def as_labelling(
    name: str, y: Tensor, event_shape: Sequence[int], batch_shape: Sequence[int], inside: Tensor, cardinality: int
) -> Tensor:
    """The labelling ``y`` ``[*batch, *event]`` as int64, −100 where it is not ``inside``, whatever it held there.

    Raises unless it is one: its shape, its dtype, its labels.
    """
    check_tensor(name, y)
    check_event_shape(name, y.shape, event_shape)
    check_broadcast(name, y.shape[: y.dim() - len(event_shape)], batch_shape)
    y = torch.where(inside, as_labels(name, y), IGNORE)
    check_labels(name, y, cardinality)
    return y


def check_full(name: str, unobserved: Tensor, instead: str = "; use log_prob or condition") -> None:
    """Raise if any labelling is ``unobserved`` in part."""
    if concrete(unobserved) and unobserved.any():
        raise ValueError(f"{name}: expected a full labelling, got {IGNORE} (unobserved){instead}")


def check_event_shape(name: str, got: Sequence[int], expected: Sequence[int]) -> None:
    """Raise unless the last dimensions of shape ``got`` are exactly ``expected``."""
    if len(got) < len(expected) or tuple(got[len(got) - len(expected) :]) != tuple(expected):
        raise ValueError(f"{name}: expected shape [*batch, {', '.join(map(str, expected))}], got {list(got)}")


def check_broadcast(name: str, got: Sequence[int], batch_shape: Sequence[int]) -> None:
    """Raise unless the batch shape ``got`` broadcasts with ``batch_shape``."""
    if got == batch_shape:
        return
    try:
        broadcast_shapes(got, batch_shape)
    except RuntimeError as error:
        raise ValueError(
            f"{name}: expected a batch shape that broadcasts with {list(batch_shape)}, got {list(got)}"
        ) from error


def broadcast_shapes(*shapes: Sequence[int]) -> torch.Size:
    """``torch.broadcast_shapes``; the usual case, one shape, at less than a tenth of the time.

    Torch's imports symbolic arithmetic when it is first called, for half a second.
    """
    if not torch.compiler.is_compiling():
        several = [shape for shape in shapes if len(shape)]
        if all(shape == several[0] for shape in several):
            return torch.Size(several[0]) if several else torch.Size()
    return torch.broadcast_shapes(*map(torch.Size, shapes))


def joint_batch_shape(**shapes: Sequence[int]) -> torch.Size:
    """The batch shape that those of the named arguments broadcast to; raises where they do not."""
    try:
        return broadcast_shapes(*shapes.values())
    except RuntimeError as error:
        *names, last = shapes
        raise ValueError(
            f"expected batch shapes of {', '.join(names)} and {last} that broadcast together, "
            f"got {', '.join(str(list(shape)) for shape in shapes.values())}"
        ) from error


def check_same_kind(name: str, tensor: Tensor, like_name: str, like: Tensor) -> None:
    """Raise unless ``tensor`` has the dtype and the device of ``like``."""
    for kind in ("dtype", "device"):
        wanted, got = getattr(like, kind), getattr(tensor, kind)
        if got != wanted:
            raise TypeError(f"{name}: expected {kind} {wanted} as {like_name}, got {got}")


def as_lengths(
    lengths: Tensor | Sequence[int],
    steps: int,
    name: str = "lengths",
    of: str = "the steps",
    device: torch.device | None = None,
) -> Tensor:
    """``lengths``, integers of any dtype or a list of them, as int64; raises unless each lies in [0, steps]."""
    lengths = as_integers(name, lengths, device)
    check_lengths(lengths, steps, name, of)
    return lengths


def as_integers(name: str, values: Tensor | Sequence[int], device: torch.device | None = None) -> Tensor:
    """Integers in any form, a tensor or a list, as int64 (on ``device``, if given); raises unless they are."""
    try:
        found = torch.as_tensor(values, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name}: expected integers, got {values!r}") from error
    if not isinstance(values, Tensor) and not found.numel():
        return found.to(torch.int64)  # an empty list has no dtype of its own
    if found.is_floating_point() or found.is_complex() or found.dtype == torch.bool:
        raise TypeError(f"{name}: expected integers, got dtype {found.dtype}")
    return found.to(torch.int64)


def check_lengths(lengths: Tensor, steps: int, name: str = "lengths", of: str = "the steps") -> None:
    """Raise unless ``lengths`` is int64 and each entry lies in [0, steps]."""
    check_tensor(name, lengths)
    if lengths.dtype != torch.int64:
        raise TypeError(f"{name}: expected dtype torch.int64, got {lengths.dtype}")
    if concrete(lengths):
        out = (lengths < 0) | (lengths > steps)
        if out.any():
            where = out.nonzero()[0]
            got = lengths[tuple(where)].item()
            raise ValueError(f"{name}: expected values in [0, {steps}], {of}, got {got} at {where.tolist()}")


def as_counts(name: str, counts: Tensor | Sequence[int], number: int, device: torch.device) -> Tensor:
    """``counts``, integers in any form, as int64 ``[number]``; raises unless they are."""
    counts = as_integers(name, counts, device)
    if counts.numel() != number:
        raise ValueError(f"{name}: expected {number} numbers, one per batch entry, got {counts.numel()}")
    return counts.reshape(number)


def check_weights(name: str, weights: Tensor, rows: int) -> None:
    """Raise unless there is a finite weight of at least 0 for each of the rows, not all of them 0."""
    check_tensor(name, weights)
    if weights.shape != (rows,):
        raise ValueError(f"{name}: expected shape [{rows}], one per row, got {list(weights.shape)}")
    if not ((weights >= 0) & torch.isfinite(weights)).all() or not weights.sum() > 0:
        raise ValueError(f"{name}: expected finite numbers of at least 0, not all of them 0")


def check_same_lengths(mine: Tensor | int, theirs: Tensor | int) -> None:
    """Raise unless the lengths of two batches of sequences, which broadcast, are equal."""
    both = [x for x in (mine, theirs) if isinstance(x, Tensor)]
    if not both or not concrete(*both):
        return
    p, q = torch.broadcast_tensors(*(torch.as_tensor(x, device=both[0].device) for x in (mine, theirs)))
    if not torch.equal(p, q):
        where = tuple((p != q).nonzero()[0].tolist())
        raise ValueError(
            f"expected two distributions over sequences of equal lengths, got {p[where].item()} and {q[where].item()}"
            f" at {list(where)}"
        )


def check_feasible(values: Tensor, what: str, why: str = "no labelling has a finite score") -> None:
    """Raise :class:`InfeasibleError` naming the batch entries whose ln Z, or best score, is −inf."""
    if not concrete(values):
        return
    empty = torch.isneginf(values.detach()).reshape(-1)
    if empty.any():
        entries = empty.nonzero().flatten().tolist()
        shown = ", ".join(map(str, entries[:8])) + (", …" if len(entries) > 8 else "")
        where = "" if values.dim() == 0 else f" in batch entries [{shown}]"
        raise InfeasibleError(f"{what}: {why}{where}", entries=entries)
