"""Any encoder of Hugging Face's transformers: the features of a word are those of its first piece."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from lnz.errors import FormatError


class HuggingFaceEncoder(nn.Module):
    """A pretrained encoder with its tokenizer, from words to the last hidden state of the first piece of each.

    What is needed to make it again, without its files, is ``description``: plain values for a checkpoint.

    Args:
        model: as ``transformers.AutoModel`` makes it.
        tokenizer: a fast one, which knows the word that each piece is of.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        super().__init__()
        if not getattr(tokenizer, "is_fast", False):
            raise FormatError(
                f"model.pretrained: expected a model with a fast tokenizer, got {type(tokenizer).__name__}"
            )
        self.model, self.tokenizer = model.train(), tokenizer  # which is made ready to predict, without dropout
        self.width: int = model.config.hidden_size
        from lnz.hf.words import longest_input

        self.longest = longest_input(model, tokenizer)

    @classmethod
    def from_pretrained(cls, pretrained: str) -> HuggingFaceEncoder:
        """The encoder of a name on the hub or of a folder.

        Raises:
            FormatError: there is no such model, or its files cannot be read.
            ImportError: transformers is not installed.
        """
        transformers = _transformers()
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(pretrained, use_fast=True, add_prefix_space=True)
            model = transformers.AutoModel.from_pretrained(pretrained, dtype=torch.float32)
        except (OSError, ValueError, KeyError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            raise FormatError(f"model.pretrained: cannot load {pretrained!r} ({reason})") from error
        return cls(model, tokenizer)

    @classmethod
    def from_description(cls, description: Mapping[str, str]) -> HuggingFaceEncoder:
        """The encoder of a ``description``, with weights that are yet to be loaded."""
        transformers = _transformers()
        config = json.loads(description["config"])
        tokenizer = transformers.PreTrainedTokenizerFast(
            tokenizer_object=_tokenizers().Tokenizer.from_str(description["tokenizer"]),
            **json.loads(description["special"]),
        )
        return cls(transformers.AutoModel.from_config(transformers.AutoConfig.for_model(**config)), tokenizer)

    @property
    def description(self) -> dict[str, str]:
        """The configuration and the tokenizer, as JSON."""
        special = {name: str(token) for name, token in self.tokenizer.special_tokens_map.items() if token}
        special["model_max_length"] = self.tokenizer.model_max_length
        return {
            "config": self.model.config.to_json_string(use_diff=False),
            "tokenizer": self.tokenizer.backend_tokenizer.to_str(),
            "special": json.dumps(special),
        }

    def forward(self, batch: Mapping[str, Any]) -> Tensor:
        """``tokens``, the words of each sentence, to features ``[B, T, width]``, of any value over padding.

        Raises:
            ValueError: a sentence of more pieces than the encoder takes.
        """
        sentences: Sequence[Sequence[str]] = batch["tokens"]
        pieces, first = self._pieces(sentences)
        device = next(self.model.parameters()).device
        hidden = self.model(**{name: values.to(device) for name, values in pieces.items()}).last_hidden_state
        return hidden.gather(1, first.to(device).unsqueeze(2).expand(-1, -1, self.width))

    def _pieces(self, sentences: Sequence[Sequence[str]]) -> tuple[dict[str, Tensor], Tensor]:
        """The tokenizer's tensors ``[B, P]``, and the place of each word's first piece, ``int64 [B, T]``."""
        from lnz.hf.words import first_pieces

        encoded, places = first_pieces(self.tokenizer, sentences, padding=True, return_tensors="pt")
        length = encoded["input_ids"].shape[1]
        if length > self.longest:
            counts = encoded["attention_mask"].sum(1)
            words = " ".join(sentences[int(counts.argmax())][:8])
            raise ValueError(
                f"model.pretrained: expected sentences of at most {self.longest} pieces, got {length}: {words!r} …"
            )
        rows = [torch.tensor([place[k] for k in range(len(place))]) for place in places]
        return dict(encoded), nn.utils.rnn.pad_sequence(rows, batch_first=True)


def _transformers() -> ModuleType:
    try:
        import transformers
    except ImportError as error:
        raise ImportError("--model.encoder hf needs transformers: pip install 'lnz[transformers]'") from error
    transformers.utils.logging.set_verbosity_error()
    return transformers


def _tokenizers() -> ModuleType:
    import tokenizers

    return tokenizers
