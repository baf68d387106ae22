"""F1 of entities, for transformers' trainer."""

from __future__ import annotations

from typing import Any

import numpy as np

from lnz.hf.config import CRFConfig
from lnz.nn.entities import SpanRules
from lnz.typing import IGNORE


class EntityMetrics:
    """``compute_metrics`` of a trainer of :class:`~lnz.hf.CRFForTokenClassification`.

    Precision, recall and F1 of entities whose type and both ends are right, over all types together; accuracy of words.
    Words whose label is unknown count in neither. A model whose labels are of no scheme has accuracy alone.

    Args:
        config: ``model.config``.
    """

    def __init__(self, config: CRFConfig) -> None:
        self.rules = None if config.scheme is None else SpanRules(config.labels, config.scheme)  # type: ignore[arg-type]

    def __call__(self, evaluation: Any) -> dict[str, float]:
        """The measures of an ``EvalPrediction`` with all outputs of the model but the loss."""
        tags, labels = np.asarray(evaluation.predictions[1]), np.asarray(evaluation.label_ids)
        seen = labels != IGNORE
        measures = {"accuracy": float((tags == labels)[seen].mean()) if seen.any() else 0.0}
        if self.rules is None:
            return measures
        right = said = there = 0
        for predicted, gold, words in zip(tags, labels, seen, strict=True):
            found, true = (set(self.rules.found(side[words].tolist())) for side in (predicted, gold))
            right, said, there = right + len(found & true), said + len(found), there + len(true)
        measures["precision"], measures["recall"] = right / max(said, 1), right / max(there, 1)
        return measures | {"f1": 2 * right / max(said + there, 1)}
