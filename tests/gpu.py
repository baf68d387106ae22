"""What the tests of Triton kernels share: the interpreter, and memory that is full of NaN before it is written."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


def require_interpreter() -> None:
    """Skip a test unless kernels run on CPU tensors (``tests/conftest.py`` sees to it)."""
    pytest.importorskip("triton", reason="needs Triton: pip install 'lnz[gpu]'")
    from lnz.ops.jit.triton import interpreted

    if not interpreted():
        pytest.skip("needs TRITON_INTERPRET=1 set before a kernel is imported")


@pytest.fixture
def interpreter() -> None:
    """Kernels run on CPU tensors."""
    require_interpreter()


@pytest.fixture
def poisoned() -> Iterator[None]:
    """Whatever is allocated without being filled holds NaN, or the largest integer."""
    torch.use_deterministic_algorithms(True)
    before, torch.utils.deterministic.fill_uninitialized_memory = (
        torch.utils.deterministic.fill_uninitialized_memory,
        True,
    )
    yield
    torch.utils.deterministic.fill_uninitialized_memory = before
    torch.use_deterministic_algorithms(False)
