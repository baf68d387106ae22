"""Running messages to a fixed point: flooding, sequential, residual, and the two passes of a forest."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lnz.ops.belief.reference import Passing, Reduce, disagreement, log_max, log_sum, normalised
from lnz.ops.belief.wiring import Step
from lnz.ops.dispatch import Kernels
from lnz.scores import Model, Weighted

Schedule = Literal["flooding", "residual", "sequential"]

KERNELS = Kernels("belief")
KERNELS.register("cpu", "lnz.ops.belief.exponential", devices=("cpu",), dtypes=(torch.float32, torch.float64))

CONSTRAINED_DAMPING = 0.5
"""Where factors of several nodes hold −inf, messages rarely settle without."""


@dataclass(frozen=True)
class Run:
    """How messages are iterated; what each means is said at :class:`lnz.inference.BeliefPropagation`."""

    max_iterations: int
    tolerance: float
    damping: float | None
    schedule: Schedule

    def damping_for(self, model: Model) -> float:
        """The damping, or what ``None`` stands for: :data:`CONSTRAINED_DAMPING` where there are −inf, else none."""
        if self.damping is not None:
            return self.damping
        return CONSTRAINED_DAMPING if model.constrained else 0.0


@dataclass(frozen=True, eq=False)
class Outcome:
    """Messages ``[*batch, M, L]``, and per batch entry the iterations, the last residual and whether it converged."""

    messages: Tensor
    iterations: Tensor
    residual: Tensor
    converged: Tensor


@torch.no_grad()
def iterated(model: Model, run: Run, *, maximise: bool = False) -> Outcome:
    """Iterate from uniform messages until the stopping rule holds, per batch entry."""
    if maximise:
        passing = Passing(model, log_max)
    else:
        passing = (KERNELS.find("ExponentialPassing", *model.tensors) or Passing)(model, log_sum)
    if not passing.wiring.is_forest and run.schedule == "residual":
        return _by_residual(model, run, maximise)
    return iterate(passing, run)


@torch.no_grad()
def iterate(passing: Passing, run: Run, messages: Tensor | None = None) -> Outcome:
    """The flooding or sequential schedule with any message update, from ``messages`` or from uniform ones."""
    messages = passing.initial() if messages is None else messages.clone()
    if passing.wiring.is_forest:
        return Outcome(_two_pass(passing, messages), *_fresh(passing, 1, 0.0))
    sent = torch.empty_like(messages)
    iterations, residual, converged = _fresh(passing, 0, torch.inf)
    for iteration in range(run.max_iterations):
        active = ~converged
        if not active.any():
            break
        watch = run.tolerance > 0 or iteration == run.max_iterations - 1
        change = _sweep(passing, run, messages, sent, active, watch=watch)
        residual = torch.where(active, change, residual)
        iterations += active
        still = active & (residual <= run.tolerance)
        if run.tolerance and still.any():
            converged = converged | (still & steady(passing, run, messages))
    return Outcome(messages, iterations, residual, converged if run.tolerance else residual <= 0)


def steady(passing: Passing, run: Run, messages: Tensor) -> Tensor:
    """Whether the answers are at rest where messages are, as probabilities: ``bool [*batch]``.

    Labels that a message calls all but impossible may be what others insist on. So one iteration more must change ln Z
    by no more than the tolerance per message, and where messages are held back by their reach, factors and their nodes
    must agree.
    """
    if passing.reduce is not log_sum:
        return torch.ones(passing.batch, dtype=torch.bool, device=messages.device)
    onward = messages.clone()
    everyone = torch.ones(passing.batch, dtype=torch.bool, device=messages.device)
    _sweep(passing, run, onward, torch.empty_like(messages), everyone, watch=False)
    at_rest = same_value(passing.value(messages), passing.value(onward), run.tolerance, passing.wiring.num_slots)
    if passing.reach is not None and at_rest.any():
        at_rest = at_rest & (disagreement(passing, messages) <= AGREEMENT * run.tolerance)
    return at_rest


AGREEMENT = 1e3
"""How many tolerances beliefs of factors and nodes may differ by: they multiply messages, and what these are off by."""


def same_value(before: Tensor, after: Tensor, tolerance: float, messages: int) -> Tensor:
    """Whether ln Z has changed by no more than ``tolerance`` per message; two −inf are the same."""
    return (before == after) | ((after - before).abs() <= tolerance * (messages + before.abs()))


def unrolled(model: Model, run: Run, outcome: Outcome) -> Tensor:
    """The messages of a sum-product ``outcome`` once more, with the tape of the iterations that led to them.

    Of the residual schedule, which never repeats, the tape is of as many flooding iterations from the final messages:
    at a fixed point they change nothing, and their derivative is the truncated series of the implicit one.
    """
    return replayed(Passing(model, log_sum), run, outcome, onward=run.schedule == "residual")


def replayed(passing: Passing, run: Run, outcome: Outcome, *, onward: bool) -> Tensor:
    """As :func:`unrolled`, with any message update: from uniform messages, or ``onward`` from the final ones."""
    messages = passing.initial()
    if passing.wiring.is_forest:
        return _two_pass(passing, messages)
    if onward:
        messages = torch.where(_constant(passing)[:, None], messages, outcome.messages)
    sent = torch.empty_like(messages)
    for iteration in range(int(outcome.iterations.max()) if outcome.iterations.numel() else 0):
        _sweep(passing, run, messages, sent, iteration < outcome.iterations, watch=False)
    return messages


def _fresh(passing: Passing, iterations: int, residual: float) -> tuple[Tensor, Tensor, Tensor]:
    device = passing.model.device
    return (
        torch.full(passing.batch, iterations, dtype=torch.int64, device=device),
        torch.full(passing.batch, residual, dtype=passing.dtype, device=device),
        torch.full(passing.batch, residual == 0, dtype=torch.bool, device=device),
    )


def _constant(passing: Passing) -> Tensor:
    """Which slots belong to factors of one node, ``bool [M]``."""
    wiring = passing.wiring
    sizes = [torch.full((len(ls) * f,), len(ls) == 1) for ls, f in zip(wiring.labels, wiring.num_factors, strict=True)]
    return torch.cat(sizes).to(wiring.device) if sizes else torch.zeros(0, dtype=torch.bool)


def _two_pass(passing: Passing, messages: Tensor) -> Tensor:
    sent = torch.empty_like(messages)
    for step in passing.wiring.two_pass:
        passing.send(step, messages, sent)
    return messages


def _sweep(passing: Passing, run: Run, messages: Tensor, sent: Tensor, active: Tensor, *, watch: bool) -> Tensor:
    """One iteration of the active batch entries, in place; the largest change of a probability, ``[*batch]``."""
    steps = passing.wiring.sequential if run.schedule == "sequential" else (passing.wiring.flooding,)
    change = torch.zeros(passing.batch, dtype=passing.dtype, device=messages.device)
    damping = run.damping_for(passing.model)
    frozen = None if active.all() else ~active[..., None, None]
    for step in steps:
        for slots, undamped in passing.update(step, messages, sent):
            old = messages[..., slots, : undamped.shape[-1]]
            new = damped(undamped, old, damping, passing.reduce)
            if watch:
                change = change.maximum(_difference(new, old).flatten(-2).amax(-1))
            messages[..., slots, : new.shape[-1]] = new if frozen is None else torch.where(frozen, old, new)
    return change


def damped(new: Tensor, old: Tensor, damping: float, reduce: Reduce) -> Tensor:
    """``new^(1 − damping) · old^damping``, normalised."""
    return normalised((1 - damping) * new + damping * old, reduce) if damping else new


def _difference(new: Tensor, old: Tensor) -> Tensor:
    return (new.exp() - old.exp()).abs()


def _by_residual(model: Model, run: Run, maximise: bool) -> Outcome:
    """Each batch entry for itself: which message is next depends on the messages."""
    entries = [_solo(model, index) for index in itertools.product(*map(range, model.batch_shape))]
    outcomes = [_most_changed_first(entry, run, maximise) for entry in entries]
    if not outcomes:
        passing = Passing(model, log_sum)
        return Outcome(passing.initial(), *_fresh(passing, 0, 0.0))
    return Outcome(
        *(
            torch.stack(values).reshape(model.batch_shape + values[0].shape)
            for values in zip(*((o.messages, o.iterations, o.residual, o.converged) for o in outcomes), strict=True)
        )
    )


def _most_changed_first(model: Model, run: Run, maximise: bool) -> Outcome:
    """Send, one at a time, the message that would change most (Elidan, McGraw & Koller 2006).

    An iteration is as many messages as flooding sends in one.
    """
    passing = Passing(model, log_max if maximise else log_sum)
    wiring, damping = passing.wiring, run.damping_for(model)
    messages = passing.initial()
    sent, fresh = torch.empty_like(messages), messages.clone()
    pending = messages.new_zeros(wiring.num_slots)

    def listen(step: Step) -> None:
        for slots, new in passing.update(step, messages, sent):
            fresh[slots, : new.shape[-1]] = new
            old = messages[slots, : new.shape[-1]]
            pending[slots] = _difference(damped(new, old, damping, passing.reduce), old).amax(-1)

    listen(wiring.flooding)
    in_one = wiring.num_slots - int(_constant(passing).sum())
    sends = 0
    while sends < run.max_iterations * in_one:
        slot = int(pending.argmax())
        if run.tolerance and pending[slot] <= run.tolerance:
            break
        card = wiring.valid[wiring.slot_node[slot]].sum()
        new, old = fresh[slot, :card], messages[slot, :card]
        messages[slot, :card] = new = damped(new, old, damping, passing.reduce)
        again = damped(fresh[slot, :card], new, damping, passing.reduce)
        pending[slot] = _difference(again, new).amax()  # 0 without damping
        listen(wiring.dependents(slot))
        sends += 1
    iterations, residual, _ = _fresh(passing, math.ceil(sends / in_one), float(pending.max()))
    converged = residual <= run.tolerance
    if run.tolerance and converged:
        converged = steady(passing, run, messages)
    return Outcome(messages, iterations, residual, converged)


def _solo(model: Model, index: tuple[int, ...]) -> Model:
    """One batch entry, with batch shape ``[]``."""

    def at(tensor: Tensor, event: int) -> Tensor:
        if tensor.dim() <= event:
            return tensor
        return tensor.expand(*model.batch_shape, *tensor.shape[tensor.dim() - event :])[index]

    entries = tuple(
        Weighted(at(entry.weight, 1), entry.table) if isinstance(entry, Weighted) else at(entry, len(labels) + 1)
        for entry, labels in zip(model.entries, model.graph.labels, strict=True)
    )
    return Model(model.graph, entries, None if model.observed is None else at(model.observed, 1))
