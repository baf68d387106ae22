"""What predictions are judged by: task errors, which objectives can train for, and the scores of parsers.

Each task error is a callable ``error(gold, predicted)`` of two labellings, integers ``[*batch, N]``, that returns the
error of each batch entry, ``[*batch]``; smaller is better and 0 is perfect. Where gold is −100 (unobserved, padding)
the prediction is not judged. An error that is a sum over labels says so by ``node_costs``, so that loss-augmented
argmax is exact; one that knows what a single change does to it says so by ``change_costs``, which speeds the search up.

Parsers are judged by counts that add up over sentences: :func:`attachment` and :func:`brackets`.
"""

from lnz.metrics.task_errors import CostMatrix, Hamming, IoU, bleu, cost_matrix, edit_distance, hamming, iou
from lnz.metrics.trees import Attachment, Brackets, attachment, brackets

__all__ = [
    "Attachment",
    "Brackets",
    "CostMatrix",
    "Hamming",
    "IoU",
    "attachment",
    "bleu",
    "brackets",
    "cost_matrix",
    "edit_distance",
    "hamming",
    "iou",
]
