"""The baselines beside the distributions over trees: a softmax per word or per span, each by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lnz.distributions import Softmax
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


def arc_softmax(parser: DependencyParser, batch: Mapping[str, Any]) -> Softmax:
    """Over the heads and relations of each word, ``[B, N + 1, (N + 1) R]``."""
    roles = parser.scorer.roles(parser.encoder(batch))
    heads = _log_heads(parser.scorer.arcs(roles), batch["lengths"])
    return Softmax((heads.unsqueeze(-1) + parser.scorer.labels(roles)).flatten(2))


def arc_places(trees: Tensor, relations: int) -> Tensor:
    """Gold heads and relations ``[B, N + 1, 2]`` as labels of :func:`arc_softmax`; −100 where one is not known."""
    heads, labels = trees.unbind(-1)
    unknown = (heads == IGNORE) | (labels == IGNORE) | (torch.arange(heads.shape[1], device=heads.device) == 0)
    return (heads * relations + labels).masked_fill(unknown, IGNORE)


def arc_beliefs(p: Softmax, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """The best head and relation of each word ``[B, N + 1, 2]``, and P(head, relation) ``[B, N + 1, N + 1, R]``."""
    joint = p.marginals.unflatten(2, (p.batch_shape[1], -1))
    place = p.argmax()
    best = torch.stack((place // joint.shape[3], place % joint.shape[3]), -1)
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
    gold = span_places(trees, batch["lengths"])
    return F.cross_entropy(parser.scores(batch).flatten(0, 2), gold.flatten(), ignore_index=IGNORE, reduction="sum")


def span_softmax(parser: SpanParser, batch: Mapping[str, Any]) -> Softmax:
    """Over the labels of each span, ``[B, N, N, L]``."""
    return Softmax(parser.scores(batch))


def span_places(trees: Tensor, lengths: Tensor) -> Tensor:
    """Gold labels ``[B, N, N]``: 0 for spans that are none, −100 where not known, and where there is no span."""
    known = within(trees.shape[1], lengths) & (trees != IGNORE)
    return trees.clamp(min=0).masked_fill(~known, IGNORE)


def span_beliefs(p: Softmax, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """The best label of each span ``[B, N, N]``, −1 where that is 0, and P(label) ``[B, N, N, L]``."""
    best, inside = p.argmax(), within(p.batch_shape[1], lengths)
    return best.masked_fill(~inside | (best == 0), -1), p.marginals.masked_fill(~inside.unsqueeze(3), 0.0)
