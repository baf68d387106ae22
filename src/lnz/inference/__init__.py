"""Inference methods over factor graphs: frozen dataclasses of settings, one algorithm per file."""

from lnz.inference.annealed_importance import AnnealedImportance
from lnz.inference.base import Method, Solution
from lnz.inference.belief_propagation import BeliefPropagation
from lnz.inference.discrete_langevin import DiscreteLangevin
from lnz.inference.enumeration import Enumeration
from lnz.inference.exact import Exact
from lnz.inference.gibbs import Gibbs
from lnz.inference.gibbs_with_gradients import GibbsWithGradients
from lnz.inference.graph_cuts import GraphCuts
from lnz.inference.hamiltonian_monte_carlo import HamiltonianMonteCarlo
from lnz.inference.integer_program import IntegerProgram
from lnz.inference.iterated_conditional_modes import IteratedConditionalModes
from lnz.inference.mean_field import MeanField
from lnz.inference.metropolis_hastings import MetropolisHastings
from lnz.inference.mixing import effective_sample_size, r_hat
from lnz.inference.parallel_tempering import ParallelTempering
from lnz.inference.sampler import Chains, Sampler
from lnz.inference.simulated_annealing import SimulatedAnnealing
from lnz.inference.swendsen_wang import SwendsenWang
from lnz.inference.tree_reweighted import TreeReweighted
from lnz.inference.trws import TRWS

__all__ = [
    "TRWS",
    "AnnealedImportance",
    "BeliefPropagation",
    "Chains",
    "DiscreteLangevin",
    "Enumeration",
    "Exact",
    "Gibbs",
    "GibbsWithGradients",
    "GraphCuts",
    "HamiltonianMonteCarlo",
    "IntegerProgram",
    "IteratedConditionalModes",
    "MeanField",
    "Method",
    "MetropolisHastings",
    "ParallelTempering",
    "Sampler",
    "SimulatedAnnealing",
    "Solution",
    "SwendsenWang",
    "TreeReweighted",
    "effective_sample_size",
    "r_hat",
]
