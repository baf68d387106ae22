"""The options of what is learned, and how."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from lnz.tasks.bayesnet.network import parse_latent
from lnz.tasks.em_learning import Settings, check_settings


class BayesNetModel:
    """A Bayesian network whose tables are learned by EM; without ``net``, a small one of symptoms of an infection.

    Args:
        net: file of the network, its wiring, names and states: .bif, .bifxml, .xdsl, .dsl, .net or .uai.
        latent: hidden variables, as NAME=3,NAME=low:high, with a number of states or their names: variables of the
            network, whose columns are not read; or new ones, each a parent of all others.
        start: where the first start begins: "tables", at those of the file; "random". By default, at the tables where
            there are rows to learn from. Hidden variables whose states nothing tells apart are drawn in any case.
        restarts: starts, the first as above, all others drawn at random; the best is kept.
        pseudocount: added to the expected count of every state, as a Dirichlet prior of pseudocount + 1.
        tolerance: a start ends where an iteration raises the objective by no more than this share of its size.
        max_iterations: iterations of a start at most.
        encoding: of the text of the network's file; by default UTF-8.
    """

    def __init__(
        self,
        net: Path | None = None,
        latent: str | None = None,
        *,
        start: Literal["tables", "random"] | None = None,
        restarts: int = 1,
        pseudocount: float = 0.0,
        tolerance: float = 1e-7,
        max_iterations: int = 200,
        encoding: str | None = None,
    ) -> None:
        check_settings(restarts, pseudocount, tolerance, max_iterations)
        self.net, self.start, self.encoding = net, start, encoding
        self.latent = parse_latent(latent or "")
        self.restarts, self.pseudocount = restarts, pseudocount
        self.tolerance, self.max_iterations = tolerance, max_iterations

    def settings(self, seed: int) -> Settings:
        """What EM is told."""
        return Settings(self.restarts, self.pseudocount, self.tolerance, self.max_iterations, seed)
