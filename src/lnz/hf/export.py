"""A CRF on an encoder as an ONNX file that gives tags and marginals."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from lnz.hf.model import CRFForTokenClassification


def export_onnx(model: CRFForTokenClassification, file: str | Path) -> None:
    """Write a model as an ONNX file, for any number of sentences of any length (extra ``onnx``).

    Its inputs are ``input_ids``, ``attention_mask`` and ``word_mask``, ``int64 [B, T]``; its outputs ``logits``
    ``[B, T, L]``, ``tags`` ``int64 [B, T]`` (−100 where there is no word) and ``marginals`` ``[B, T, L]``. As nothing
    can be raised there, a sentence without a possible tagging has tags −100 and marginals 0.

    Args:
        model: on the CPU; it is exported as for prediction.
        file: to write; weights over 2 GB go into a second file beside it.
    """
    device = model.device
    ids = torch.zeros(2, 5, dtype=torch.int64, device=device)
    mask = torch.tensor([[0, 1, 0, 1, 1], [0, 1, 1, 0, 0]], device=device)
    sizes = {0: torch.export.Dim("sentences"), 1: torch.export.Dim("positions")}
    names = ("input_ids", "attention_mask", "word_mask")
    training = model.training
    torch.onnx.export(
        _Exported(model).eval(),
        (ids, torch.ones_like(ids), mask),
        str(file),
        input_names=list(names),
        output_names=["logits", "tags", "marginals"],
        dynamic_shapes=dict.fromkeys(names, sizes),
        dynamo=True,
        verbose=False,
    )
    model.train(training)


class _Exported(nn.Module):
    def __init__(self, model: CRFForTokenClassification) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, word_mask: Tensor) -> tuple[Tensor, ...]:
        found = self.model(input_ids, attention_mask, word_mask=word_mask, return_dict=True)
        return found.logits, found.tags, found.marginals
