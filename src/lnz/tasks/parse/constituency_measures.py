"""What a constituency parser is judged by; each measure adds up over batches and over processes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import MeanMetric, SumMetric
from torchmetrics.classification import BinaryCalibrationError

from lnz.metrics import brackets
from lnz.ops.spans import crossed


class ConstituencyMeasures(torch.nn.Module):
    """F1 of brackets by EVALB's rules, how many outputs are trees, marginal NLL and calibration error.

    The marginal negative log-likelihood of a span is −ln of the probability of the unary chain that it has, or of its
    having none; it is of spans whose chain training has seen, and per word. Calibration error is the expected one, over
    15 bins of the probability of the chains predicted.

    Args:
        labels: unary chains with spaces between; the first one is none.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__()
        self.chains = [label.split(" ") if label else [] for label in labels]
        self.right, self.predicted, self.gold = SumMetric(), SumMetric(), SumMetric()
        self.lost, self.words, self.tree = SumMetric(), SumMetric(), MeanMetric()
        self.ece = BinaryCalibrationError(n_bins=15, validate_args=False)

    def update(
        self, predicted: Tensor, marginals: Tensor, trees: Tensor, gold: Sequence[Sequence[tuple[str, int, int]]]
    ) -> None:
        """Take in a batch.

        Args:
            predicted: ``int64 [B, N, N]``; above 0 where a constituent is.
            marginals: of the labels, ``[B, N, N, L]``.
            trees: gold ones, ``int64 [B, N, N]``, −100 where not known.
            gold: the constituents of each sentence, tags of words too.
        """
        there = predicted > 0
        for row, known in zip(predicted, gold, strict=True):
            counts = brackets(known, [*self._named(row), *_tags(known)])
            for metric, count in zip((self.right, self.predicted, self.gold), counts, strict=False):
                metric.update(count)
            self.words.update(sum(1 for _ in _tags(known)))
        self.tree.update((~(there & crossed(there)).flatten(1).any(1)).float())
        N = trees.shape[1]
        judged = torch.ones(N, N, dtype=torch.bool, device=trees.device).triu() & (trees != -100)
        own = marginals.gather(3, trees.clamp(min=1)[..., None].clamp(max=marginals.shape[3] - 1)).squeeze(3)
        none = (1 - marginals[..., 1:].sum(3)).clamp_min(torch.finfo(marginals.dtype).eps)
        p = torch.where(trees > 0, own.clamp_min(torch.finfo(marginals.dtype).tiny), none)
        self.lost.update(-p[judged].log().sum())
        said = there & judged  # none, perhaps, which is an update too
        chosen = marginals.gather(3, predicted.clamp(min=0)[..., None]).squeeze(3)
        self.ece.update(chosen[said].clamp(0, 1), (predicted == trees)[said].long())

    def _named(self, row: Tensor) -> list[tuple[str, int, int]]:
        """The constituents of labels ``[N, N]``, each before those inside it."""
        spans = sorted(((row > 0).nonzero()).tolist(), key=lambda span: (span[0], -span[1]))
        return [(label, start, last + 1) for start, last in spans for label in self.chains[int(row[start, last])]]

    def compute(self) -> dict[str, Tensor]:
        """Every measure."""
        both = self.predicted.compute() + self.gold.compute()
        return {
            "f1": 2 * self.right.compute() / both.clamp(min=1),
            "tree": self.tree.compute(),
            "nll": self.lost.compute() / self.words.compute().clamp(min=1),
            "ece": self.ece.compute(),
        }

    def reset(self) -> None:
        for metric in self.children():
            metric.reset()  # type: ignore[operator]


def _tags(constituents: Sequence[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    """The tag of each word, its innermost constituent."""
    return list({start: (label, start, stop) for label, start, stop in constituents if stop == start + 1}.values())
