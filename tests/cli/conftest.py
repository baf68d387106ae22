"""What the tests of the command line share."""

import logging
from collections.abc import Iterator

import pytest


def _is_no_compiling(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("compiling ")


@pytest.fixture(autouse=True)
def compiled_or_not() -> Iterator[None]:
    """What a command says in these tests does not depend on what lies in the cache of kernels."""
    logger = logging.getLogger("lnz")
    logger.addFilter(_is_no_compiling)
    yield
    logger.removeFilter(_is_no_compiling)
