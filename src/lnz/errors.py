"""The errors and warnings of lnz.

Wrong shapes and values raise ``ValueError``, wrong types ``TypeError``, as in ``torch.distributions``; what is
peculiar to structured models has a class here, so that a caller can catch exactly that.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence


class LnzError(Exception):
    """Base of every error that is peculiar to lnz."""


class IntractableError(LnzError, RuntimeError):
    """Exact inference was planned and found too large, before any table was allocated.

    Attributes:
        treewidth: number of nodes in the largest table, less one.
        table_bytes: size of that largest table for one batch entry, in bytes.
        alternatives: what to pass instead.
    """

    def __init__(self, message: str, *, treewidth: int, table_bytes: int, alternatives: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.treewidth = treewidth
        self.table_bytes = table_bytes
        self.alternatives = tuple(alternatives)


class InfeasibleError(LnzError, ValueError):
    """No labelling has a finite score, or the given one is impossible.

    Attributes:
        entries: the flat indices of the batch entries concerned.
    """

    def __init__(self, message: str, *, entries: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.entries = tuple(entries)


class FailedEstimateError(LnzError, RuntimeError):
    """An approximate method has no estimate to give; that says nothing about the model."""


class FormatError(LnzError, ValueError):
    """A file is truncated, malformed, or does not belong to the model it is used with."""


class ConvergenceWarning(UserWarning):
    """An iterative method stopped at its iteration limit; its answers are not those of a fixed point."""


class MissingPackageWarning(UserWarning):
    """An optional package is not installed, and what it would do is done by slower means; the message names both."""


class NormalizationWarning(UserWarning):
    """Probabilities in a file do not sum to 1, within the rounding of their digits, and were normalized."""


class LatentTagsWarning(UserWarning):
    """−100 among the tags of a CRF layer, summed over as latent; most other losses skip such steps."""


def warn(message: str, category: type[Warning]) -> None:
    """Warn at the line that called lnz, however deep in it this is (torch may lie between two of its frames)."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ("lnz", "torch"):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
