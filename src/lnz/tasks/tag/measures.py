"""What a tagging is judged by; each measure adds up over batches and over processes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import MeanMetric, SumMetric
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError

from lnz.typing import IGNORE

TITLES = {
    "accuracy": "token accuracy",
    "whole": "whole sequences",
    "f1": "span F1",
    "nll": "marginal NLL",
    "ece": "ECE",
}
HIGHER_IS_BETTER = {"accuracy": True, "whole": True, "f1": True, "nll": False, "ece": False}
PERCENT = ("accuracy", "whole", "f1")
_ENDS = {"E": "I", "L": "I", "S": "B", "U": "B"}  # the letters that end a span, and what they are in BIO
_LETTERS = {"B": "B", "I": "I", "M": "I", **_ENDS}


class Measures(torch.nn.Module):
    """Tags and whole sequences that are right, F1 of spans, marginal negative log-likelihood, calibration error.

    F1 is that of spans whose type and both ends are right, over all types together, as conlleval counts; by nervaluate.
    It is there where tags mark spans. The marginal negative log-likelihood of a token is −ln of the probability of its
    gold tag; calibration error is the expected one, over 15 bins of the probability of the tag predicted. Tokens
    without a gold tag (−100) count nowhere.

    Args:
        tags: their names.
    """

    def __init__(self, tags: Sequence[str]) -> None:
        super().__init__()
        self.tags, self.spans = list(tags), mark_spans(tags)
        kwargs = {"num_classes": len(tags), "ignore_index": IGNORE, "validate_args": False}
        self.accuracy = MulticlassAccuracy(average="micro", **kwargs)
        self.whole, self.nll = MeanMetric(), MeanMetric()
        self.right, self.found, self.gold = SumMetric(), SumMetric(), SumMetric()
        self.ece = MulticlassCalibrationError(n_bins=15, **kwargs)

    def update(self, beliefs: Tensor, tags: Tensor, predicted: Tensor) -> None:
        """Take in ``beliefs`` ``[B, T, L]`` (probabilities), gold ``tags`` and ``predicted`` ones, ``int64 [B, T]``."""
        seen = tags != IGNORE
        if not seen.any():
            return
        tokens, gold = beliefs.clamp(0, 1)[seen], tags[seen]  # rounding may pass 1, which ece would take for a logit
        self.accuracy.update(predicted[seen], gold)
        self.whole.update(((predicted == tags) | ~seen).all(1)[seen.any(1)].float())
        self.nll.update(-tokens.gather(1, gold[:, None]).clamp_min(torch.finfo(tokens.dtype).tiny).log())
        self.ece.update(tokens, gold)
        if self.spans:
            self._update_spans(tags, predicted, seen)

    def _update_spans(self, tags: Tensor, predicted: Tensor, seen: Tensor) -> None:
        gold, said = (
            [[self.tags[tag] for tag in row[kept].tolist()] for row, kept in zip(side, seen, strict=True)]
            for side in (tags, predicted)
        )
        for metric, count in zip((self.right, self.found, self.gold), span_counts(gold, said), strict=True):
            metric.update(count)

    def compute(self) -> dict[str, Tensor]:
        """Every measure that there is."""
        values = {"accuracy": self.accuracy.compute(), "whole": self.whole.compute()}
        if self.spans:
            right, both = self.right.compute(), self.found.compute() + self.gold.compute()
            values["f1"] = 2 * right / both.clamp(min=1)
        return {**values, "nll": self.nll.compute(), "ece": self.ece.compute()}

    def reset(self) -> None:
        for metric in self.children():
            metric.reset()  # type: ignore[operator]


def mark_spans(tags: Sequence[str]) -> bool:
    """Whether all tags but ``O`` are those of spans; and there are such.

    They are a letter of BIO, IOB1, BIOES, BILOU or BMES, a hyphen and a type; or letters of BMES alone.
    """
    others = [tag for tag in tags if tag != "O"]
    alone = {"B", "E"} <= set(others) <= set("BMES")
    return alone or (bool(others) and all(tag[:1] in _LETTERS and tag[1:2] == "-" and tag[2:] for tag in others))


def span_counts(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> tuple[int, int, int]:
    """The number of spans that are right, predicted, and gold."""
    from nervaluate import Evaluator

    gold, predicted = ([as_bio(row) for row in side] for side in (gold, predicted))
    kinds = sorted({tag[2:] for row in (*gold, *predicted) for tag in row if tag != "O"})
    if not kinds:
        return 0, 0, 0
    strict = Evaluator(gold, predicted, tags=kinds, loader="list").evaluate()["overall"]["strict"]
    return strict.correct, strict.actual, strict.possible


def as_bio(tags: Sequence[str]) -> list[str]:
    """The same spans in BIO, which nervaluate reads, from the other schemes; after the end of a span another begins.

    Letters that stand alone get a type. nervaluate takes an I that follows no tag of its type for a beginning, as IOB1
    has it.
    """
    letters, before = [], ""
    for tag in tags:
        letter, kind = tag[:1], tag[1:] or "-span"
        begins = before in _ENDS
        letters.append(tag if letter == "O" else ("B" if begins else _LETTERS[letter]) + kind)
        before = letter
    return letters
