"""Training a chain CRF on dictionaries of features."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import optimize, sparse

import lnz
from benchmarks.case import OURS, Contender, Numbers, Workload, require
from benchmarks.data import SHARED
from lnz.ops import backend

TRAIN = SHARED / "data" / "ner_wnut17" / "wnut17_train.bio.gz"
SENTENCES = (300, 3394)
C2 = 0.1


class FeatureCRF:
    name = "feature-crf"
    title = "Training a chain CRF on features of words"
    summary = (
        "Sentences of WNUT 2017 (random words, where these are missing) as lists of dictionaries of about 25 features, "
        f"from there to the weights of least Σ −ln P + {C2} Σ w², by L-BFGS to crfsuite's default criterion; pairs of "
        "features and tags that occur only. The answer is the objective reached; SciPy finds the minimum in float64."
    )

    @property
    def shapes(self) -> list[str]:
        return [f"{'wnut' if TRAIN.is_file() else 'random'}-{n}" for n in SENTENCES]

    def workload(self, shape: str, threads: int) -> Workload:
        work = _Work(int(shape.rsplit("-", 1)[1]))
        return Workload(
            contenders={OURS: work.lnz, "crfsuite": work.crfsuite},
            reference=work.reference,
            tolerance=2e-3,
            targets={"crfsuite": 3.0},
        )


class _Work:
    def __init__(self, count: int) -> None:
        from lnz.io.sentences import read_sentences

        if TRAIN.is_file():
            sentences = [(s.tokens, s.tags) for s in read_sentences(TRAIN)[:count]]
        else:
            random = np.random.default_rng(0)
            sentences = []
            for _ in range(count):
                ids = (random.pareto(1, random.integers(5, 30)) * 10).astype(int)
                sentences.append(([f"Word{k}" for k in ids], [("O", "B-X", "O", "B-Y")[k % 4] for k in ids]))
        self.X = [[features(words, t) for t in range(len(words))] for words, _ in sentences]
        self.y = [list(tags) for _, tags in sentences]

    def lnz(self) -> Contender:
        from lnz.sklearn import CRF

        def read(crf: Any) -> Numbers:
            return {"objective": np.array([crf.training_log_[-1]["objective"]])}

        return Contender(lambda: CRF(c2=C2).fit(self.X, self.y), read, "lnz")

    def crfsuite(self) -> Contender:
        pycrfsuite: Any = require("pycrfsuite", "python-crfsuite==0.9.12")

        def call() -> Any:
            trainer = pycrfsuite.Trainer(verbose=False)
            for tokens, tags in zip(self.X, self.y, strict=True):
                trainer.append(tokens, tags)
            trainer.set_params({"c1": 0.0, "c2": C2})
            with tempfile.TemporaryDirectory() as folder:
                trainer.train(str(Path(folder) / "model"))
            return trainer

        def read(trainer: Any) -> Numbers:
            return {"objective": np.array([trainer.logparser.last_iteration["loss"]])}

        return Contender(call, read, "python-crfsuite")

    def reference(self) -> Numbers:
        """By SciPy's L-BFGS-B over a dense row per feature, and the chain in plain torch."""
        number: dict[tuple[str, Any], int] = {}
        rows, columns, values = [], [], []
        for row, token in enumerate(token for sentence in self.X for token in sentence):
            for name, value in token.items():
                text = isinstance(value, str)
                columns.append(number.setdefault((name, value if text else ""), len(number)))
                rows.append(row)
                values.append(1.0 if text else float(value))
        tags = sorted({tag for its in self.y for tag in its})
        gold = np.array([tags.index(tag) for its in self.y for tag in its])
        x = sparse.csr_matrix((values, (rows, columns)), (len(gold), len(number)))
        seen = np.zeros((len(number), len(tags)), bool)
        seen[columns, gold[rows]] = True  # what is worth 0 too, as crfsuite has it
        lengths = torch.tensor([len(its) for its in self.y])
        inside = torch.arange(int(lengths.max())) < lengths[:, None]
        labels = torch.zeros(inside.shape, dtype=torch.int64)
        labels[inside] = torch.from_numpy(gold)
        pairs = torch.zeros(len(tags), len(tags), dtype=torch.bool)
        both = inside[:, 1:]
        pairs[labels[:, :-1][both], labels[:, 1:][both]] = True

        def value(w: np.ndarray) -> tuple[float, np.ndarray]:
            table = np.zeros(seen.shape)
            table[seen] = w[: seen.sum()]
            edge = torch.zeros(pairs.shape, dtype=torch.float64)
            edge[pairs] = torch.from_numpy(w[seen.sum() :])
            node = torch.zeros(*inside.shape, len(tags), dtype=torch.float64)
            node[inside] = torch.from_numpy(x @ table)
            node.requires_grad_()
            edge.requires_grad_()
            with backend("reference"):
                loss = lnz.objectives.nll(lnz.LinearChain(node, edge, lengths), labels, "sum")
                by_node, by_edge = torch.autograd.grad(loss, (node, edge))
            gradient = np.concatenate(((x.T @ by_node[inside].numpy())[seen], by_edge[pairs].numpy()))
            return loss.item() + C2 * float(w @ w), gradient + 2 * C2 * w

        start = np.zeros(int(seen.sum()) + int(pairs.sum()))
        found = optimize.minimize(value, start, jac=True, method="L-BFGS-B", options={"maxiter": 300, "ftol": 1e-9})
        return {"objective": np.array([found.fun])}


def features(words: list[str], t: int) -> dict[str, Any]:
    """What is said of word ``t``."""
    word = words[t]
    said: dict[str, Any] = {
        "bias": 1.0,
        "w": word,
        "lower": word.lower(),
        "title": word.istitle(),
        "upper": word.isupper(),
    }
    said |= {f"s{n}": word[-n:] for n in (1, 2, 3)} | {f"p{n}": word[:n] for n in (1, 2, 3)}
    said |= {"digit": word.isdigit(), "hyphen": "-" in word}
    for place in (-2, -1, 1, 2):
        other = words[t + place] if 0 <= t + place < len(words) else None
        if other is None:
            said[f"{place}:out"] = True
        else:
            said |= {f"{place}:lower": other.lower(), f"{place}:title": other.istitle()}
    if t:
        said["before|w"] = f"{words[t - 1].lower()}|{word.lower()}"
    return said
