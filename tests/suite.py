"""The suite that every distribution inherits: it supplies small random instances, the suite compares with brute force.

A subclass defines ``instances`` (a Hypothesis strategy of :class:`Instance`) and ``example`` (one small instance with
finite scores, a batch of two or more, and more than one labelling each), ``empties`` (an instance per axis that may
have a size of 0) and, where it has any, ``padding`` (of the example); and says what its kind lacks by design.
"""

from __future__ import annotations

from tests.suites.backends import Backends
from tests.suites.bad_input import BadInput
from tests.suites.derivatives import Derivatives
from tests.suites.family import (
    IGNORE,
    TOLERANCE,
    Family,
    Instance,
    batch_shapes,
    equal,
    impossibilities,
    random_scores,
    seeds,
    tensors,
    written_out,
)
from tests.suites.precision import Precision
from tests.suites.samples import Samples
from tests.suites.sizes import Sizes
from tests.suites.values import Values

__all__ = [
    "IGNORE",
    "TOLERANCE",
    "DistributionSuite",
    "Family",
    "Instance",
    "batch_shapes",
    "equal",
    "impossibilities",
    "random_scores",
    "seeds",
    "tensors",
    "written_out",
]


class DistributionSuite(Values, Samples, Derivatives, BadInput, Backends, Precision, Sizes):
    """See the module's docstring."""
