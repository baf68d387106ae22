"""Families of structured distributions, one per file."""

from lnz.distributions.autoregressive import Autoregressive
from lnz.distributions.base import StructuredDistribution
from lnz.distributions.bayes_net import BayesNet
from lnz.distributions.constituency_tree import ConstituencyTree
from lnz.distributions.ctc import CTC
from lnz.distributions.ctc_alignments import CTCAlignments
from lnz.distributions.dependency_tree import DependencyTree
from lnz.distributions.hmm import HMM
from lnz.distributions.latent_class import latent_class, naive_bayes
from lnz.distributions.linear_chain import LinearChain
from lnz.distributions.mixture import mixture
from lnz.distributions.mrf import MRF
from lnz.distributions.pcfg import PCFG
from lnz.distributions.pixels import PixelMRF
from lnz.distributions.second_order_chain import SecondOrderChain
from lnz.distributions.semi_markov import SemiMarkov
from lnz.distributions.softmax import Softmax
from lnz.distributions.spanning_tree import SpanningTree
from lnz.distributions.transducer import Transducer
from lnz.distributions.transducer_alignments import TransducerAlignments
from lnz.distributions.unrolled import factorial_hmm, unrolled

__all__ = [
    "CTC",
    "HMM",
    "MRF",
    "PCFG",
    "Autoregressive",
    "BayesNet",
    "CTCAlignments",
    "ConstituencyTree",
    "DependencyTree",
    "LinearChain",
    "PixelMRF",
    "SecondOrderChain",
    "SemiMarkov",
    "Softmax",
    "SpanningTree",
    "StructuredDistribution",
    "Transducer",
    "TransducerAlignments",
    "factorial_hmm",
    "latent_class",
    "mixture",
    "naive_bayes",
    "unrolled",
]
