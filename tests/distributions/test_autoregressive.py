"""Autoregressive: probabilities against enumeration, ancestral samples, beam search, prefixes, and its checks."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

import lnz
from tests.suite import equal, random_scores

L, T = 3, 4


class Recurrent(nn.Module):
    """A small causal network of labels, a start symbol and a context of two numbers."""

    def __init__(self, seed: int = 0, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embedding, self.cell, self.out = nn.Embedding(L + 1, 6), nn.GRU(8, 6, batch_first=True), nn.Linear(6, L)
        self.to(dtype)
        with torch.no_grad():
            self.out.weight *= 6

    def forward(self, prefix: Tensor, context: Tensor | None = None) -> Tensor:
        x = self.embedding(prefix)
        extra = x.new_zeros(*x.shape[:-1], 2) if context is None else context[:, None].expand(*x.shape[:-1], 2)
        return self.out(self.cell(torch.cat((x, extra), -1))[0])


def model(end: int | None = None, **settings: object) -> lnz.Autoregressive:
    return lnz.Autoregressive(Recurrent(), L, T, end=end, **settings)  # type: ignore[arg-type]


def sequences(end: int | None) -> Tensor:
    """All of them, −100 after their end."""
    found = set()
    for y in itertools.product(range(L), repeat=T):
        stop = y.index(end) + 1 if end in y else T
        found.add(y[:stop] + (-100,) * (T - stop))
    return torch.tensor(sorted(found))


def by_hand(module: nn.Module, y: list[int], context: Tensor | None = None) -> float:
    """Σ ln softmax, label by label, of the labels before the first −100."""
    labels = y[: y.index(-100)] if -100 in y else y
    total = 0.0
    for step, label in enumerate(labels):
        prefix = torch.tensor([[L, *labels[:step]]])
        scores = module(prefix) if context is None else module(prefix, context[None])
        total += scores[0, -1].log_softmax(-1)[label].item()
    return total


ends = pytest.mark.parametrize("end", [None, 1])


@ends
def test_log_prob_is_the_chain_rule_and_sums_to_one(end: int | None) -> None:
    p, y = model(end), sequences(end)
    log_q = p.log_prob(y)
    equal(log_q.exp().sum(), torch.ones((), dtype=torch.float64))
    equal(log_q, torch.tensor([by_hand(p.module, row) for row in y.tolist()], dtype=torch.float64))
    equal(p.log_prob(y.reshape(1, -1, T))[0], log_q)
    assert len(y) == (L**T if end is None else 1 + 2 + 4 + 8 * L)


def test_the_gradient_is_that_of_local_softmaxes() -> None:
    """∂(−ln P)/∂scores = p − y at every step that counts, 0 at the others."""
    scores = random_scores((2, T, L), 0).requires_grad_()
    y = torch.tensor([[0, 2, 1, 0], [2, 0, -100, -100]])
    p = lnz.Autoregressive(lambda prefix: scores[:, : prefix.shape[1]], L, T)
    (gradient,) = torch.autograd.grad(-p.log_prob(y).sum(), scores)
    onehot = nn.functional.one_hot(y.clamp(min=0), L)
    equal(gradient, (scores.softmax(-1) - onehot) * (y >= 0)[..., None])


@ends
def test_what_a_row_starts_with_has_the_probability_of_all_that_go_on_from_it(end: int | None) -> None:
    p, every = model(end), sequences(end)
    for start in ([0], [2, 0], [0, 2, 2]):
        fits = (every[:, : len(start)] == torch.tensor(start)).all(-1)
        wanted = p.log_prob(every[fits]).logsumexp(0)
        equal(p.log_prob(torch.tensor(start)), wanted)
        equal(p.log_prob(torch.tensor([*start, *[-100] * (T - len(start))])), wanted)
    equal(p.log_prob(torch.full((T,), -100)), torch.zeros((), dtype=torch.float64))


def test_what_comes_after_the_end_may_hold_anything() -> None:
    p = model(1)
    equal(p.log_prob(torch.tensor([0, 1, 77, -3])), p.log_prob(torch.tensor([0, 1])))


@ends
def test_samples_follow_it(end: int | None) -> None:
    p, every = model(end), sequences(end)
    drawn = p.sample((20, 1000), generator=torch.Generator().manual_seed(0))
    assert drawn.shape == (20, 1000, T)
    count = (drawn.reshape(-1, 1, T) == every).all(-1).double().sum(0)
    assert count.sum() == 20_000
    wanted = 20_000 * p.log_prob(every).exp()
    common = wanted > 5
    chi = ((count - wanted)[common] ** 2 / wanted[common]).sum()
    freedom = int(common.sum()) - 1
    assert chi < freedom + 4 * math.sqrt(2 * freedom)
    again = p.sample((20, 1000), generator=torch.Generator().manual_seed(0))
    assert torch.equal(drawn, again)


@ends
@pytest.mark.parametrize("exponent", [0.0, 0.7, 1.0])
def test_a_wide_beam_finds_the_best_sequences(end: int | None, exponent: float) -> None:
    p, every = model(end), sequences(end)
    log_q = p.log_prob(every)
    rank = log_q / (every >= 0).sum(-1) ** exponent
    order = rank.sort(descending=True).indices
    found, scores = p.beam(L**T, length_exponent=exponent)
    assert torch.equal(found[: len(every)], every[order])
    equal(scores[: len(every)], log_q[order])
    assert (found[len(every) :] == -100).all()
    assert torch.isneginf(scores[len(every) :]).all()


def test_a_narrow_beam_returns_probabilities_of_what_it_returns_and_one_is_greedy() -> None:
    for end in (None, 1):
        p = model(end)
        found, scores = p.beam(3)
        equal(scores, p.log_prob(found))
        assert (scores.diff() <= 0).all()
    greedy, _ = model().beam(1)
    labels: list[int] = []
    for _ in range(T):
        labels.append(int(Recurrent()(torch.tensor([[L, *labels]]))[0, -1].argmax()))
    assert greedy[0].tolist() == labels


def test_beams_of_a_batch_are_those_of_its_entries() -> None:
    context = random_scores((5, 2), 1)
    p = model(1, context=context)
    found, scores = p.beam(4, length_exponent=1.0)
    assert found.shape == (4, 5, T)
    for entry in range(5):
        one, of_one = model(1, context=context[entry : entry + 1]).beam(4, length_exponent=1.0)
        assert torch.equal(one[:, 0], found[:, entry])
        equal(of_one[:, 0], scores[:, entry])


def test_contexts_go_with_their_rows() -> None:
    context = random_scores((3, 2), 1)
    p = model(context=context)
    y = torch.randint(L, (7, 3, T), generator=torch.Generator().manual_seed(0))
    wanted = [[by_hand(p.module, y[s, b].tolist(), context[b]) for b in range(3)] for s in range(7)]
    equal(p.log_prob(y), torch.tensor(wanted, dtype=torch.float64))
    one = [by_hand(p.module, y[0, 0].tolist(), each) for each in context]
    equal(p.log_prob(y[0, 0]), torch.tensor(one, dtype=torch.float64))
    assert p.batch_shape == (3,)
    assert p.sample((6,)).shape == (6, 3, T)
    assert p.sample((0,)).shape == (0, 3, T)
    several = lnz.Autoregressive(lambda prefix, a, b: p.module(prefix, a + b), L, T, context=(context, 0 * context))
    equal(several.log_prob(y), p.log_prob(y))


@ends
def test_a_prefix_is_conditioned_on(end: int | None) -> None:
    p, every = model(end), sequences(end)
    prefix = torch.tensor([2, 0])
    q = p.condition(prefix)
    fits = (every[:, :2] == prefix).all(-1)
    wanted = torch.where(fits, p.log_prob(every) - p.log_prob(prefix), -torch.inf)
    equal(q.log_prob(every), wanted)
    assert (q.sample((200,))[:, :2] == prefix).all()
    found, scores = q.beam(int(fits.sum()))
    equal(scores, q.log_prob(found))
    equal(scores.exp().sum(), torch.ones((), dtype=torch.float64))
    longer = q.condition(torch.tensor([-100]))
    equal(longer.log_prob(every), wanted)
    ragged = p.condition(torch.tensor([[2, 0, 2], [0, -100, -100]]))
    assert ragged.batch_shape == (2,)
    drawn = ragged.sample((50,), generator=torch.Generator().manual_seed(0))
    assert (drawn[:, 0, :3] == torch.tensor([2, 0, 2])).all()
    assert (drawn[:, 1, 0] == 0).all()
    assert drawn[:, 1, 1].unique().numel() > 1
    with pytest.raises(lnz.InfeasibleError, match="no contradiction with the prefix"):
        q.condition(torch.tensor([2, 1]))


def test_a_label_may_be_the_start_and_half_precision_is_added_up_in_float32() -> None:
    module = Recurrent(dtype=torch.bfloat16)
    p = lnz.Autoregressive(module, L, T, end=1, start=1)
    assert p.log_prob(torch.tensor([0, 1])).dtype == torch.float32
    assert p.sample((5,)).shape == (5, T)
    scores = module(torch.tensor([[1, 0]]))[0].float().log_softmax(-1)
    equal(p.log_prob(torch.tensor([0, 1])), scores[0, 0] + scores[1, 1])


def test_impossible_labels_are_never_drawn() -> None:
    def no_repeats(prefix: Tensor) -> Tensor:
        before = nn.functional.one_hot(prefix, L + 1)[..., :L].cumsum(1)
        return torch.zeros(before.shape).masked_fill(before > 0, -torch.inf)

    p = lnz.Autoregressive(no_repeats, L, L)
    drawn = p.sample((300,), generator=torch.Generator().manual_seed(0))
    assert (drawn.sort(-1).values == torch.arange(L)).all()
    _, scores = p.beam(10)
    equal(scores[:6], torch.full((6,), -math.log(6.0)))
    assert torch.isneginf(scores[6:]).all()
    assert p.log_prob(torch.tensor([0, 0, 1])) == -math.inf
    with pytest.raises(lnz.InfeasibleError, match="module: every label has a score of −inf at step 3"):
        lnz.Autoregressive(no_repeats, L, L + 1).sample((2,))


class LooksAhead(Recurrent):
    def forward(self, prefix: Tensor, context: Tensor | None = None) -> Tensor:
        return (
            super().forward(prefix) + prefix.double().mean(1)[:, None, None] * torch.tensor([1.0, 0.0, -1.0]).double()
        )


def test_a_module_that_looks_ahead_is_found_out() -> None:
    p = lnz.Autoregressive(LooksAhead(), L, T)
    for call in (lambda: p.sample((20,)), lambda: p.beam(3)):
        with pytest.raises(ValueError, match="module: expected scores that depend on earlier labels only"):
            call()
    lnz.Autoregressive(LooksAhead(), L, T, validate_args=False).sample((20,))
    dropout = nn.Sequential(Recurrent(), nn.Dropout(0.5))  # differs from call to call: nothing can be said
    lnz.Autoregressive(dropout, L, T).sample((20,))
    lnz.Autoregressive(dropout.eval(), L, T).sample((20,))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: lnz.Autoregressive(None, L, T), TypeError, "module: expected a callable"),  # type: ignore[arg-type]
        (lambda: model(3), ValueError, r"end: expected a label in \[0, 3\), got 3"),
        (lambda: model(start=-1), ValueError, "start: expected an integer of at least 0, got -1"),
        (
            lambda: model(context=[torch.zeros(2, 2), torch.zeros(3)]),
            ValueError,
            r"context\[1\]: expected shape \[2, …\]",
        ),
        (lambda: model().log_prob(torch.tensor([0, -100, 1])), ValueError, "y: expected −100 behind the last observed"),
        (
            lambda: model().log_prob(torch.zeros(T + 1).long()),
            ValueError,
            r"y: expected shape \[\*batch, t\] with t up",
        ),
        (lambda: model().log_prob(torch.tensor([3])), ValueError, r"y: expected labels in \[0, 3\)"),
        (lambda: model().log_prob(torch.tensor([0.0])), TypeError, "y: expected a torch.Tensor of integers"),
        (lambda: model().log_prob([0]), TypeError, "y: expected a torch.Tensor, got list"),  # type: ignore[arg-type]
        (lambda: model().beam(0), ValueError, "k: expected a positive integer, got 0"),
        (lambda: model().beam(2, length_exponent=-1), ValueError, "length_exponent: expected a number of at least 0"),
        (lambda: model().entropy(), TypeError, "Autoregressive has no exact entropy; an estimate"),
        (
            lambda: lnz.Autoregressive(nn.Embedding(4, 2), L, T).sample(),
            ValueError,
            r"module: expected scores of shape \[1, 1, 3\], of rows, steps and labels, got \[1, 1, 2\]",
        ),
        (
            lambda: lnz.Autoregressive(lambda prefix: torch.full((*prefix.shape, L), torch.nan), L, T).sample(),
            ValueError,
            "module: 3 of 3 scores are NaN",
        ),
        (
            lambda: model(context=torch.zeros(2, 2)).condition(torch.zeros(3, 1).long()),
            ValueError,
            "y: expected a batch shape that broadcasts",
        ),
    ],
)
def test_arguments_that_make_no_sense(call: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()  # type: ignore[operator]


def test_its_repr_is_short() -> None:
    assert repr(model(1, context=torch.zeros(2, 2))) == "Autoregressive(3 labels, 4 steps, end 1, batch_shape=[2])"
