"""The estimator: what crfsuite's users write, in scikit-learn's manners."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="needs the extra sklearn")

from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from lnz.sklearn import CRF
from lnz.sklearn.token_features import FeatureNumbers

WORDS = {"Ada": "B-PER", "Lovelace": "I-PER", "met": "O", "Charles": "B-PER", "in": "O", "London": "B-LOC"}


def sentences(count: int = 60, seed: int = 0):
    random, X, y = np.random.default_rng(seed), [], []
    for _ in range(count):
        words = [list(WORDS)[k] for k in random.integers(len(WORDS), size=random.integers(1, 7))]
        tags = [WORDS[word] for word in words]
        for t in range(len(tags)):
            if tags[t] == "I-PER" and (t == 0 or not tags[t - 1].endswith("PER")):
                tags[t] = "O"
        X.append([features(words, t) for t in range(len(words))])
        y.append(tags)
    return X, y


def features(words, t):
    return {"word": words[t], "title": words[t].istitle(), "length": len(words[t]) / 10, "first": t == 0, "bias": 1.0}


@pytest.mark.parametrize("options", [{"c1": 0.05, "c2": 0.05}, {"c2": 0.05}, {"algorithm": "l2sgd", "c2": 0.05}])
def test_learns_and_predicts(options) -> None:
    X, y = sentences()
    crf = CRF(**options).fit(X, y)
    new, gold = sentences(30, 1)
    assert crf.predict(new) == gold
    assert crf.score(new, gold) == 1.0
    assert list(crf.classes_) == ["B-LOC", "B-PER", "I-PER", "O"]
    assert crf.predict_single(new[0]) == gold[0]
    assert "word:Ada" in crf.attributes_
    assert crf.state_features_["word:London", "B-LOC"] > 0
    assert crf.transition_features_["B-PER", "I-PER"] > 0
    assert ("O", "I-PER") not in crf.transition_features_
    assert crf.n_iter_ == len(crf.training_log_) > 1


def test_marginals_are_probabilities_of_the_model() -> None:
    X, y = sentences()
    crf = CRF(c2=0.05).fit(X, y)
    (row,) = crf.predict_marginals(X[:1])
    assert [max(token, key=token.get) for token in row] == y[0]
    assert all(sum(token.values()) == pytest.approx(1, abs=1e-5) for token in row)
    assert crf.predict_marginals_single(X[0])[0] == pytest.approx(row[0])


def test_of_sentences_of_one_token_it_is_logistic_regression() -> None:
    random = np.random.default_rng(0)
    x, tag = random.normal(size=(80, 4)), random.integers(3, size=80).astype(str)
    X = [[{f"f{k}": float(value) for k, value in enumerate(row)}] for row in x]
    crf = CRF(c2=0.5, all_possible_states=True, delta=0.0, epsilon=1e-6).fit(X, [[each] for each in tag])
    exact = LogisticRegression(C=1.0, fit_intercept=False, tol=1e-8).fit(x, tag)
    found = np.array([[token[k] for k in "012"] for (token,) in crf.predict_marginals(X)])
    np.testing.assert_allclose(found, exact.predict_proba(x), atol=1e-3)


def test_unknown_tags_are_summed_over() -> None:
    X, y = sentences()
    part = [[None if k % 3 == 0 else tag for k, tag in enumerate(row)] for row in y]
    crf = CRF(c2=0.05).fit(X, part)
    assert crf.score(X, y) > 0.95


def test_stops_by_validation_data() -> None:
    X, y = sentences()
    dev, gold = sentences(20, 1)
    crf = CRF(c2=1e-4, period=2, patience=2, delta=0.0, epsilon=0.0).fit(X, y, dev, gold)
    scores = [step["score"] for step in crf.training_log_ if step["score"] is not None]
    assert max(scores) == 1.0
    assert crf.n_iter_ == 2 * (scores.index(1.0) + 3)
    with pytest.raises(ValueError, match="X_dev, y_dev: expected both or neither"):
        CRF().fit(X, y, dev)


def test_is_an_estimator() -> None:
    X, y = sentences()
    crf = CRF(c1=0.1, c2=0.2, max_iterations=5)
    assert clone(crf).get_params() == crf.get_params()
    crf.fit(X, y)
    again = pickle.loads(pickle.dumps(crf))
    assert again.predict(X) == crf.predict(X)
    assert "CRF(c1=0.1, c2=0.2, max_iterations=5)" in repr(crf).replace("\n", " ")
    search = GridSearchCV(CRF(max_iterations=5), {"c2": [0.01, 1.0]}, cv=2).fit(X, y)
    assert search.best_score_ > 0.9
    with pytest.raises(NotFittedError):
        CRF().predict(X)


def test_what_tokens_may_be() -> None:
    numbers = FeatureNumbers()
    token = {"w": "a", "n": 2, "no": False, "in": ["x", "y"], "next": {"w": "b", "n": 0.5}}
    row = numbers.matrix([[token, ["plain", "w:a"]]], grow=True)
    named = [{numbers.names[c]: v for c, v in zip(each.indices, each.data, strict=True)} for each in row]
    assert named == [
        {"w:a": 1.0, "n": 2.0, "no": 0.0, "in:x": 1.0, "in:y": 1.0, "next:w:b": 1.0, "next:n": 0.5},
        {"plain": 1.0, "w:a": 1.0},
    ]
    assert numbers.matrix([[{"w": "new"}, {"w": "a"}], []]).sum() == 1.0


@pytest.mark.parametrize(
    ("X", "y", "error", "message"),
    [
        ([[{"w": None}]], [["O"]], TypeError, "X: token 0 of sentence 0: w: expected a text, a number"),
        ([[{"a": 1}, {"w": float("nan")}]], [["O", "O"]], ValueError, "X: token 1 of sentence 0: w: expected a finite"),
        ([["word"]], [["O"]], TypeError, "X: token 0 of sentence 0: expected a dictionary of features or a list"),
        ([[{3: 1}]], [["O"]], TypeError, "expected names that are texts, got 3"),
        ([[{"a": 1}]], [["O", "O"]], ValueError, "y: expected 1 tags in sentence 0, got 2"),
        ([[{"a": 1}]], [], ValueError, "y: expected tags of 1 sentences, as X has, got 0"),
        ([[{"a": 1}]], [[3]], TypeError, "y: expected tags that are texts, got 3 in sentence 0"),
        ([[{"a": 1}]], [[None]], ValueError, "y: expected a tag, got none"),
    ],
)
def test_bad_data(X, y, error, message) -> None:
    with pytest.raises(error, match=message):
        CRF().fit(X, y)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"algorithm": "ap"}, "algorithm: expected 'lbfgs' or 'l2sgd', got 'ap'"),
        ({"c1": -1.0}, "c1: expected a number of at least 0, got -1.0"),
        ({"algorithm": "l2sgd", "c1": 1.0}, "c1: expected 0 under 'l2sgd'"),
        ({"algorithm": "l2sgd", "c2": 0.0}, "c2: expected a positive number under 'l2sgd'"),
        ({"period": 0}, "period: expected a positive integer, got 0"),
    ],
)
def test_bad_settings(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        CRF(**options).fit(*sentences(3))


def test_tokens_without_known_features_and_empty_sentences() -> None:
    X, y = sentences()
    crf = CRF().fit([*X, []], [*y, []])
    assert crf.predict([[], [{}, {"never": "seen"}]])[0] == []
    assert len(crf.predict([[], [{}, {"never": "seen"}]])[1]) == 2
    assert crf.predict([]) == []
    assert CRF().fit([[{}]], [["O"]]).predict([[{}, {}]]) == [["O", "O"]]
