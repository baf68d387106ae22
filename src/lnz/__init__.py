"""lnz: the exponential softmax for networks whose outputs interact."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from lnz import inference, metrics, objectives
from lnz.calibration import Temperature, calibrate
from lnz.distributions import (
    CTC,
    HMM,
    MRF,
    PCFG,
    Autoregressive,
    BayesNet,
    ConstituencyTree,
    DependencyTree,
    LinearChain,
    SecondOrderChain,
    SemiMarkov,
    Softmax,
    SpanningTree,
    Transducer,
    factorial_hmm,
    latent_class,
    mixture,
    naive_bayes,
    unrolled,
)
from lnz.errors import (
    ConvergenceWarning,
    FailedEstimateError,
    FormatError,
    InfeasibleError,
    IntractableError,
    LnzError,
)
from lnz.graphs import FactorGraph
from lnz.inference.variational.bounds import Bounds, bounds
from lnz.scores import Weighted

if TYPE_CHECKING:
    from lnz import hf as hf
    from lnz import io as io
    from lnz import nn as nn
    from lnz import plot as plot
    from lnz import sklearn as sklearn
    from lnz.nn.refinement import refine as refine
    from lnz.nn.word_alignment import align as align

__version__ = version("lnz")
__all__ = [
    "CTC",
    "HMM",
    "MRF",
    "PCFG",
    "Autoregressive",
    "BayesNet",
    "Bounds",
    "ConstituencyTree",
    "ConvergenceWarning",
    "DependencyTree",
    "FactorGraph",
    "FailedEstimateError",
    "FormatError",
    "InfeasibleError",
    "IntractableError",
    "LinearChain",
    "LnzError",
    "SecondOrderChain",
    "SemiMarkov",
    "Softmax",
    "SpanningTree",
    "Temperature",
    "Transducer",
    "Weighted",
    "bounds",
    "calibrate",
    "factorial_hmm",
    "inference",
    "latent_class",
    "metrics",
    "mixture",
    "naive_bayes",
    "objectives",
    "unrolled",
]


_LAZY = ("hf", "io", "nn", "plot", "sklearn")  # not in __all__: with them, import * would need the extra packages
_FUNCTIONS = {"align": "lnz.nn.word_alignment", "refine": "lnz.nn.refinement"}


def __getattr__(name: str) -> Any:
    """What is not needed to compute with distributions, imported when first asked for."""
    if name in _LAZY:
        return import_module(f"lnz.{name}")
    if name in _FUNCTIONS:
        return getattr(import_module(_FUNCTIONS[name]), name)
    raise AttributeError(f"module 'lnz' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY, *_FUNCTIONS})
