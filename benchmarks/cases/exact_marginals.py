"""Bayes nets, one query: the marginals of all nodes without evidence."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

import lnz
from benchmarks.case import OURS, Contender, Numbers, Workload, require
from benchmarks.data import NETWORKS, RANDOM, bif, networks


class ExactMarginals:
    name = "exact-marginals"
    title = "All marginals of a Bayes net, one query"
    summary = (
        "The exact marginals of every node, no evidence, float64. Every library reads the same BIF file beforehand. "
        "Making an elimination order or a junction tree is part of the query where the contender says “planned anew”, "
        "and was done beforehand where it does not (lnz keeps its plan with the graph; a kept engine of pyAgrum "
        "would have nothing left to do without new evidence). pgmpy's variable elimination is asked node by node."
    )

    @property
    def shapes(self) -> list[str]:
        return networks()

    def workload(self, shape: str, threads: int) -> Workload:
        return Workload(
            contenders={
                OURS: partial(_lnz, shape),
                "lnz, planned anew": partial(_lnz, shape, plan_anew=True),
                "pyAgrum, planned anew": partial(_pyagrum, shape, threads),
                "pgmpy, planned anew": partial(_pgmpy, shape),
            },
            reference=partial(_reference, shape),
            tolerance=1e-6,
            targets={"pyAgrum, planned anew": 1 / 3},
            note="no folder of networks here; a random one instead" if shape == RANDOM else "",
        )


def _lnz(network: str, plan_anew: bool = False) -> Contender:
    from lnz.io import read_bif

    model = read_bif(bif(network))
    cardinalities, scopes = model.graph.cardinalities, model.graph.scopes

    def call() -> lnz.MRF:
        graph = lnz.FactorGraph(cardinalities, scopes) if plan_anew else model.graph
        p = lnz.MRF(graph, model.scores)
        _ = p.node_marginals
        return p

    def read(p: lnz.MRF) -> Numbers:
        marginals = p.node_marginals.numpy()
        return {
            f"{name}={state}": marginals[node, label]
            for node, name in enumerate(model.names)
            for label, state in enumerate(model.states[node])
        }

    return Contender(call, read, "lnz")


def _pyagrum(network: str, threads: int) -> Contender:
    gum: Any = require("pyagrum", "pyagrum")
    gum.setNumberOfThreads(threads)
    net = gum.loadBN(str(bif(network)))

    def call() -> Mapping[str, np.ndarray]:
        engine = gum.LazyPropagation(net)
        engine.makeInference()
        return {net.variable(node).name(): engine.posterior(node).toarray() for node in net.nodes()}

    return Contender(call, partial(by_state, _states(net)), "pyagrum")


def _pgmpy(network: str) -> Contender:
    inference: Any = require("pgmpy.inference", "pgmpy==1.1.2")
    readwrite: Any = require("pgmpy.readwrite", "pgmpy==1.1.2")
    net = readwrite.BIFReader(str(bif(network))).get_model()
    states = {name: net.get_cpds(name).state_names[name] for name in net.nodes()}

    def call() -> Mapping[str, np.ndarray]:
        engine = inference.VariableElimination(net)
        return {name: engine.query([name], show_progress=False).values for name in net.nodes()}

    return Contender(call, partial(by_state, states), "pgmpy")


def _reference(network: str) -> Numbers:
    """The published marginals that come with the networks; where there are none, another algorithm of pyAgrum's."""
    gum: Any = require("pyagrum", "pyagrum")
    net = gum.loadBN(str(bif(network)))
    published = NETWORKS / "posteriors_exact.json"
    queries = json.loads(published.read_text())[network] if network != RANDOM else []
    marginals = next((query["marginals"] for query in queries if not query["evidence"]), None)
    if marginals is None:
        engine = gum.ShaferShenoyInference(net)
        engine.makeInference()
        marginals = {net.variable(node).name(): engine.posterior(node).toarray() for node in net.nodes()}
    return by_state(_states(net), marginals)


def _states(net: Any) -> dict[str, list[str]]:
    return {net.variable(n).name(): list(net.variable(n).labels()) for n in net.nodes()}


def by_state(states: Mapping[str, list[str]], marginals: Mapping[str, np.ndarray]) -> Numbers:
    """Marginals as one number per node and state name, since libraries order both as they like."""
    return {
        f"{name}={state}": np.asarray(marginals[name][label])
        for name, labels in states.items()
        for label, state in enumerate(labels)
    }
