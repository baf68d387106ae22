"""Calling a compiled kernel once per share of its work, on several threads, without the interpreter.

``launch`` lays the kernel's arguments into a record on its stack and has a team of threads work on it. Each thread
takes the number of the next share from an atomic counter until there is none, so that neither the size of the team nor
the order of its threads matters. A share that raises ends the others' search, and the error leaves through ``launch``.

A launcher calls its kernel through an address. Linked into it, the kernel would be compiled a second time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit, typeof
from numba.core import cgutils, types
from numba.core.dispatcher import Dispatcher
from numba.extending import intrinsic

from lnz.ops.jit.cpu.cache import KernelCache

_UNLINKED = 1  # what a launcher returns that does not know the address of its kernel

_INT, _CODE, _POINTER = ir.IntType(64), ir.IntType(32), ir.IntType(8).as_pointer()
_BODY = ir.FunctionType(ir.VoidType(), [_POINTER])
_TEAM = ir.FunctionType(ir.VoidType(), [_BODY.as_pointer(), _POINTER, _CODE, _CODE])  # GOMP_parallel
_COUNTER, _KERNEL, _COUNT, _PARTS, _UNIT, _FAILED, _STATUS, _ERROR, _ARGUMENTS = range(9)  # fields of the record


def launcher(kernel: Dispatcher) -> Callable[..., int]:
    """``launch(team, threads, counter, link, count, parts, unit, arguments)`` of a kernel.

    Args of it:
        team: the address of ``GOMP_parallel``; 0 runs on the calling thread alone.
        threads: of the team.
        counter: the address of an int64 that several calls take their shares from; 0, one of this call.
        link: the address of the compiled kernel, which the launcher then knows for good; or 0.
        count, parts, unit: of a :class:`~lnz.ops.jit.threads.Partition`.
        arguments: a tuple, what the kernel takes after ``first`` and ``last``.

    Returns 0; or 1, if it did nothing because it does not know the address of its kernel.
    """

    def launch(team, threads, counter, link, count, parts, unit, arguments):
        return _launch(team, threads, counter, link, count, parts, unit, arguments)  # type: ignore[call-arg]

    launch.__module__ = kernel.py_func.__module__
    launch.__qualname__ = f"{kernel.py_func.__qualname__}.launch"
    dispatcher: Any = njit(nogil=True)(launch)
    dispatcher._cache = KernelCache(launch)
    return dispatcher


def address_of(kernel: Dispatcher, arguments: tuple[Any, ...]) -> int:
    """Of the kernel compiled for ``arguments``, as native code calls it."""
    signature = (types.int64, types.int64, *typeof(arguments).types)  # pyright: ignore[reportAttributeAccessIssue]
    kernel.compile(signature)
    compiled = kernel.overloads[signature]
    if compiled.signature.return_type != types.none:
        raise TypeError(f"{kernel.py_func.__name__}: expected a kernel that returns nothing")
    return compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)


@intrinsic
def _launch(typingctx, team, threads, counter, link, count, parts, unit, arguments):
    integers = [types.int64] * 7
    return types.int64(*integers, arguments), _generate


def _generate(context, builder, signature, args):
    team, threads, counter, link, count, parts, unit, arguments = args
    kinds = [types.int64, types.int64, *signature.args[-1].types]
    kernel_type = context.call_conv.get_function_type(types.none, kinds)
    error_type = kernel_type.args[1].pointee
    record_type = ir.LiteralStructType(
        [_INT.as_pointer(), kernel_type.as_pointer(), _INT, _INT, _INT, _INT, _CODE, error_type, arguments.type]
    )
    known = cgutils.add_global_variable(builder.module, _INT, builder.module.get_unique_name("kernel"))
    known.initializer = _INT(0)  # pyright: ignore[reportAttributeAccessIssue]
    known.linkage = "internal"
    with builder.if_then(builder.icmp_signed("!=", link, _INT(0))):
        builder.store(link, known)
    address = builder.load(known)
    result = cgutils.alloca_once_value(builder, _INT(_UNLINKED))
    own = cgutils.alloca_once(builder, _INT)
    record = cgutils.alloca_once(builder, record_type)
    with builder.if_then(builder.icmp_signed("!=", address, _INT(0))):
        builder.store(_INT(0), own)
        builder.store(_INT(0), result)
        shared = builder.inttoptr(counter, _INT.as_pointer())
        chosen = builder.select(builder.icmp_signed("==", counter, _INT(0)), own, shared)
        kernel = builder.inttoptr(address, kernel_type.as_pointer())
        fields = [chosen, kernel, count, parts, unit, _INT(0), _CODE(0), error_type(None), arguments]
        for index, value in enumerate(fields):
            builder.store(value, _field(builder, record, index))
        body = _body(context, builder.module, record_type, kernel_type, kinds)
        data = builder.bitcast(record, _POINTER)
        with builder.if_else(builder.icmp_signed("==", team, _INT(0))) as (alone, together):
            with alone:
                builder.call(body, [data])
            with together:
                start = builder.inttoptr(team, _TEAM.as_pointer())
                builder.call(start, [body, data, builder.trunc(threads, _CODE), _CODE(0)])
        failed = builder.icmp_signed("!=", builder.load(_field(builder, record, _FAILED)), _INT(0))
        with cgutils.if_unlikely(builder, failed):
            code, error = (builder.load(_field(builder, record, index)) for index in (_STATUS, _ERROR))
            context.call_conv.return_status_propagate(
                builder, context.call_conv._get_return_status(builder, code, error)
            )
    return builder.load(result)


def _body(context, module, record_type, kernel_type, kinds):
    """What every thread of a team runs: shares of the record, until there are no more."""
    function = ir.Function(module, _BODY, module.get_unique_name("lnz.shares"))
    function.linkage = "internal"
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    record = builder.bitcast(function.args[0], record_type.as_pointer())
    counter, kernel, count, parts, unit, *_, arguments = (
        builder.load(_field(builder, record, index)) for index in range(len(record_type.elements))
    )
    packed = [builder.extract_value(arguments, index) for index in range(len(kinds) - 2)]
    packer = context.call_conv._get_arg_packer(kinds)
    nothing = cgutils.alloca_once(builder, kernel_type.args[0].pointee)
    error = cgutils.alloca_once(builder, kernel_type.args[1].pointee)
    units = builder.sdiv(builder.sub(builder.add(count, unit), _INT(1)), unit)

    def cut(part):
        end = builder.mul(unit, builder.sdiv(builder.mul(units, part), parts))
        return builder.select(builder.icmp_signed("<", end, count), end, count)

    take, work, fail, end = (function.append_basic_block(name) for name in ("take", "work", "fail", "end"))
    builder.branch(take)
    builder.position_at_end(take)
    part = builder.atomic_rmw("add", counter, _INT(1), "monotonic")
    builder.cbranch(builder.icmp_signed("<", part, parts), work, end)
    builder.position_at_end(work)
    values = [cut(part), cut(builder.add(part, _INT(1))), *packed]
    code = builder.call(kernel, [nothing, error, *packer.as_arguments(builder, values)])
    status = context.call_conv._get_return_status(builder, code, builder.load(error))
    builder.cbranch(status.is_error, fail, take)
    builder.position_at_end(fail)
    builder.atomic_rmw("xchg", counter, parts, "monotonic")
    earlier = builder.atomic_rmw("xchg", _field(builder, record, _FAILED), _INT(1), "monotonic")
    with builder.if_then(builder.icmp_signed("==", earlier, _INT(0))):
        builder.store(code, _field(builder, record, _STATUS))
        builder.store(status.excinfoptr, _field(builder, record, _ERROR))
    builder.branch(end)
    builder.position_at_end(end)
    builder.ret_void()
    return function


def _field(builder, record, index):
    return cgutils.gep_inbounds(builder, record, 0, index)
