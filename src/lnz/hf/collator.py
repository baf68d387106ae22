"""Batches of encoded sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lnz.typing import IGNORE

_PADDING = {"word_mask": 0, "labels": IGNORE}


@dataclass
class CRFDataCollator:
    """Pads what :func:`~lnz.hf.encode_words` gives, word masks by 0 and labels by −100, on the tokenizer's side.

    Args:
        tokenizer: pads the rest.
        pad_to_multiple_of: lengths are multiples of this.
    """

    tokenizer: Any
    pad_to_multiple_of: int | None = None

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """A batch ``[B, T]`` per name of an example."""
        others = [{name: values for name, values in each.items() if name not in _PADDING} for each in examples]
        batch = dict(self.tokenizer.pad(others, pad_to_multiple_of=self.pad_to_multiple_of, return_tensors="pt"))
        length, left = batch["input_ids"].shape[1], self.tokenizer.padding_side == "left"
        for name, padding in _PADDING.items():
            if name in examples[0]:
                rows = [list(each[name]) for each in examples]
                pads = [[padding] * (length - len(row)) for row in rows]
                padded = [pad + row if left else row + pad for row, pad in zip(rows, pads, strict=True)]
                batch[name] = torch.tensor(padded, dtype=torch.int64)
        return batch
