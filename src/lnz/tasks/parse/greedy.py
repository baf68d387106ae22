"""The baselines beside the distributions over trees: a softmax per word or per span, each by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lnz.nn import DependencyParser, SpanParser
from lnz.ops.charts import within
from lnz.typing import IGNORE


def arcs_nll(parser: DependencyParser, batch: Mapping[str, Any], trees: Tensor) -> Tensor:
    """−Σ ln P(head) − Σ ln P(relation | head) of words whose gold ones are known, over the batch."""
    roles = parser.scorer.roles(parser.encoder(batch))
    heads = trees[..., 0]
    log_p = _log_heads(parser.scorer.arcs(roles), batch["lengths"])
    lost = F.nll_loss(log_p[:, 1:].flatten(0, 1), heads[:, 1:].flatten(), ignore_index=IGNORE, reduction="sum")
    return lost + parser.relation_nll(parser.scorer.labels_of(roles, heads), trees)


def arc_beliefs(parser: DependencyParser, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """The best head and relation of each word ``[B, N + 1, 2]``, and P(head, relation) ``[B, N + 1, N + 1, R]``."""
    roles, lengths = parser.scorer.roles(parser.encoder(batch)), batch["lengths"]
    joint = (_log_heads(parser.scorer.arcs(roles), lengths).unsqueeze(-1) + parser.scorer.labels(roles)).exp()
    tops, relations = joint.max(-1)
    heads = tops.argmax(-1)
    best = torch.stack((heads, relations.gather(2, heads.unsqueeze(-1)).squeeze(-1)), -1)
    best[:, 0] = 0
    beyond = torch.arange(best.shape[1], device=best.device) > lengths.unsqueeze(-1)
    return best.masked_fill(beyond.unsqueeze(-1), IGNORE), joint


def _log_heads(arcs: Tensor, lengths: Tensor) -> Tensor:
    """ln P(head) of each word ``[B, N + 1, N + 1]``: any word of the sentence but itself, or the root."""
    places = torch.arange(arcs.shape[-1], device=arcs.device)
    never = (places[:, None] == places) & (places > 0)
    beyond = places > lengths[:, None, None]
    return arcs.masked_fill(never | beyond, -torch.inf).log_softmax(-1)


def spans_nll(parser: SpanParser, batch: Mapping[str, Any], trees: Tensor) -> Tensor:
    """−Σ ln P(label) of the spans whose gold one is known, label 0 for those that are none, over the batch."""
    scores = parser.scores(batch)
    known = within(scores.shape[1], batch["lengths"]) & (trees != IGNORE)
    return F.cross_entropy(scores[known], trees[known].clamp(min=0), reduction="sum")


def span_beliefs(parser: SpanParser, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """The best label of each span ``[B, N, N]``, −1 where that is 0, and P(label) ``[B, N, N, L]``."""
    scores = parser.scores(batch)
    inside = within(scores.shape[1], batch["lengths"])
    best = scores.argmax(3)
    p = scores.softmax(3).masked_fill(~inside.unsqueeze(3), 0.0)
    return best.masked_fill(~inside | (best == 0), -1), p
