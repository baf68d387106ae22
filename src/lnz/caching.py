"""Values computed once, in ways that ``torch.compile`` can trace and that do not import the compiler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, overload

Value = TypeVar("Value")
Function = TypeVar("Function", bound=Callable[..., Any])


def constant(function: Function) -> Function:
    """``torch.compiler.assume_constant_result``, which would import the compiler: longer than all of torch takes."""
    function._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]
    return function


class cached_property(Generic[Value]):  # noqa: N801  (named as what it stands for)
    """``functools.cached_property`` without its lock (Python 3.11 has one), which the compiler cannot trace."""

    def __init__(self, compute: Callable[[Any], Value]) -> None:
        self.compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type) -> Value: ...
    def __get__(self, instance: object | None, owner: type | None = None) -> Any:
        if instance is None:
            return self
        value = self.compute(instance)
        setattr(instance, self.name, value)  # shadows this descriptor, which has no __set__
        return value
