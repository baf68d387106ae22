"""The scaffold of ops, by a small one: ln Σ_l exp(x_l + b_l), with b shared over the batch or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from lnz.ops.scaffold import Answer, Differentiable, Operator
from lnz.ops.scaffold.batch import Axis
from tests.suite import equal, random_scores


class Given(NamedTuple):
    x: Tensor
    b: Tensor
    kept: Tensor
    power: int


class Left(NamedTuple):
    value: Tensor
    shares: Tensor


def solve(given: Given) -> Left:
    assert not given.x.requires_grad
    scores = torch.where(given.kept, given.power * (given.x + given.b), -torch.inf)
    return Left(scores.logsumexp(1), scores.softmax(1))


def fake(given: Given) -> Left:
    return Left(given.x.new_empty(len(given.x)), torch.empty_like(given.x))


def gradient(weight: Tensor | None, given: Given, left: Left, wanted: Sequence[bool]) -> list[Tensor]:
    each = given.power * left.shares if weight is None else given.power * weight[:, None] * left.shares
    shared = each.sum(0, keepdim=True) if len(given.b) == 1 else each.clone()
    return [each, shared if wanted[1] else each.new_empty(0)]


def marginals(given: Given) -> tuple[Tensor, Tensor]:
    scores = torch.where(given.kept, given.power * (given.x + given.b), -torch.inf)
    return (given.power * scores.softmax(1),) * 2


SHARED = {"b": Axis(shared=True)}
SUM = Differentiable(
    Operator("test_sum", solve, fake, Given, Left, SHARED), scores=2, gradient=gradient, marginals=marginals
)


class Pair(NamedTuple):
    x: Tensor
    b: Tensor


class Product(NamedTuple):
    by_rank: Tensor


def product(given: Pair) -> Product:
    return Product(torch.stack((given.x * given.b, given.x + given.b)))


PRODUCT = Answer(
    Operator(
        "test_product",
        product,
        lambda given: Product(given.x.new_empty(2, *given.x.shape)),
        Pair,
        Product,
        SHARED | {"by_rank": Axis(1)},
    ),
    product,
    scores=2,
)

X, KEPT = random_scores((3, 4), 0), torch.tensor([[True] * 4, [True, False, True, True], [True] * 4])
BIASES = {"shared": random_scores((1, 4), 1), "own": random_scores((3, 4), 2)}


def value(x: Tensor, b: Tensor) -> Tensor:
    given = Given(x, b, KEPT, 2)
    return SUM.value(given, SUM.solve(given))


def shares(x: Tensor, b: Tensor) -> Tensor:
    given = Given(x, b.expand_as(x), KEPT, 2)
    return SUM.gradient(None, given, SUM.solve(given), (False, True))[0]


def answer(x: Tensor, b: Tensor) -> Tensor:
    return PRODUCT(Pair(x, b)).by_rank


def plainly(name: str, x: Tensor, b: Tensor) -> Tensor:
    if name == "answer":
        return product(Pair(x, b)).by_rank
    scores = torch.where(KEPT, 2 * (x + b), -torch.inf)
    return scores.logsumexp(1) if name == "value" else 2 * scores.softmax(1)


FUNCTIONS = {"value": value, "shares": shares, "answer": answer}


@pytest.mark.parametrize("bias", BIASES.values(), ids=BIASES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_derivative(name: str, bias: Tensor) -> None:
    function = FUNCTIONS[name]
    scores, along = (X, bias), (random_scores((3, 4), 3), random_scores(tuple(bias.shape), 4))
    leaves = tuple(x.clone().requires_grad_() for x in scores)
    equal(function(*scores), plainly(name, *scores))
    equal(function(*leaves), plainly(name, *scores))
    assert torch.autograd.gradcheck(function, leaves, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(function, leaves, check_fwd_over_rev=True)

    def total(*scores: Tensor) -> Tensor:
        result = function(*scores)
        return (result * torch.arange(1.0, result.numel() + 1, dtype=result.dtype).view(result.shape).sin()).sum()

    def wanted(*scores: Tensor) -> Tensor:
        result = plainly(name, *scores)
        return (result * torch.arange(1.0, result.numel() + 1, dtype=result.dtype).view(result.shape).sin()).sum()

    tangent = torch.func.jvp(lambda *s: plainly(name, *s), scores, along)[1]
    equal(torch.func.jvp(function, scores, along)[1], tangent)
    for transform in (torch.func.hessian, torch.func.jacfwd, torch.func.jacrev):
        for actual, right in zip(
            torch.utils._pytree.tree_leaves(transform(total, argnums=(0, 1))(*scores)),
            torch.utils._pytree.tree_leaves(transform(wanted, argnums=(0, 1))(*scores)),
            strict=True,
        ):
            equal(actual, right)
    with forward_ad.dual_level():
        dual = function(*(forward_ad.make_dual(x, dx) for x, dx in zip(scores, along, strict=True)))
        equal(forward_ad.unpack_dual(dual).tangent, tangent)


@pytest.mark.parametrize("bias", BIASES.values(), ids=BIASES)
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("mapped", [(0, None), (None, 0), (0, 0), (1, 2)])
def test_vmap(name: str, bias: Tensor, mapped: tuple[int | None, int | None]) -> None:
    function = FUNCTIONS[name]
    several = [
        x if at is None else torch.stack([x, -x, 2 * x, x.flip(1), 0 * x], at)
        for x, at in zip((X, bias), mapped, strict=True)
    ]

    def loss(x: Tensor, b: Tensor) -> Tensor:
        return (function(x, b) ** 2).sum()

    def samples(i: int) -> list[Tensor]:
        return [x if at is None else x.select(at, i) for x, at in zip(several, mapped, strict=True)]

    results = torch.func.vmap(function, mapped)(*several)
    gradients = torch.func.vmap(torch.func.grad(loss, argnums=(0, 1)), mapped)(*several)
    for i in range(5):
        equal(results[i], function(*samples(i)))
        for actual, right in zip(gradients, torch.func.grad(loss, argnums=(0, 1))(*samples(i)), strict=True):
            equal(actual[i], right)
    leaves = [x.clone().requires_grad_() for x in several]
    outside = torch.autograd.grad((torch.func.vmap(function, mapped)(*leaves) ** 2).sum(), leaves)
    for actual, each, at in zip(outside, gradients, mapped, strict=True):
        equal(actual, each.sum(0) if at is None else each.movedim(0, at))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_compiled_and_exported(name: str) -> None:
    leaves = tuple(x.clone().requires_grad_() for x in (X, BIASES["shared"]))

    def losses(x: Tensor, b: Tensor) -> Tensor:
        return (FUNCTIONS[name](x, b) ** 2).sum()

    torch.compiler.reset()
    compiled = torch.compile(losses, fullgraph=True, backend="aot_eager")
    equal(compiled(*leaves), losses(*leaves))
    for actual, right in zip(
        torch.autograd.grad(compiled(*leaves), leaves), torch.autograd.grad(losses(*leaves), leaves), strict=True
    ):
        equal(actual, right)
    with torch.no_grad():
        equal(compiled(*leaves), losses(*leaves))

    class Module(torch.nn.Module):
        def forward(self, x: Tensor, b: Tensor) -> Tensor:
            return FUNCTIONS[name](x, b)

    exported = torch.export.export(Module(), (X, BIASES["shared"])).module()
    equal(exported(X, BIASES["shared"]), FUNCTIONS[name](X, BIASES["shared"]))


@pytest.mark.parametrize("bias", BIASES.values(), ids=BIASES)
def test_opcheck(bias: Tensor) -> None:
    given = Given(X, bias, KEPT, 2)
    left = SUM.solve(given)
    torch.library.opcheck(SUM.solve.op, tuple(given), raise_exception=True)
    for weight in (None, torch.ones(3, dtype=torch.float64)):
        for wanted in ([True, True], [True, False]):
            torch.library.opcheck(SUM.gradient_op, (weight, *given, *left, wanted), raise_exception=True)


def test_one_pass_serves_many_gradients() -> None:
    leaves = tuple(x.clone().requires_grad_() for x in (X, BIASES["shared"]))
    given = Given(*leaves, KEPT, 2)
    left = SUM.solve(given)
    assert not any(x.requires_grad for x in left)
    first = torch.autograd.grad(SUM.value(given, left).sum(), leaves)
    for actual, right in zip(torch.autograd.grad(SUM.value(given, left).sum(), leaves), first, strict=True):
        assert torch.equal(actual, right)


def test_a_tensor_that_is_the_same_for_all_must_not_be_mapped() -> None:
    class Constant(NamedTuple):
        x: Tensor
        prior: Tensor

    class Sum(NamedTuple):
        total: Tensor

    plus = Operator(
        "test_plus",
        lambda given: Sum(given.x + given.prior),
        lambda given: Sum(torch.empty_like(given.x)),
        Constant,
        Sum,
        axes={"prior": Axis(None)},
    )
    prior = torch.arange(4.0)
    equal(torch.func.vmap(lambda x: plus(Constant(x, prior)).total)(torch.ones(2, 3, 4)), torch.ones(2, 3, 4) + prior)
    with pytest.raises(ValueError, match="expected a tensor that is the same for all entries, got one per sample"):
        torch.func.vmap(lambda prior: plus(Constant(torch.ones(3, 4), prior)).total)(torch.ones(2, 4))


def test_settings_come_after_tensors() -> None:
    class Wrong(NamedTuple):
        power: int
        x: Tensor

    with pytest.raises(TypeError, match="Wrong: expected fields that are tensors before all others"):
        Operator("test_wrong", lambda given: given, lambda given: given, Wrong, Wrong)


def test_named_tuples_in_named_tuples() -> None:
    class Power(NamedTuple):
        base: Tensor
        exponent: int

    class Scaled(NamedTuple):
        of: Power
        by: Tensor
        sign: int

    class Result(NamedTuple):
        value: Tensor

    def compute(given: Scaled) -> Result:
        return Result(given.sign * given.by * given.of.base**given.of.exponent)

    globals().update(Power=Power)  # where annotations are looked up
    op = Operator("test_nested", compute, lambda given: Result(torch.empty_like(given.by)), Scaled, Result)
    assert op.given.names == ("base", "by", "exponent", "sign")
    x, y = torch.arange(3.0), torch.ones(3)
    given = Scaled(Power(x, 2), 2 * y, -1)
    assert op.given.unflatten(op.given.flatten(given)) == given
    equal(op(given).value, -2 * x**2)
    equal(
        torch.vmap(lambda x: op(Scaled(Power(x, 2), 2 * y, -1)).value)(torch.stack((x, y))),
        -2 * torch.stack((x, y)) ** 2,
    )

    def slope(given: Scaled) -> list[Tensor]:
        return [given.sign * given.by * given.of.exponent * given.of.base ** (given.of.exponent - 1)]

    def gradient(weight: Tensor | None, given: Scaled, done: Result, wanted: Sequence[bool]) -> list[Tensor]:
        return [x if weight is None else weight * x for x in slope(given)]

    def value(x: Tensor) -> Tensor:
        given = Scaled(Power(x, 3), torch.full_like(x, 2.0), -1)
        return power.value(given, power.solve(given))

    power = Differentiable(op, scores=1, gradient=gradient, marginals=slope)
    leaf = torch.arange(3.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(value, leaf, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(value, leaf)
    equal(torch.vmap(torch.func.grad(lambda x: value(x).sum()))(torch.stack((x, y))), -6 * torch.stack((x, y)) ** 2)
    equal(torch.compile(value, fullgraph=True, backend="aot_eager")(leaf), value(leaf))
    answer = Answer(op, compute, scores=1)
    equal(torch.func.grad(lambda x: answer(Scaled(Power(x, 3), y, 1)).value.sum())(x), 3 * x**2)
