"""The options of what is learned, and how."""

from __future__ import annotations

import re

from lnz.tasks.em_learning import Settings, check_settings

MOST_CLASSES = 1000


class LatentClassModel:
    """Latent class models of several numbers of classes, each learned by EM from random starts.

    Args:
        classes: numbers of classes, as 2:5 for 2, 3, 4 and 5, or 3.
        restarts: random starts for each number of classes; the best is kept.
        pseudocount: added to the expected count of every answer, as a Dirichlet prior of pseudocount + 1.
        tolerance: a start ends where an iteration raises the objective by no more than this share of its size.
        max_iterations: iterations of a start at most.
    """

    def __init__(
        self,
        classes: str = "1:4",
        *,
        restarts: int = 50,
        pseudocount: float = 0.0,
        tolerance: float = 1e-8,
        max_iterations: int = 2000,
    ) -> None:
        check_settings(restarts, pseudocount, tolerance, max_iterations)
        self.classes = parse_classes(classes)
        self.restarts, self.pseudocount = restarts, pseudocount
        self.tolerance, self.max_iterations = tolerance, max_iterations

    def settings(self, seed: int) -> Settings:
        """What EM is told."""
        return Settings(self.restarts, self.pseudocount, self.tolerance, self.max_iterations, seed)


def parse_classes(text: str) -> range:
    """Numbers of classes from ``2:5`` (both ends count) or ``3``.

    Raises:
        ValueError: anything else.
    """
    parts = re.fullmatch(r"(\d{1,4})(?::(\d{1,4}))?", text)
    low, high = (int(parts[1]), int(parts[2] or parts[1])) if parts else (0, 0)
    if not 1 <= low <= high <= MOST_CLASSES:
        raise ValueError(f"model.classes: expected a number of classes, as 3, or from:to, as 2:5, got {text!r}")
    return range(low, high + 1)
