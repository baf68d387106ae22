"""What a segmentation is judged by; each measure adds up over batches and over processes."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassConfusionMatrix,
    MulticlassJaccardIndex,
)

from lnz.typing import IGNORE

TITLES = {"accuracy": "accuracy", "miou": "mIoU", "nll": "marginal NLL", "ece": "ECE"}
HIGHER_IS_BETTER = {"accuracy": True, "miou": True, "nll": False, "ece": False}
PERCENT = ("accuracy", "miou")


class Measures(torch.nn.Module):
    """Pixel accuracy, mean intersection over union, marginal negative log-likelihood and calibration error.

    The marginal negative log-likelihood of a pixel is −ln of the probability of its gold label. Calibration error is
    the expected one, over 15 bins of confidence. Unobserved pixels (−100) count nowhere; classes that neither the gold
    labels nor the prediction show are left out of the mean over classes.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        kwargs = {"num_classes": num_classes, "ignore_index": IGNORE, "validate_args": False}
        self.labels = MetricCollection(
            {
                "accuracy": MulticlassAccuracy(average="micro", **kwargs),
                "miou": MulticlassJaccardIndex(average="macro", **kwargs),
            }
        )
        self.confusion = MulticlassConfusionMatrix(**kwargs)
        self.nll = MeanMetric()
        self.ece = MulticlassCalibrationError(n_bins=15, **kwargs)

    def update(self, beliefs: Tensor, labels: Tensor, predicted: Tensor | None = None) -> None:
        """Take in ``beliefs`` ``[B, L, H, W]`` (probabilities) and gold ``labels`` ``int64 [B, H, W]``.

        ``predicted`` ``int64 [B, H, W]`` is what accuracy and intersections are of; by default, the labels of the
        largest beliefs.
        """
        observed = labels != IGNORE
        pixels = beliefs.clamp(0, 1).movedim(1, -1)[observed]  # rounding may pass 1, which ece would take for a logit
        gold = labels[observed]
        if not len(gold):
            return
        chosen = pixels.argmax(-1) if predicted is None else predicted[observed]
        self.labels.update(chosen, gold)
        self.confusion.update(chosen, gold)
        probability = pixels.gather(-1, gold[:, None])
        self.nll.update(-probability.clamp_min(torch.finfo(pixels.dtype).tiny).log())
        self.ece.update(pixels, gold)

    def compute(self) -> dict[str, Tensor]:
        return {**self.labels.compute(), "nll": self.nll.compute(), "ece": self.ece.compute()}

    def by_class(self) -> tuple[Tensor, Tensor]:
        """Intersection over union of each class, NaN where it is nowhere, and its share of the gold labels; ``[L]``."""
        counts = self.confusion.compute().double()  # [gold, predicted]
        both, gold, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
        return both / (gold + predicted - both), gold / gold.sum()

    def reset(self) -> None:
        self.labels.reset()
        self.confusion.reset()
        self.nll.reset()
        self.ece.reset()
