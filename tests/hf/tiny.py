"""A BERT of two layers with random weights, its tokenizer, and a CRF on top, without a network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

LABELS = ["O", "B-X", "I-X", "B-Y", "I-Y"]
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s", "sleep", "##ing", "a", "b", ",", "."]
LONGEST = 12


def tokenizer(folder: Path, **options: Any) -> Any:
    import transformers

    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    return transformers.BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=LONGEST, **options)


def bert(seed: int = 0, **options: Any) -> Any:
    import transformers

    torch.manual_seed(seed)
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    settings = {"vocab_size": len(PIECES), "max_position_embeddings": LONGEST, "initializer_range": 0.5} | sizes
    return transformers.BertModel(transformers.BertConfig(**settings | options))


def model(
    labels: Sequence[str] = LABELS, scheme: Any = "auto", encoder: Any = None, *, strong: float = 1.0, **settings: Any
) -> Any:
    """A model ready to predict, whose scores are far from 0."""
    from lnz.hf import CRFForTokenClassification

    settings = {"special_token_ids": [0, 2, 3]} | settings
    made = CRFForTokenClassification.from_encoder(encoder or bert(), labels, scheme, **settings)
    with torch.no_grad():
        for parameter in (*made.crf.parameters(), *made.classifier.parameters()):
            parameter.normal_(0, strong)
    return made.eval()


def ids(B: int, T: int, seed: int = 0) -> torch.Tensor:
    """Pieces of words alone, random."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(5, len(PIECES), (B, T), generator=generator)
