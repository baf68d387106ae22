"""Encoders of transformers under a CRF: without a pooling layer, and which of their tokens stand for no word."""

from __future__ import annotations

import copy
import inspect
from typing import Any

from transformers import AutoModel, PreTrainedConfig, PreTrainedModel

SPECIAL = ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")


def special_ids(config: PreTrainedConfig, tokenizer: Any) -> set[int]:
    """Tokens that stand for no word: all special ones, but those that stand for an unknown or a hidden word."""
    if tokenizer is not None:
        return set(tokenizer.all_special_ids) - {tokenizer.unk_token_id, getattr(tokenizer, "mask_token_id", None)}
    found = [getattr(config, name, None) for name in SPECIAL]
    return {token for token in found if isinstance(token, int)}


def random_encoder(config: PreTrainedConfig) -> PreTrainedModel:
    """An encoder of a configuration, without a pooling layer."""
    kind: Any = AutoModel._model_mapping[type(config)]
    return AutoModel.from_config(config, **({"add_pooling_layer": False} if _may_pool(kind) else {}))


def without_pooling(model: PreTrainedModel) -> PreTrainedModel:
    """The same modules but the pooling layer, whose unused weights would stop distributed training."""
    if not _may_pool(type(model)) or getattr(model, "pooler", None) is None:
        return model
    same = copy.copy(model)
    same._modules = {**model._modules, "pooler": None}
    return same


def _may_pool(kind: Any) -> bool:
    return "add_pooling_layer" in inspect.signature(kind.__init__).parameters
