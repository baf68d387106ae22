"""Full-batch learning of taggers on sparse features, beside the trainer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lnz.nn.feature_chain import FeatureObjective
from lnz.nn.feature_learning import Learning, Step, learn
from lnz.tasks.console import Console
from lnz.tasks.tag.feature_encoder import FeatureEncoder
from lnz.tasks.tag.measures import mark_spans, span_counts
from lnz.tasks.tag.network import Tagger
from lnz.tasks.tag.text import SentenceDataset


@dataclass(frozen=True)
class FeatureLearning:
    """How weights of features are learnt.

    Args:
        algorithm: "lbfgs", on all sentences at once, orthant-wise where c1 is not 0; "adam", batch by batch.
        c1: the weight of Σ|w| under "lbfgs", beside the sum of −ln P over all sentences.
        c2: the weight of Σw² under "lbfgs".
        max_iterations: of "lbfgs", at most; by default, until it converges.
        patience: "lbfgs" stops after so many times ten iterations without a better F1 of spans, or accuracy, on the
            validation sentences; the best weights are kept.
    """

    algorithm: Literal["lbfgs", "adam"] = "lbfgs"
    c1: float = 0.1
    c2: float = 0.1
    max_iterations: int | None = None
    patience: int = 5

    def __post_init__(self) -> None:
        if self.algorithm not in ("lbfgs", "adam"):
            raise ValueError(f"learning.algorithm: expected 'lbfgs' or 'adam', got {self.algorithm!r}")
        Learning("lbfgs", self.c1, self.c2, self.max_iterations, patience=self.patience)  # checks them

    @property
    def full_batch(self) -> Learning | None:
        """The settings of "lbfgs"; ``None`` under "adam"."""
        if self.algorithm == "adam":
            return None
        return Learning("lbfgs", self.c1, self.c2, self.max_iterations, patience=self.patience)


class Progress:
    """Says where full-batch learning of a method is, each time that the validation sentences are judged."""

    def __init__(self, method: str) -> None:
        self.method, self.console = method, Console()

    def __call__(self, step: Step) -> None:
        if step.score is not None:
            score = f"objective {step.objective:.6g}  validation {step.score:.4f}"
            self.console.say(f"{self.method}: iteration {step.iteration}  {score}")


def fit_features(
    network: Tagger,
    tags: list[str],
    train: SentenceDataset,
    val: SentenceDataset,
    learning: Learning,
    tell: Callable[[Step], None],
) -> None:
    """Set the weights of a network of features to those of least objective, or of best validation score on the way.

    The score is F1 of spans where tags mark spans, else the accuracy.

    Args:
        network: its features are known; with a chain or without.
        tags: their names.
        train: sentences to learn from.
        val: sentences to stop by.
        learning: how.
        tell: is called after each iteration.
    """
    encoder = network.encoder
    assert isinstance(encoder, FeatureEncoder)
    labels, lengths = torch.cat(train.tags).numpy(), train.lengths
    crf = network.crf
    masks = None
    if crf is not None and crf.constrained:
        masks = crf.start_mask.cpu(), crf.end_mask.cpu(), crf.transition_mask.cpu()
    objective = FeatureObjective(
        encoder.matrix([sentence.tokens for sentence in train.sentences]),
        labels,
        lengths,
        len(tags),
        c2=learning.c2,
        transitions=crf is not None,
        masks=masks,
    )

    def set_weights(weights: Tensor) -> None:
        table, edges = objective.tables(weights)
        with torch.no_grad():
            encoder.weight.copy_(table)
            if crf is not None:
                crf.transitions.copy_(edges)
                crf.start_transitions.zero_()
                crf.end_transitions.zero_()

    def score(weights: Tensor) -> float:
        set_weights(weights)
        return judged(network, tags, val)

    set_weights(learn(objective, learning, score, tell).weights)


@torch.no_grad()
def judged(network: Tagger, tags: list[str], val: SentenceDataset, at_once: int = 256) -> float:
    """F1 of spans, or the accuracy, on sentences."""
    order = np.argsort(val.lengths, kind="stable")
    gold: list[list[str]] = []
    said: list[list[str]] = []
    for part in np.split(order, range(at_once, len(order), at_once)):
        tokens = [val.sentences[k].tokens for k in part]
        best = network({"tokens": tokens, "lengths": torch.tensor([len(words) for words in tokens])}).argmax()
        for k, row in zip(part, best, strict=True):
            seen = val.tags[k] >= 0
            gold.append([tags[tag] for tag in val.tags[k][seen].tolist()])
            said.append([tags[tag] for tag in row[: len(seen)][seen].tolist()])
    if mark_spans(tags):
        right, found, there = span_counts(gold, said)
        return 2 * right / max(found + there, 1)
    pairs = [(a, b) for one, other in zip(gold, said, strict=True) for a, b in zip(one, other, strict=True)]
    return sum(a == b for a, b in pairs) / max(len(pairs), 1)
