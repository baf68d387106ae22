"""Filtering forward, sampling backward: the joint draw of all nodes of a forest given the rest."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lnz.checks import broadcast_shapes
from lnz.ops.conditionals.normalised import keep_observed
from lnz.ops.conditionals.random import categorical
from lnz.ops.conditionals.reference import entries_at, label_scores
from lnz.ops.tree_gibbs.blocks import Block, Joint, Level, blocks_of, forest, planned
from lnz.scores import Model


def tree_sweeps(
    model: Model,
    labels: Tensor,
    sweeps: int,
    generator: torch.Generator | None = None,
    blocks: Sequence[Sequence[int]] | None = None,
    temperature: float = 1.0,
) -> Tensor:
    """The labellings after ``sweeps`` sweeps over the blocks, each drawn jointly given the rest.

    O(sweeps · Σ_f L^2) time per chain, one step of tensor operations per depth of the forests. Arguments as in
    :func:`~lnz.ops.gibbs.reference.gibbs_sweeps`; ``blocks`` as in :func:`~lnz.ops.tree_gibbs.blocks.blocks_of`.
    """
    turns = blocks_of(model.graph, blocks, labels.device)
    labels = labels.clone()
    for _ in range(sweeps):
        for block in turns:
            _redraw(model, labels, block, temperature, generator)
    return labels


def forest_moves(
    model: Model, labels: Tensor, temperatures: Sequence[float], generator: torch.Generator | None = None
) -> Tensor:
    """The labellings after a random induced forest was redrawn jointly given the rest, at each of ``temperatures``.

    Forests are grown from the nodes in a random order (Hamze & de Freitas 2004; annealed, for best labellings, Selby
    2014); on a 4-neighbour grid one holds some two thirds of the nodes. O(Σ_f k_f + Σ_f L²) time per chain and forest.

    Args:
        model: observed nodes keep their labels.
        labels: ``int64 [n, *batch, N]``, in range, observed entries as observed.
        temperatures: that all scores are divided by, positive: one per forest.
        generator: of the random numbers; ``None`` is torch's default one.
    """
    labels = labels.clone()
    device = None if generator is None else generator.device
    for temperature in temperatures:
        order = torch.randperm(model.graph.num_nodes, generator=generator, device=device).tolist()
        _redraw(
            model, labels, planned(model.graph, forest(model.graph, order)[0], labels.device), temperature, generator
        )
    return labels


def _redraw(model: Model, labels: Tensor, block: Block, temperature: float, generator: torch.Generator | None) -> None:
    before = labels[..., block.sites.nodes]
    belief = label_scores(model, labels, block.sites).div_(temperature)  # [*lead, M, L], and soon with messages
    if model.observed is not None:
        belief = keep_observed(belief, model.observed[..., block.sites.nodes])
    pairs = [_pair_scores(model, labels, level).div_(temperature) for level in block.levels]
    for level, pair in zip(reversed(block.levels), reversed(pairs), strict=True):
        message = (belief[..., level.children, :, None] + pair).logsumexp(-2)
        belief.index_add_(-2, level.parents, message)
    drawn = before.clone()
    _draw(drawn, block.roots, belief[..., block.roots, :], generator)
    for level, pair in zip(block.levels, pairs, strict=True):
        above = drawn[..., level.parents, None, None]
        table = pair.expand(*above.shape[:-2], *pair.shape[-2:])
        given = table.gather(-1, above.expand(*table.shape[:-1], 1)).squeeze(-1)
        _draw(drawn, level.children, belief[..., level.children, :] + given, generator)
    labels[..., block.sites.nodes] = drawn


def _draw(drawn: Tensor, at: Tensor, scores: Tensor, generator: torch.Generator | None) -> None:
    """Labels from ``scores``; a node none of whose labels is possible keeps the one it has."""
    possible = ~torch.isneginf(scores.amax(-1))
    drawn[..., at] = torch.where(possible, categorical(scores, generator), drawn[..., at])


def _pair_scores(model: Model, labels: Tensor, level: Level) -> Tensor:
    """The scores that join each child of a level to its parent, ``[*lead, C, L, L]`` by (child, parent) label.

    The leading dimensions are left out as far as no factor needs them.
    """
    tables = [_joint_scores(model, labels, joint) for joint in level.joints]
    lead = broadcast_shapes(*(table.shape[:-3] for table in tables))
    L = model.graph.max_cardinality
    dtype = torch.promote_types(model.dtype, torch.float32)
    total = torch.zeros(*lead, len(level.children), L, L, dtype=dtype, device=labels.device)
    for joint, table in zip(level.joints, tables, strict=True):
        rows, columns = table.shape[-2:]
        padded = torch.nn.functional.pad(table.to(dtype), (0, L - columns, 0, L - rows))
        total.index_add_(-3, joint.slots, padded.expand(*lead, *padded.shape[-3:]))
    return total


def _joint_scores(model: Model, labels: Tensor, joint: Joint) -> Tensor:
    """``[*lead, P, Lc, Lp]``: the scores of factors by the labels of child and parent, the rest of the scope fixed."""
    sizes = model.graph.labels[joint.group]
    strides = [math.prod(sizes[i + 1 :]) for i in range(len(sizes))]
    scope = model.graph.scopes[joint.group].to(labels.device)[joint.factors]
    fixed = [i for i in range(len(sizes)) if i not in (joint.child, joint.parent)]
    start = sum((labels[..., scope[:, i]] * strides[i] for i in fixed), torch.zeros_like(joint.factors))
    child, parent = (torch.arange(sizes[i], device=labels.device) * strides[i] for i in (joint.child, joint.parent))
    index = start[..., None] + (child[:, None] + parent).flatten()
    table = entries_at(model.entries[joint.group], len(sizes), joint.factors, index)
    return table.unflatten(-1, (len(child), len(parent)))
