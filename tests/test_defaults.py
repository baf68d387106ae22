"""The defaults that the documentation promises: of inference methods, and of layers."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

import lnz
from lnz import nn
from lnz.inference.base import Method

METHODS = {
    "AnnealedImportance": {"steps": 1000, "chains": 64, "betas": None, "seed": 0, "exact": False},
    "Auto": {"time_limit": 60.0, "seed": 0, "progress": None, "exact": False},
    "BeliefPropagation": {
        "max_iterations": 100,
        "tolerance": None,
        "damping": None,
        "schedule": "flooding",
        "exact": False,
    },
    "ClusterTempering": {
        "sweeps": 500,
        "rungs": 16,
        "hottest": 0.3,
        "coldest": 0.02,
        "runs": 2,
        "start": None,
        "seed": 0,
        "exact": False,
    },
    "DiscreteLangevin": {
        "chains": 16,
        "warmup": 100,
        "sweeps": 100,
        "seed": 0,
        "max_r_hat": 1.05,
        "step_size": 0.5,
        "adjusted": True,
        "exact": False,
    },
    "Enumeration": {"max_table": 16777216, "exact": True},
    "Exact": {"max_table": 4294967296, "max_messages": 536870912, "search_seconds": 10.0, "exact": True},
    "Gibbs": {
        "chains": 16,
        "warmup": 100,
        "sweeps": 100,
        "seed": 0,
        "max_r_hat": 1.05,
        "order": "chromatic",
        "blocks": None,
        "exact": False,
    },
    "GibbsWithGradients": {
        "chains": 16,
        "warmup": 100,
        "sweeps": 100,
        "seed": 0,
        "max_r_hat": 1.05,
        "proposals": 1,
        "exact": False,
    },
    "GraphCuts": {"truncate": False, "max_rounds": 100, "exact": False},
    "HamiltonianMonteCarlo": {
        "chains": 16,
        "warmup": 100,
        "sweeps": 100,
        "seed": 0,
        "max_r_hat": 1.05,
        "step_size": 0.3,
        "leapfrog_steps": 8,
        "max_table": 67108864,
        "exact": False,
    },
    "IntegerProgram": {"time_limit": 60.0, "max_variables": 500000, "start": None, "exact": True},
    "IteratedConditionalModes": {
        "restarts": 1,
        "start": None,
        "block_table": None,
        "patience": 20,
        "seed": 0,
        "exact": False,
    },
    "MeanField": {
        "max_iterations": 200,
        "tolerance": None,
        "damping": 0.0,
        "schedule": "coordinate",
        "restarts": 1,
        "seed": 0,
        "exact": False,
    },
    "MetropolisHastings": {
        "chains": 16,
        "warmup": 100,
        "sweeps": 100,
        "seed": 0,
        "max_r_hat": 1.05,
        "proposal": None,
        "order": "random",
        "exact": False,
    },
    "ParallelTempering": {
        "chains": 16,
        "warmup": 100,
        "sweeps": 100,
        "seed": 0,
        "max_r_hat": 1.05,
        "temperatures": (1.0, 1.5, 2.25, 3.375),
        "exact": False,
    },
    "SimulatedAnnealing": {
        "sweeps": 200,
        "hottest": 0.5,
        "coldest": 0.01,
        "moves": "nodes",
        "chains": 4,
        "start": None,
        "seed": 0,
        "exact": False,
    },
    "SwendsenWang": {"chains": 16, "warmup": 100, "sweeps": 100, "seed": 0, "max_r_hat": 1.05, "exact": False},
    "TRWS": {"max_iterations": 1000, "tolerance": 0.001, "time_limit": None, "exact": False},
    "TreeReweighted": {
        "max_iterations": 200,
        "tolerance": None,
        "damping": None,
        "appearance": "uniform",
        "steps": 10,
        "exact": False,
    },
}

LAYERS = {
    "BlockGibbs": {
        "order": "chromatic",
        "blocks": None,
        "chains": 16,
        "warmup": 100,
        "sweeps": 100,
        "seed": 0,
        "max_r_hat": 1.05,
    },
    "BoltzmannMachine": {"num_hidden": 0, "edges": "full"},
    "CTCHead": {"blank": 0, "collapse_repeats": True, "bias": True},
    "ConvNet": {"width": 16, "dilations": (1, 1)},
    "GaussianEmission": {"covariance": None, "prior_variance": 1.0},
    "GridMRF": {"edges": "shared", "neighbours": 4, "inference": None},
    "LinearChainCRF": {
        "batch_first": False,
        "tags": None,
        "scheme": None,
        "class_weights": None,
        "ignore_index": None,
        "latent_tags": False,
    },
    "LogMel": {"num_mels": 40, "hop": 0.01, "window": 0.025, "dynamic_range": 80.0, "normalise": True},
    "InputCategoricalEmission": {"steps": 20},
    "InputTransition": {"steps": 20},
    "NeuralBayesNet": {"steps": 20},
    "NeuralEmission": {"state_prior": None, "steps": 20, "takes_inputs": False},
    "SpeechEncoder": {"width": 96, "stride": 2, "dilations": (1, 2, 4, 8), "recurrent": 0},
    "transition_mask": {"scheme": "BIO", "dtype": None},
}


def fields(kind: type) -> dict[str, object]:
    """Settings that have a default, and whether answers are exact."""
    found = {field.name: field.default for field in dataclasses.fields(kind) if field.init}
    return {name: value for name, value in found.items() if value is not dataclasses.MISSING} | {"exact": kind.exact}


@pytest.mark.parametrize("name", METHODS)
def test_methods(name: str) -> None:
    assert fields(getattr(lnz.inference, name)) == METHODS[name]


def test_every_method_is_in_the_table() -> None:
    public = {name for name, kind in vars(lnz.inference).items() if isinstance(kind, type) and issubclass(kind, Method)}
    abstract = {name for name in public if inspect.isabstract(getattr(lnz.inference, name))}
    assert public - abstract == set(METHODS)


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str) -> None:
    parameters = inspect.signature(getattr(nn, name)).parameters.values()
    assert {p.name: p.default for p in parameters if p.default is not p.empty} == LAYERS[name]
