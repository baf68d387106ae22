"""What a dependency parser is judged by; each measure adds up over batches and over processes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import MeanMetric, SumMetric
from torchmetrics.classification import BinaryCalibrationError

from lnz.distributions import DependencyTree
from lnz.metrics import attachment


class DependencyMeasures(torch.nn.Module):
    """Attachment scores by the rules of CoNLL 2018, how many outputs are trees, marginal NLL and calibration error.

    The marginal negative log-likelihood of a word is −ln of the probability of its gold head and relation; it is of
    words whose relation training has seen. Calibration error is the expected one, over 15 bins of the probability of
    the head and relation predicted, which are right where both are.

    Args:
        relations: their names.
        single_root: whether a tree has one word under the root.
    """

    def __init__(self, relations: Sequence[str], single_root: bool) -> None:
        super().__init__()
        self.relations, self.single_root = list(relations), single_root
        self.words, self.heads, self.labelled = SumMetric(), SumMetric(), SumMetric()
        self.tree, self.nll = MeanMetric(), MeanMetric()
        self.ece = BinaryCalibrationError(n_bins=15, validate_args=False)

    def update(
        self, predicted: Tensor, marginals: Tensor, trees: Tensor, relations: Sequence[Sequence[str | None]]
    ) -> None:
        """Take in a batch.

        Args:
            predicted: ``int64 [B, N + 1, 2]``.
            marginals: P(head, relation), ``[B, N + 1, N + 1, R]``.
            trees: gold ones, ``int64 [B, N + 1, 2]``, −100 where not known.
            relations: the names of the gold ones, of the N words of each sentence.
        """
        for names, tree, row in zip(relations, trees[..., 0].tolist(), predicted.tolist(), strict=True):
            words = slice(1, len(names) + 1)
            gold = [(None if head < 0 else head, name) for head, name in zip(tree[words], names, strict=True)]
            counts = attachment(gold, [(head, self.relations[relation]) for head, relation in row[words]])
            for metric, count in zip((self.words, self.heads, self.labelled), counts, strict=True):
                metric.update(count)
        self.tree.update(self._are_trees(predicted, [len(names) for names in relations]).float())
        known = (trees[..., 0] >= 0) & (trees[..., 1] >= 0)
        known[:, 0] = False
        gold, said = (self._of(marginals, side)[known] for side in (trees, predicted))
        if known.any():
            self.nll.update(-gold.clamp_min(torch.finfo(gold.dtype).tiny).log())
        self.ece.update(said.clamp(0, 1), (predicted == trees).all(-1)[known].long())

    def _are_trees(self, predicted: Tensor, lengths: Sequence[int]) -> Tensor:
        """Which sentences have heads that make a tree, ``[B]``."""
        M = predicted.shape[1]
        any_tree = DependencyTree(torch.zeros(M, M), lengths, False, self.single_root)
        return any_tree.score(predicted[..., 0].cpu()).isfinite()

    @staticmethod
    def _of(marginals: Tensor, trees: Tensor) -> Tensor:
        """The probability of the head and relation of each word, ``[B, N + 1]``."""
        heads, relations = trees.clamp(min=0).unbind(-1)
        places = heads * marginals.shape[-1] + relations
        return marginals.flatten(2).gather(2, places.unsqueeze(-1)).squeeze(-1)

    def compute(self) -> dict[str, Tensor]:
        """Every measure."""
        words = self.words.compute().clamp(min=1)
        return {
            "uas": self.heads.compute() / words,
            "las": self.labelled.compute() / words,
            "tree": self.tree.compute(),
            "nll": self.nll.compute(),
            "ece": self.ece.compute(),
        }

    def reset(self) -> None:
        for metric in self.children():
            metric.reset()  # type: ignore[operator]
