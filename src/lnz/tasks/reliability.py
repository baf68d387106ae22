"""How often labels are right, by the probability that they are predicted with; the bins of the calibration error."""

from __future__ import annotations

import torch
from torchmetrics.classification import BinaryCalibrationError, MulticlassCalibrationError
from torchmetrics.utilities import dim_zero_cat


def reliability(error: MulticlassCalibrationError | BinaryCalibrationError) -> list[list[float]]:
    """Per bin that holds labels: the mean probability predicted, the share of right labels, the share of all labels.

    Of what the metric has taken in, in all processes; its bins of equal width.
    """
    with error.sync_context():
        if not len(error.confidences):  # type: ignore[arg-type]
            return []
        sure, right = (dim_zero_cat(values).double() for values in (error.confidences, error.accuracies))  # type: ignore[arg-type]
    bins = (sure * error.n_bins).ceil().long().sub(1).clamp(0, error.n_bins - 1)
    counts = torch.bincount(bins, minlength=error.n_bins)
    sums = [torch.bincount(bins, values, error.n_bins) for values in (sure, right)]
    used = counts.nonzero().flatten().tolist()
    return [[float(sums[0][k] / counts[k]), float(sums[1][k] / counts[k]), float(counts[k] / len(sure))] for k in used]
