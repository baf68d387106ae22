"""lnz: the exponential softmax for networks whose outputs interact."""

from importlib.metadata import version

from lnz import inference, metrics, objectives
from lnz.distributions import CTC, HMM, MRF, LinearChain, SecondOrderChain, SemiMarkov, Softmax, Transducer
from lnz.errors import ConvergenceWarning, FormatError, InfeasibleError, IntractableError, LnzError
from lnz.graphs import FactorGraph
from lnz.inference.bounds import Bounds, bounds
from lnz.scores import Weighted

__version__ = version("lnz")
__all__ = [
    "CTC",
    "HMM",
    "MRF",
    "Bounds",
    "ConvergenceWarning",
    "FactorGraph",
    "FormatError",
    "InfeasibleError",
    "IntractableError",
    "LinearChain",
    "LnzError",
    "SecondOrderChain",
    "SemiMarkov",
    "Softmax",
    "Transducer",
    "Weighted",
    "bounds",
    "inference",
    "metrics",
    "objectives",
]
