"""EM of a Bayes net from rows with holes."""

from __future__ import annotations

import csv
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

import lnz
from benchmarks.case import OURS, Contender, Numbers, Workload, require
from benchmarks.data import RANDOM, bif, networks
from lnz.ops import backend

ITERATIONS = 3
ROWS = (2_000, 100_000)
PEERS_UP_TO = 2_000  # rows; more take minutes
MISSING = 0.1


class NetworkEM:
    name = "network-em"
    title = "EM of a Bayes net, rows with holes"
    summary = (
        f"Rows drawn from the network, 10 % of their cells missing at random; {ITERATIONS} iterations of EM from one "
        "random start; the answers are the tables. pyAgrum's is its `BNLearner` with `useEM`, "
        "which reads the rows from a file beforehand; the longer shape would take it minutes. pgmpy's EM takes "
        "variables that are hidden in every row, no holes."
    )

    @property
    def shapes(self) -> list[str]:
        network = "alarm" if "alarm" in networks() else RANDOM
        return [f"{network}-{rows}" for rows in ROWS]

    def workload(self, shape: str, threads: int) -> Workload:
        network, rows = shape.rsplit("-", 1)
        work = _Rows(network, int(rows), threads)
        peers = {"pyAgrum": work.pyagrum} if int(rows) <= PEERS_UP_TO else {}
        return Workload(
            contenders={OURS: work.lnz, **peers},
            reference=work.reference,
            tolerance=1e-7,
            targets=dict.fromkeys(peers, 10.0),
        )


class _Rows:
    def __init__(self, network: str, rows: int, threads: int) -> None:
        self.path, self.threads = bif(network), threads
        self.net = lnz.BayesNet.from_bif(self.path)
        generator = torch.Generator().manual_seed(0)
        self.y = self.net.sample((rows,), generator=generator)
        self.y[torch.rand(self.y.shape, generator=generator) < MISSING] = -100
        self.start = self.net.drawn(self.y, torch.Generator().manual_seed(1))

    @cached_property
    def folder(self) -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory()

    def _learned(self) -> lnz.BayesNet:
        return lnz.objectives.em(self.start, self.y, max_iterations=ITERATIONS, tolerance=0.0).model

    def _tables(self, net: lnz.BayesNet) -> Numbers:
        return {"tables": torch.cat([table.exp().flatten() for table in net.log_cpts]).numpy()}

    def lnz(self) -> Contender:
        return Contender(self._learned, self._tables, "lnz")

    def reference(self) -> Numbers:
        """Tables by counting in logarithms, a model per row, in plain torch."""
        net = self.start
        with backend("reference"):
            for _ in range(ITERATIONS):
                net = net.m_step(net.e_step(self.y)[1])
        return self._tables(net)

    def pyagrum(self) -> Contender:
        gum: Any = require("pyagrum", "pyagrum")
        gum.setNumberOfThreads(self.threads)
        rows, start = Path(self.folder.name, "rows.csv"), Path(self.folder.name, "start.bif")
        self.start.to_bif(start)
        names, states = self.net.names, self.net.states
        with rows.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(names)
            for row in self.y.tolist():
                writer.writerow(["?" if y < 0 else states[node][y] for node, y in enumerate(row)])
        bn = gum.loadBN(str(start))
        learner = gum.BNLearner(str(rows), bn, ["?"])
        learner.useEM(1e-300, 0.0)
        learner.setMaxIter(ITERATIONS)
        learner.useNoPrior()

        def read(learned: Any) -> Numbers:
            tables = []
            for node, name in enumerate(names):
                order = [*(names[parent] for parent in self.net.parents[node]), name]
                tables.append(learned.cpt(name).reorganize(order[::-1]).toarray().reshape(-1))
            return {"tables": np.concatenate(tables)}

        return Contender(lambda: learner.learnParameters(bn), read, "pyagrum")
