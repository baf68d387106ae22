"""Inference methods over factor graphs: frozen dataclasses of settings, one algorithm per file."""

from lnz.inference.base import Method, Solution
from lnz.inference.exact.enumeration import Enumeration
from lnz.inference.exact.exact import Exact
from lnz.inference.map.auto import Auto, Progress
from lnz.inference.map.cluster_tempering import ClusterTempering
from lnz.inference.map.graph_cuts import GraphCuts
from lnz.inference.map.integer_program import IntegerProgram
from lnz.inference.map.iterated_conditional_modes import IteratedConditionalModes
from lnz.inference.map.simulated_annealing import SimulatedAnnealing
from lnz.inference.map.trws import TRWS
from lnz.inference.sampling.annealed_importance import AnnealedImportance
from lnz.inference.sampling.discrete_langevin import DiscreteLangevin
from lnz.inference.sampling.gibbs import Gibbs
from lnz.inference.sampling.gibbs_with_gradients import GibbsWithGradients
from lnz.inference.sampling.hamiltonian_monte_carlo import HamiltonianMonteCarlo
from lnz.inference.sampling.metropolis_hastings import MetropolisHastings
from lnz.inference.sampling.mixing import effective_sample_size, r_hat
from lnz.inference.sampling.parallel_tempering import ParallelTempering
from lnz.inference.sampling.sampler import Chains, Sampler
from lnz.inference.sampling.swendsen_wang import SwendsenWang
from lnz.inference.variational.belief_propagation import BeliefPropagation
from lnz.inference.variational.mean_field import MeanField
from lnz.inference.variational.tree_reweighted import TreeReweighted

__all__ = [
    "TRWS",
    "AnnealedImportance",
    "Auto",
    "BeliefPropagation",
    "Chains",
    "ClusterTempering",
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
    "Progress",
    "Sampler",
    "SimulatedAnnealing",
    "Solution",
    "SwendsenWang",
    "TreeReweighted",
    "effective_sample_size",
    "r_hat",
]
