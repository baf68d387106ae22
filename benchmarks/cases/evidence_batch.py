"""Bayes nets, many queries: the marginals of all nodes under each of 1,000 rows of evidence."""

from __future__ import annotations

from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.case import OURS, Contender, Numbers, Workload, require
from benchmarks.data import RANDOM, bif, networks

ROWS = 1000
OBSERVED = 0.3


class EvidenceBatch:
    name = "evidence-batch"
    title = "All marginals of a Bayes net, 1,000 rows of evidence"
    summary = (
        "1,000 rows drawn from the network itself, each with a random 30 % of the nodes observed; the answers are the "
        "marginals of every node in every row, float64. lnz conditions one batch. pyAgrum loops over the rows, either "
        "keeping one engine and changing its evidence, or making an engine per row. What is kept was made beforehand."
    )

    @property
    def shapes(self) -> list[str]:
        return [f"{'alarm' if 'alarm' in networks() else RANDOM}-{ROWS}"]

    def workload(self, shape: str, threads: int) -> Workload:
        network = shape.removesuffix(f"-{ROWS}")
        work = _Rows(network, threads)
        return Workload(
            contenders={
                OURS: work.lnz,
                "pyAgrum loop, engine kept": partial(work.pyagrum, kept=True),
                "pyAgrum loop, engine per row": partial(work.pyagrum, kept=False),
            },
            reference=work.reference,
            tolerance=1e-6,
            targets={"pyAgrum loop, engine kept": 30.0, "pyAgrum loop, engine per row": 30.0},
            note="no folder of networks here; a random one instead" if network == RANDOM else "",
        )


class _Rows:
    """The network and its rows of evidence, as pyAgrum orders nodes and states."""

    def __init__(self, network: str, threads: int) -> None:
        self.network = network
        self.threads = threads

    @cached_property
    def gum(self) -> Any:
        gum = require("pyagrum", "pyagrum")
        gum.setNumberOfThreads(self.threads)
        return gum

    @cached_property
    def net(self) -> Any:
        return self.gum.loadBN(str(bif(self.network)))

    @cached_property
    def names(self) -> list[str]:
        return [self.net.variable(node).name() for node in sorted(self.net.nodes())]

    @cached_property
    def evidence(self) -> list[dict[str, str]]:
        """Per row the observed nodes and their states, by name. Drawn ancestrally, so that no row is impossible."""
        random = np.random.default_rng(0)
        rows: list[dict[str, str]] = []
        order = self.net.topologicalOrder()
        for _ in range(ROWS):
            drawn: dict[str, int] = {}
            for node in order:
                table = self.net.cpt(node).extract({n: drawn[n] for n in self._parents(node)}).toarray()
                drawn[self.net.variable(node).name()] = int(random.choice(len(table), p=table / table.sum()))
            seen = [name for name in self.names if random.random() < OBSERVED]
            rows.append({name: self.net.variable(name).label(drawn[name]) for name in seen})
        return rows

    def _parents(self, node: int) -> list[str]:
        return [self.net.variable(parent).name() for parent in self.net.parents(node)]

    @cached_property
    def _positions(self) -> list[tuple[str, str]]:
        return [(name, state) for name in self.names for state in self.net.variable(name).labels()]

    def lnz(self) -> Contender:
        from lnz.io import read_bif

        model = read_bif(bif(self.network))
        y = torch.full((ROWS, len(model.names)), -100)
        for row, seen in enumerate(self.evidence):
            for name, state in seen.items():
                node = model.nodes[name]
                y[row, node] = model.states[node].index(state)
        p = model.mrf()

        def read(marginals: Tensor) -> Numbers:
            at = [(model.nodes[name], model.states[model.nodes[name]].index(state)) for name, state in self._positions]
            return {"marginals": np.stack([marginals[:, node, label].numpy() for node, label in at], -1)}

        return Contender(lambda: p.condition(y).node_marginals, read, "lnz")

    def pyagrum(self, kept: bool, engine: str = "LazyPropagation") -> Contender:
        make = getattr(self.gum, engine)
        keep = make(self.net) if kept else None
        nodes = sorted(self.net.nodes())

        def call() -> list[list[np.ndarray]]:
            rows = []
            for seen in self.evidence:
                engine = keep or make(self.net)
                engine.setEvidence(seen)
                engine.makeInference()
                rows.append([engine.posterior(node).toarray() for node in nodes])
            return rows

        return Contender(call, lambda rows: {"marginals": np.stack([np.concatenate(row) for row in rows])}, "pyagrum")

    def reference(self) -> Numbers:
        """Another of pyAgrum's algorithms: Shafer and Shenoy's, with an engine per row."""
        contender = self.pyagrum(kept=False, engine="ShaferShenoyInference")
        return contender.read(contender.call())
