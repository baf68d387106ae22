"""The public surface: the names that the design fixes are there, exported, documented and annotated."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from types import ModuleType

import pytest
import torch

import lnz
from lnz.distributions import StructuredDistribution
from lnz.inference import Method

SURFACE = {
    "lnz": {
        "Autoregressive",
        "CTC",
        "ConstituencyTree",
        "ConvergenceWarning",
        "FactorGraph",
        "FailedEstimateError",
        "FormatError",
        "HMM",
        "InfeasibleError",
        "IntractableError",
        "LinearChain",
        "LnzError",
        "MRF",
        "PCFG",
        "SecondOrderChain",
        "SemiMarkov",
        "Softmax",
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
    },
    "lnz.inference": {
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
        "MetropolisHastings",
        "ParallelTempering",
        "Progress",
        "SimulatedAnnealing",
        "SwendsenWang",
        "TRWS",
        "TreeReweighted",
    },
    "lnz.objectives": {
        "contrastive_divergence",
        "em",
        "hinge",
        "label_adjustment",
        "nll",
        "pseudolikelihood",
    },
    "lnz.distributions": {
        "HMM",
        "LinearChain",
        "MRF",
        "SecondOrderChain",
        "SemiMarkov",
        "Softmax",
        "StructuredDistribution",
    },
}
MEMBERS = {
    "argmax",
    "batch_shape",
    "condition",
    "entropy",
    "event_shape",
    "log_count",
    "log_partition",
    "log_prob",
    "marginals",
    "mode",
    "sample",
    "score",
    "scores",
    "tempered",
    "topk",
}

modules = pytest.mark.parametrize("module", [importlib.import_module(name) for name in SURFACE], ids=list(SURFACE))


def public_objects() -> list[tuple[str, object]]:
    found = {}
    for name in SURFACE:
        module = importlib.import_module(name)
        for member in module.__all__:
            value = getattr(module, member)
            if not isinstance(value, ModuleType):
                found[f"{value.__module__}.{member}"] = value
    return sorted(found.items())


def public_members(cls: type) -> list[str]:
    """The methods and properties that lnz gives ``cls``; the settings of a dataclass are documented with it."""
    settings = {setting.name for setting in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set()
    defined = {name for base in cls.__mro__ if base.__module__.startswith("lnz") for name in vars(base)}
    return sorted(name for name in defined - settings if not name.startswith("_"))


def doc(cls: type, name: str) -> str | None:
    return getattr(vars(cls).get(name), "__doc__", None)


objects = pytest.mark.parametrize("value", [v for _, v in public_objects()], ids=[n for n, _ in public_objects()])


@modules
def test_the_designed_names_are_exported(module: ModuleType) -> None:
    missing = SURFACE[module.__name__] - set(module.__all__)
    assert not missing


@modules
def test_every_exported_name_exists_and_every_public_name_is_exported(module: ModuleType) -> None:
    assert sorted(set(module.__all__)) == sorted(module.__all__)
    for name in module.__all__:
        assert hasattr(module, name), f"{module.__name__}.__all__ names {name}, which does not exist"
    own = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", "").startswith("lnz")
    }
    assert own <= set(module.__all__)


@objects
def test_public_objects_are_documented(value: object) -> None:
    assert inspect.getdoc(value), f"{value} has no docstring"
    if inspect.isclass(value):
        bare = [name for name in public_members(value) if not any(doc(base, name) for base in value.__mro__)]
        assert not bare, f"{value} has members without a docstring"


@objects
def test_public_objects_are_annotated(value: object) -> None:
    functions = [value] if inspect.isfunction(value) else []
    if inspect.isclass(value):
        members = [inspect.getattr_static(value, name) for name in public_members(value)]
        functions = [getattr(member, "fget", member) for member in members]  # the getters of properties
    for function in filter(inspect.isfunction, functions):
        signature = inspect.signature(function)
        bare = [
            p.name for p in signature.parameters.values() if p.annotation is p.empty and p.name not in {"self", "cls"}
        ]
        assert not bare, f"{function.__qualname__} has parameters without an annotation"
        assert signature.return_annotation is not signature.empty, f"{function.__qualname__} has no return annotation"


@pytest.mark.parametrize(
    "family",
    [
        lnz.Softmax,
        lnz.LinearChain,
        lnz.MRF,
        lnz.HMM,
        lnz.SemiMarkov,
        lnz.SecondOrderChain,
        lnz.ConstituencyTree,
        lnz.PCFG,
    ],
    ids=lambda family: family.__name__,
)
def test_every_family_is_a_torch_distribution_with_the_common_members(family: type) -> None:
    assert issubclass(family, torch.distributions.Distribution)
    assert issubclass(family, StructuredDistribution)
    assert set(dir(family)) >= MEMBERS
    assert not inspect.isabstract(family)


@pytest.mark.parametrize("name", sorted(SURFACE["lnz.inference"] - {"Chains", "Progress"}))
def test_every_method_is_a_frozen_dataclass_with_defaults(name: str) -> None:
    method = getattr(lnz.inference, name)
    assert issubclass(method, Method)
    assert dataclasses.is_dataclass(method)
    assert method() == method()
    for setting in dataclasses.fields(method):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(method(), setting.name, None)


def test_errors_are_caught_by_their_class_and_by_the_builtin_one() -> None:
    assert issubclass(lnz.IntractableError, lnz.LnzError)
    assert issubclass(lnz.IntractableError, RuntimeError)
    assert issubclass(lnz.InfeasibleError, lnz.LnzError)
    assert issubclass(lnz.InfeasibleError, ValueError)
    assert issubclass(lnz.FailedEstimateError, lnz.LnzError)
    assert issubclass(lnz.FailedEstimateError, RuntimeError)
    assert not issubclass(lnz.FailedEstimateError, lnz.InfeasibleError)
    assert issubclass(lnz.FormatError, lnz.LnzError)
    assert issubclass(lnz.FormatError, ValueError)
    assert issubclass(lnz.ConvergenceWarning, UserWarning)


def test_version_is_that_of_the_package() -> None:
    assert lnz.__version__.count(".") == 2
