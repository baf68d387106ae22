"""A chain CRF on features of tokens as an estimator of scikit-learn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import torch
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from lnz.distributions import LinearChain
from lnz.nn.entities import SpanRules
from lnz.nn.feature_chain import FeatureObjective, Layout, Product
from lnz.nn.feature_learning import Learning, Step, learn
from lnz.nn.tag_schemes import scheme_of
from lnz.sklearn.token_features import FeatureNumbers, Token

Sentences = Sequence[Sequence[Token]]
Tags = Sequence[Sequence[str]]


class CRF(BaseEstimator):
    """A chain CRF whose sentences are lists of tokens, each a dictionary of features: what crfsuite's users write.

    The model is crfsuite's: a weight per feature and tag, and per tag and next tag, of the pairs that the training data
    have. A value that is a text makes the feature ``name:text`` worth 1; a number or truth value is what the feature
    ``name`` is worth; texts in a list, and dictionaries, are taken too. Mark the ends of sentences by features of your
    own. Pickling works as for every estimator; a pickle runs code when it is loaded, so load your own only.

    Args:
        algorithm: ``"lbfgs"``, orthant-wise where ``c1`` is not 0; ``"l2sgd"``, stochastic gradient.
        c1: the weight of Σ|w| in the objective, Σ −ln P + c1 Σ|w| + c2 Σw².
        c2: the weight of Σw².
        max_iterations: at most so many; ``None``, until it converges (1000 passes of ``"l2sgd"``).
        min_freq: pairs of a feature and a tag that occur less often have no weight.
        all_possible_states: a weight for each feature and tag, whether they occur together or not.
        all_possible_transitions: a weight for each tag and next tag.
        num_memories: steps that ``"lbfgs"`` estimates curvature by.
        epsilon: it stops where the gradient's norm is below this times that of the weights.
        period: iterations over which progress is judged.
        delta: it stops where a period has gained less than this, relatively.
        patience: with validation data, it stops after so many periods without a better score.
        verbose: print each iteration.
        random_state: the seed of the order of ``"l2sgd"``.

    Attributes:
        classes_: the tags, in alphabetical order.
        attributes_: the names of the features.
        n_iter_: iterations.
        training_log_: per iteration its number, the objective and, at the end of a period, the validation score.
    """

    def __init__(
        self,
        algorithm: str = "lbfgs",
        *,
        c1: float = 0.0,
        c2: float = 1.0,
        max_iterations: int | None = None,
        min_freq: float = 0,
        all_possible_states: bool = False,
        all_possible_transitions: bool = False,
        num_memories: int = 6,
        epsilon: float = 1e-5,
        period: int = 10,
        delta: float = 1e-5,
        patience: int = 5,
        verbose: bool = False,
        random_state: int = 0,
    ) -> None:
        self.algorithm = algorithm
        self.c1 = c1
        self.c2 = c2
        self.max_iterations = max_iterations
        self.min_freq = min_freq
        self.all_possible_states = all_possible_states
        self.all_possible_transitions = all_possible_transitions
        self.num_memories = num_memories
        self.epsilon = epsilon
        self.period = period
        self.delta = delta
        self.patience = patience
        self.verbose = verbose
        self.random_state = random_state

    def fit(self, X: Sentences, y: Tags, X_dev: Sentences | None = None, y_dev: Tags | None = None) -> Self:
        """Itself, with the weights of least objective; with validation data, of best score on them along the way.

        Args:
            X: tokens of each sentence.
            y: tags of each sentence; ``None`` in place of a tag is unknown, and summed over.
            X_dev: sentences to stop by: the score is F1 of entities where tags mark spans, else the accuracy.
            y_dev: their tags.

        Raises:
            TypeError, ValueError: bad settings, tokens or tags; names their place.
        """
        learning = Learning(
            self.algorithm,
            self.c1,
            self.c2,
            self.max_iterations,
            self.num_memories,
            self.epsilon,
            self.period,
            self.delta,
            self.patience,
            self.random_state,
        )
        if (X_dev is None) != (y_dev is None):
            raise ValueError("X_dev, y_dev: expected both or neither")
        _check_lengths("X", X, "y", y)
        self.classes_: list[str] = sorted({tag for row in y for tag in row if tag is not None})
        if not len(self.classes_):
            raise ValueError("y: expected a tag, got none")
        number = {tag: k for k, tag in enumerate(self.classes_)}
        tags = np.array([-100 if tag is None else number[tag] for row in y for tag in row], np.int64)
        self._numbers = FeatureNumbers()
        features = self._numbers.matrix(X, grow=True)
        lengths = [len(sentence) for sentence in X]
        objective = FeatureObjective(
            features,
            tags,
            lengths,
            len(self.classes_),
            c2=self.c2,
            min_count=self.min_freq,
            all_states=self.all_possible_states,
            all_transitions=self.all_possible_transitions,
        )
        validate = None if X_dev is None or y_dev is None else self._validation(objective, X_dev, y_dev)
        found = learn(objective, learning, validate, _print if self.verbose else None)
        table, edges = objective.tables(found.weights)
        self._weights, self._edges = table.numpy(), edges.numpy()
        self.attributes_, self.n_iter_ = self._numbers.names, len(found.steps)
        self.training_log_ = [step._asdict() for step in found.steps]
        return self

    def _validation(self, objective: FeatureObjective, X: Sentences, y: Tags) -> Callable[[Tensor], float]:
        _check_lengths("X_dev", X, "y_dev", y)
        features, lengths = self._numbers.matrix(X), [len(sentence) for sentence in X]
        scheme = scheme_of(self.classes_)
        rules = None if scheme is None else SpanRules(self.classes_, scheme)
        number = {tag: k for k, tag in enumerate(self.classes_)}
        gold = [[number.get(tag, -1) for tag in row] for row in y]
        if rules is not None:
            outside = number.get("O", 0)
            spans = [set(rules.found([outside if tag < 0 else tag for tag in row])) for row in gold]

        def score(weights: Tensor) -> float:
            best = self._best(features, lengths, *objective.tables(weights))
            if rules is None:
                right = sum(
                    a == b for one, other in zip(best, gold, strict=True) for a, b in zip(one, other, strict=True)
                )
                return right / max(sum(lengths), 1)
            found = [set(rules.found(row)) for row in best]
            both = sum(len(a & b) for a, b in zip(found, spans, strict=True))
            return 2 * both / max(sum(map(len, found)) + sum(map(len, spans)), 1)

        return score

    def predict(self, X: Sentences) -> list[list[str]]:
        """The best tags of each sentence."""
        check_is_fitted(self, "classes_")
        tables = torch.from_numpy(self._weights), torch.from_numpy(self._edges)
        best = self._best(self._numbers.matrix(X), [len(sentence) for sentence in X], *tables)
        return [[self.classes_[tag] for tag in row] for row in best]

    def predict_single(self, xseq: Sequence[Token]) -> list[str]:
        """The best tags of one sentence."""
        return self.predict([xseq])[0]

    def predict_marginals(self, X: Sentences) -> list[list[dict[str, float]]]:
        """The probability of each tag at each token of each sentence."""
        check_is_fitted(self, "classes_")
        lengths = [len(sentence) for sentence in X]
        tables = torch.from_numpy(self._weights), torch.from_numpy(self._edges)
        found: list[list[dict[str, float]]] = [[] for _ in X]
        for sentences, chain in _chains(self._numbers.matrix(X), lengths, *tables):
            for s, row in zip(sentences, chain.node_marginals.tolist(), strict=True):
                found[s] = [dict(zip(self.classes_, token, strict=True)) for token in row[: lengths[s]]]
        return found

    def predict_marginals_single(self, xseq: Sequence[Token]) -> list[dict[str, float]]:
        """The probability of each tag at each token of one sentence."""
        return self.predict_marginals([xseq])[0]

    def score(self, X: Sentences, y: Tags) -> float:
        """The share of tokens whose best tag is right."""
        _check_lengths("X", X, "y", y)
        pairs = [(a, b) for one, other in zip(self.predict(X), y, strict=True) for a, b in zip(one, other, strict=True)]
        return sum(a == b for a, b in pairs) / max(len(pairs), 1)

    @property
    def state_features_(self) -> dict[tuple[str, str], float]:
        """The weights that are not 0, by feature and tag."""
        check_is_fitted(self, "classes_")
        pairs = zip(*(each.tolist() for each in self._weights.nonzero()), strict=True)
        return {(self.attributes_[f], self.classes_[k]): float(self._weights[f, k]) for f, k in pairs}

    @property
    def transition_features_(self) -> dict[tuple[str, str], float]:
        """The weights that are not 0, by tag and next tag."""
        check_is_fitted(self, "classes_")
        pairs = zip(*(each.tolist() for each in self._edges.nonzero()), strict=True)
        return {(self.classes_[i], self.classes_[j]): float(self._edges[i, j]) for i, j in pairs}

    @staticmethod
    def _best(features: sparse.csr_matrix, lengths: Sequence[int], table: Tensor, edges: Tensor) -> list[list[int]]:
        best: list[list[int]] = [[] for _ in lengths]
        for sentences, chain in _chains(features, lengths, table, edges):
            for s, row in zip(sentences, chain.argmax().tolist(), strict=True):
                best[s] = row[: lengths[s]]
        return best


def _chains(features: sparse.csr_matrix, lengths: Sequence[int], table: Tensor, edges: Tensor) -> Any:
    """The numbers of some sentences and the distribution of their tags, until there are no more."""
    layout = Layout(lengths)
    scores = Product(layout.padded(features))(table)
    for block in layout.blocks:
        node = scores[block.positions].view(len(block.sentences), block.steps, -1)
        yield block.sentences.tolist(), LinearChain(node, edges, block.lengths)


def _check_lengths(name: str, X: Sentences, other: str, y: Tags) -> None:
    if len(X) != len(y):
        raise ValueError(f"{other}: expected tags of {len(X)} sentences, as {name} has, got {len(y)}")
    for s, (tokens, tags) in enumerate(zip(X, y, strict=True)):
        if len(tokens) != len(tags):
            raise ValueError(f"{other}: expected {len(tokens)} tags in sentence {s}, got {len(tags)}")
        for tag in tags:
            if not isinstance(tag, str) and tag is not None:
                raise TypeError(f"{other}: expected tags that are texts, got {tag!r} in sentence {s}")


def _print(step: Step) -> None:
    score = "" if step.score is None else f"  validation {step.score:.4f}"
    print(f"iteration {step.iteration}  objective {step.objective:.6g}{score}")  # noqa: T201  (asked for)
