"""What every test shares: the development data, seeds, threads and Hypothesis's profiles."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

pytest.register_assert_rewrite("tests.suite", "tests.oracles")

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start
if not torch.accelerator.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # kernels for accelerators run on the CPU

# Same examples in every run; the first call of a kernel compiles it, so no deadline per example. The shared suite is
# inherited by many classes, which is what `differing_executors` warns of.
_COMMON = {
    "deadline": None,
    "derandomize": True,
    "suppress_health_check": [HealthCheck.differing_executors, HealthCheck.too_slow, HealthCheck.data_too_large],
}
settings.register_profile("default", max_examples=10, **_COMMON)
settings.register_profile("ci", max_examples=50, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

torch.set_num_threads(1)  # tensors are tiny here, and pytest-xdist has a process per core


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Start every test from the same global seed (Lightning and ``torch.nn`` initialisers draw from it)."""
    torch.manual_seed(0)


@pytest.fixture
def generator() -> torch.Generator:
    """A seeded generator of the test's own."""
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The development data beside the checkout; a test that needs it is skipped where it is missing."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the development data in ../shared/data beside the checkout")
    return folder
