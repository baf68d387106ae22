"""The cases, one per file. A new one is added to :data:`ALL`."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch

from benchmarks.case import Case
from benchmarks.cases.chain_nll import ChainNLL
from benchmarks.cases.ctc import CTCLoss, ForcedAlignment, LinearCTCLoss
from benchmarks.cases.dependency_tree import DependencyTrees
from benchmarks.cases.evidence_batch import EvidenceBatch
from benchmarks.cases.exact_marginals import ExactMarginals
from benchmarks.cases.feature_crf import FeatureCRF
from benchmarks.cases.gibbs import Gibbs
from benchmarks.cases.grid_belief_propagation import GridBeliefPropagation
from benchmarks.cases.grid_variational import GridVariational
from benchmarks.cases.hmm import HMMSmoothing
from benchmarks.cases.hmm_em import HMMEM
from benchmarks.cases.latent_class import LatentClass
from benchmarks.cases.network_em import NetworkEM
from benchmarks.cases.semi_markov import SemiMarkov
from benchmarks.cases.transducer import TransducerLoss
from benchmarks.cases.tree_growth import TreeGrowth
from benchmarks.cases.trees import Constituency, Grammar
from benchmarks.cases.viterbi import Viterbi

ALL: tuple[Case, ...] = (
    GridBeliefPropagation(),
    GridVariational(),
    ExactMarginals(),
    EvidenceBatch(),
    NetworkEM(),
    LatentClass(),
    ChainNLL(),
    Viterbi(),
    FeatureCRF(),
    SemiMarkov(),
    DependencyTrees(),
    Gibbs(),
    CTCLoss(),
    LinearCTCLoss(),
    ForcedAlignment(),
    Constituency(),
    Grammar(),
    TreeGrowth(),
    HMMSmoothing(),
    HMMEM(),
    TransducerLoss(),
)


def select(patterns: Sequence[str], cases: Sequence[Case] = ALL) -> list[tuple[Case, str]]:
    """The cases and shapes that any of ``patterns`` (``CASE`` or ``CASE/SHAPE``, with wildcards) matches; all for none.

    Raises:
        ValueError: a pattern that matches nothing.
    """
    every = [(case, shape) for case in cases for shape in case.shapes]
    if not patterns:
        return every

    def matches(pattern: str, case: Case, shape: str) -> bool:
        return fnmatch(case.name, pattern) or fnmatch(f"{case.name}/{shape}", pattern)

    for pattern in patterns:
        if not any(matches(pattern, *pair) for pair in every):
            raise ValueError(f"{pattern}: no such case or shape; there are {', '.join(case.name for case in cases)}")
    return [pair for pair in every if any(matches(pattern, *pair) for pattern in patterns)]
