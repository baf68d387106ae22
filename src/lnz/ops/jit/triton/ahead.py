"""Compiling kernels for cards that are not there, and reading from the binary what they need.

A launch that was recorded (:func:`lnz.ops.jit.triton.launch.recording`) is compiled as it would be there: with the same
types, constants and alignment. Triton brings the assembler along, so no card and no driver is needed.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
import triton.knobs
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from lnz.ops.jit.triton import interpreted
from lnz.ops.jit.triton.launch import Launch

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
SHARED_MEMORY = {"sm_80": 163 * 1024, "sm_90": 227 * 1024, "sm_100": 227 * 1024, "gfx942": 64 * 1024}
"""Bytes that one program may have."""

_TYPES = {
    torch.float32: "fp32", torch.float64: "fp64", torch.bfloat16: "bf16", torch.float16: "fp16", torch.int64: "i64",
    torch.int32: "i32", torch.int16: "i16", torch.uint8: "u8", torch.bool: "i1", torch.int8: "i8",
}  # fmt: skip


class Resources(NamedTuple):
    """What a program of a compiled kernel takes.

    Attributes:
        registers: of a thread.
        spills: bytes of registers that do not fit, of a thread.
        shared: bytes of shared memory.
    """

    registers: int
    spills: int
    shared: int


def compiled(what: Launch, target: str) -> Resources:
    """Compile a recorded launch for one of :data:`TARGETS`.

    Raises:
        RuntimeError: kernels are interpreted in this process, and then cannot be compiled.
    """
    if interpreted():
        raise RuntimeError("TRITON_INTERPRET: expected it unset, for compiling kernels, got it set")
    names, signature, constants, attributes = what.kernel.arg_names, {}, {}, {}
    given = dict(zip(names, what.arguments, strict=False)) | what.constants
    for i, name in enumerate(names):
        value, signature[name] = given[name], "constexpr"
        if isinstance(value, Tensor):
            signature[name] = "*" + _TYPES[value.dtype]
        elif name not in what.constants and isinstance(value, int) and value != 1:  # Triton compiles ones in
            signature[name] = "i32" if value < 2**31 else "i64"
        else:
            constants[(i,)] = value
        if isinstance(value, Tensor) or (signature[name] != "constexpr" and value % 16 == 0):
            attributes[(i,)] = [["tt.divisibility", 16]]
    source = ASTSource(what.kernel, signature, constants, attributes)
    return _resources(triton.compile(source, target=TARGETS[target], options={"num_warps": what.warps}))


def _resources(kernel: Any) -> Resources:
    shared = kernel.metadata.shared
    if "amdgcn" in kernel.asm:
        found = dict(re.findall(r"\.(vgpr_count|vgpr_spill_count|sgpr_spill_count):\s+(\d+)", kernel.asm["amdgcn"]))
        spills = int(found["vgpr_spill_count"]) + int(found["sgpr_spill_count"])
        return Resources(int(found["vgpr_count"]), 4 * spills, shared)
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder) / "kernel.cubin"
        binary.write_bytes(kernel.asm["cubin"])
        tool = triton.knobs.nvidia.cuobjdump.path
        report = subprocess.run([tool, "--dump-resource-usage", binary], check=True, capture_output=True, text=True)
    found = dict(re.findall(r"(REG|STACK):(\d+)", report.stdout))
    return Resources(int(found["REG"]), int(found["STACK"]), shared)
