"""Autoregressive models: each label given all labels before it, by one softmax, as language models are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NoReturn, Self

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from lnz.checks import (
    as_labels,
    as_sample_shape,
    check_broadcast,
    check_generator,
    check_integer,
    check_labels,
    check_number,
    check_scores,
    check_tensor,
    concrete,
    working_dtype,
)
from lnz.distributions.beam_search import beam_search
from lnz.errors import InfeasibleError
from lnz.ops.conditionals.random import categorical
from lnz.typing import IGNORE, SampleShape


class Autoregressive(Distribution):
    """P(y) = Π_t softmax(scores of step t, given y_0 … y_{t−1})[y_t]: a fully observed directed model.

    Every factor is a softmax over labels, so that ln P(y) is a sum of T log-probabilities and its gradient is plain
    backpropagation; no Z over sequences is involved. The price is that what needs one has no exact algorithm:
    marginals, conditioning on anything but a prefix, the best sequence.

    A sequence is ``int64 [max_length]``. Without ``end`` it has ``max_length`` labels. With it, a sequence goes up to
    its first ``end``, that included, or is cut off after ``max_length`` labels; −100 behind. Probabilities sum to 1.

    Args:
        module: ``module(prefix, *context)``, causal. ``prefix`` is ``int64 [R, t]``: the symbol ``start``, then the
            first t − 1 labels. It returns scores ``[R, t, num_labels]``, those at step s of the label that comes after
            ``prefix[:, : s + 1]``; −inf forbids. Scores that look ahead make ``log_prob`` wrong; :meth:`sample` and
            :meth:`beam` notice and raise. What differs from call to call (dropout) does so here: call ``eval()`` first.
        num_labels: L.
        max_length: T, the largest number of labels.
        end: the label that ends a sequence; ``None``, all are of ``max_length`` labels.
        start: the first symbol of every prefix. ``None`` is ``num_labels``, a symbol of its own, for which an
            embedding needs L + 1 rows; a label may serve (many language models start with ``end``).
        context: what the sequences are conditioned on, one tensor or several ``[B, …]``; the batch shape is then
            ``[B]``, without it ``[]``. ``module`` gets them with one row per row of ``prefix``.
        validate_args: check the values of arguments and scores, as in ``torch.distributions``.

    Raises:
        TypeError, ValueError: arguments of the wrong type or value; on use, scores of the wrong shape, NaN, or of a
            module that looks ahead.
        InfeasibleError: on use, a step at which every label has a score of −inf.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012  (torch declares it a property)
    _validate_args = __debug__

    def __init__(
        self,
        module: Callable[..., Tensor],
        num_labels: int,
        max_length: int,
        *,
        end: int | None = None,
        start: int | None = None,
        context: Tensor | Sequence[Tensor] | None = None,
        validate_args: bool | None = None,
    ) -> None:
        if not callable(module):
            raise TypeError(f"module: expected a callable of prefixes [R, t], got {type(module).__name__}")
        check_integer("num_labels", num_labels)
        check_integer("max_length", max_length)
        if end is not None:
            check_integer("end", end, least=0)
            if not end < num_labels:
                raise ValueError(f"end: expected a label in [0, {num_labels}), got {end}")
        if start is not None:
            check_integer("start", start, least=0)
        self.module, self.num_labels, self.max_length = module, num_labels, max_length
        self.end, self.start = end, num_labels if start is None else start
        self.context = _contexts(context)
        batch_shape = self.context[0].shape[:1] if self.context else torch.Size()
        validate = type(self)._validate_args if validate_args is None else validate_args
        super().__init__(batch_shape, torch.Size((max_length,)), validate_args=False)
        self._validate_args = validate
        self._prefix: Tensor | None = None

    def log_prob(self, value: Tensor) -> Tensor:
        """ln P(y), ``[*batch]``, float32 or wider, of sequences ``[*batch, t]`` with t up to ``max_length``.

        Of a row that stops before its end, by −100 or by being short, it is the probability of what it starts with.
        What comes after ``end`` may hold anything. One call of the module.

        Raises:
            ValueError: −100 before an observed label, which would be a sum over exponentially many sequences.
        """
        y = self._sequences("y", value)
        return self._of_rows(y.reshape(-1, self.max_length), self._rows(y.shape[:-1])).reshape(y.shape[:-1])

    def condition(self, y: Tensor) -> Self:
        """The distribution of sequences that start with ``y [*batch, t]``, −100 where nothing is known yet.

        Raises:
            ValueError: as :meth:`log_prob`; a batch shape that is not that of the context.
        """
        prefix = self._sequences("y", y)
        if self.context and prefix.shape[:-1] != self.batch_shape:
            raise ValueError(f"y: expected shape [{self.batch_shape[0]}, t], got {list(y.shape)}")
        if self._prefix is not None:
            before, now = torch.broadcast_tensors(self._prefix, prefix)
            if ((before != IGNORE) & (now != IGNORE) & (before != now)).any():
                raise InfeasibleError("y: expected no contradiction with the prefix that was conditioned on before")
            prefix = torch.where(now == IGNORE, before, now)
        new = self.__class__.__new__(self.__class__)
        new.__dict__.update(self.__dict__)
        new._prefix, new._batch_shape = prefix, prefix.shape[:-1]
        return new

    @torch.no_grad()
    def sample(self, sample_shape: SampleShape = (), generator: torch.Generator | None = None) -> Tensor:
        """Independent sequences ``[*sample_shape, *batch, max_length]``, −100 after their end.

        Ancestral: a label at a time, each by a call of the module on the whole prefix, up to ``max_length`` calls, and
        one that checks that the module does not look ahead (left out with ``validate_args=False``).
        """
        check_generator(generator)
        shape = as_sample_shape(sample_shape) + self.batch_shape
        rows, device = self._rows(shape), self._device
        y = torch.full((shape.numel(), self.max_length), IGNORE, device=device)
        total = torch.zeros(len(y), dtype=torch.float64, device=device)
        going = torch.ones_like(total, dtype=torch.bool)
        for step in range(self.max_length if len(y) else 0):
            log_q = self._next(y[:, :step], rows, going)
            label = categorical(log_q, generator)
            y[:, step] = label.where(going, IGNORE)
            total = total + _at(log_q, label).masked_fill(~going, 0.0)
            if self.end is not None:
                going = going & (label != self.end)
                if not going.any():
                    break
        self._require_causal(y, rows, total)
        return y.reshape(*shape, self.max_length)

    @torch.no_grad()
    def beam(self, k: int, *, length_exponent: float = 0.0) -> tuple[Tensor, Tensor]:
        """Likely sequences ``[k, *batch, max_length]`` and their ln P ``[k, *batch]``, best first, by beam search.

        Each step extends k prefixes by every label and keeps the k likeliest; ended ones compete by
        ln P / (number of labels, ``end`` included) ** ``length_exponent``. The search goes on until no prefix can win
        any more. No sequence is certain to be the best unless k is so large that none was dropped, L^(T−1). Where fewer
        than k were found, the rest are −100 with −inf.

        Args:
            k: how many prefixes are kept, and sequences returned. 1 is greedy.
            length_exponent: of the length rule, at least 0: 0 compares probabilities, which favours short sequences;
                1 compares means per label (Wu et al. 2016 discuss values in between).
        """
        check_integer("k", k)
        check_number("length_exponent", length_exponent, "a number of at least 0", lambda x: 0 <= x < float("inf"))
        rows = tuple(each.repeat_interleave(k, 0) for each in self._rows(self.batch_shape))
        empty = torch.full((self.batch_shape.numel(), k, self.max_length), IGNORE, device=self._device)
        found, score = beam_search(
            lambda y, going: self._next(y, rows, going), empty, self.num_labels, self.end, length_exponent
        )
        self._require_causal(found.flatten(0, 1), rows, score.double().flatten())
        shape = (k, *self.batch_shape)
        return found.movedim(1, 0).reshape(*shape, self.max_length), score.T.reshape(shape)

    def entropy(self) -> NoReturn:
        """Sums over all sequences are out of reach: raises, and names an estimate."""
        raise TypeError("Autoregressive has no exact entropy; an estimate: -p.log_prob(p.sample((n,))).mean(0)")

    # ---------------------------------------------------------------------------------------------------------------

    @property
    def _device(self) -> torch.device:
        parameters = getattr(self.module, "parameters", lambda: ())
        tensors = [*self.context, *([] if self._prefix is None else [self._prefix]), *parameters()]
        return tensors[0].device if tensors else torch.device("cpu")

    def _rows(self, shape: torch.Size) -> tuple[Tensor, ...]:
        """Of the prefix and the context, one row for each of ``shape [*, *batch]``."""
        prefix = torch.full((self.max_length,), IGNORE, device=self._device) if self._prefix is None else self._prefix
        rows = prefix.expand(*shape, -1).reshape(-1, self.max_length)
        return rows, *(c.expand(*shape, *c.shape[1:]).reshape(shape.numel(), *c.shape[1:]) for c in self.context)

    def _sequences(self, name: str, y: Tensor) -> Tensor:
        """``y`` as ``int64 [*batch, max_length]``, −100 after the end, checked."""
        check_tensor(name, y)
        y = as_labels(name, y)
        if not y.dim() or y.shape[-1] > self.max_length:
            raise ValueError(f"{name}: expected shape [*batch, t] with t up to {self.max_length}, got {list(y.shape)}")
        check_broadcast(name, y.shape[:-1], self.batch_shape)
        y = torch.nn.functional.pad(y, (0, self.max_length - y.shape[-1]), value=IGNORE)
        if self.end is not None:
            ends = (y == self.end).cumsum(-1)
            y = y.masked_fill((ends - (y == self.end).long()) > 0, IGNORE)
        check_labels(name, y, self.num_labels)
        seen = y != IGNORE
        if concrete(y) and (seen[..., 1:] & ~seen[..., :-1]).any():
            raise ValueError(
                f"{name}: expected −100 behind the last observed label only, got one before it: what is unobserved in "
                "between takes a sum over exponentially many sequences"
            )
        return y.expand(*torch.broadcast_shapes(y.shape[:-1], self.batch_shape), -1)

    def _of_rows(self, y: Tensor, rows: tuple[Tensor, ...]) -> Tensor:
        """:meth:`log_prob` of rows ``[R, max_length]``, with what :meth:`_rows` has for them."""
        seen = y != IGNORE
        steps = max(1, int(seen.sum(-1).max())) if concrete(y) and len(y) else self.max_length
        y, seen = y[:, :steps], seen[:, :steps]
        log_q = self._log_conditionals(y[:, :-1], rows[1:], seen)
        terms = _at(_clamped(log_q, rows[0][:, :steps]), y.clamp(min=0))
        return terms.masked_fill(~seen, 0.0).sum(-1).to(log_q.dtype)

    def _next(self, y: Tensor, rows: tuple[Tensor, ...], going: Tensor) -> Tensor:
        """ln P of the label after ``y [R, t]``, ``[R, L]``; rows that are not ``going`` may hold anything."""
        used = torch.zeros(len(y), y.shape[1] + 1, dtype=torch.bool, device=y.device)
        used[:, -1] = going
        log_q = self._log_conditionals(y, rows[1:], used)[:, -1]
        return _clamped(log_q, rows[0][:, y.shape[1]])

    def _log_conditionals(self, y: Tensor, context: tuple[Tensor, ...], used: Tensor) -> Tensor:
        """ln P of the labels of all steps of ``y [R, t]`` and of the next one, ``[R, t + 1, L]``, where ``used``."""
        first = y.new_full((len(y), 1), self.start)
        prefix = torch.cat((first, y.masked_fill(y == IGNORE, self.start)), 1)
        scores = self.module(prefix, *context)
        check_tensor("module", scores)
        if scores.shape != (*prefix.shape, self.num_labels):
            raise ValueError(
                f"module: expected scores of shape {[*prefix.shape, self.num_labels]}, of rows, steps and labels, got "
                f"{list(scores.shape)}"
            )
        scores = torch.where(used.unsqueeze(-1), scores, 0.0)
        check_scores("module", scores, values=self._validate_args)
        if self._validate_args and concrete(scores) and torch.isneginf(scores.detach()).all(-1).any():
            step = torch.isneginf(scores.detach()).all(-1).nonzero()[0, 1].item()
            raise InfeasibleError(f"module: every label has a score of −inf at step {step}")
        return scores.to(working_dtype(scores.dtype)).log_softmax(-1)

    def _require_causal(self, y: Tensor, rows: tuple[Tensor, ...], steps: Tensor) -> None:
        """Raise where ln P of whole rows is not the sum of what was found step by step, in a module that repeats."""
        if not self._validate_args or not len(y):
            return
        found = ~torch.isneginf(steps)
        whole = self._of_rows(y, rows)
        tolerance = torch.finfo(whole.dtype).eps ** 0.5 * (1 + steps.abs())
        away = found & ((whole - steps).abs() > tolerance)
        if away.any() and torch.equal(whole, self._of_rows(y, rows)):
            raise ValueError(
                "module: expected scores that depend on earlier labels only, got others for a sequence as a whole than "
                "label by label: does it look ahead?"
            )

    def __repr__(self) -> str:
        end = "" if self.end is None else f", end {self.end}"
        batch = f", batch_shape={list(self.batch_shape)}" if self.batch_shape else ""
        return f"Autoregressive({self.num_labels} labels, {self.max_length} steps{end}{batch})"


def _contexts(context: Tensor | Sequence[Tensor] | None) -> tuple[Tensor, ...]:
    if context is None:
        return ()
    given = (context,) if isinstance(context, Tensor) else tuple(context)
    rows: object = "B"
    for number, each in enumerate(given):
        check_tensor(f"context[{number}]", each)
        if not each.dim() or (number and len(each) != rows):
            raise ValueError(f"context[{number}]: expected shape [{rows}, …], got {list(each.shape)}")
        rows = len(each)
    return given


def _at(table: Tensor, labels: Tensor) -> Tensor:
    """``table [*, L]`` at ``labels [*]``, in float64."""
    return table.gather(-1, labels.unsqueeze(-1)).squeeze(-1).double()


def _clamped(log_q: Tensor, seen: Tensor) -> Tensor:
    """``log_q [*, L]``, sure of the labels ``seen [*]`` where these are not −100."""
    sure = torch.arange(log_q.shape[-1], device=log_q.device) == seen.unsqueeze(-1)
    known = torch.zeros_like(log_q).masked_fill(~sure, -torch.inf)
    return torch.where((seen != IGNORE).unsqueeze(-1), known, log_q)
