"""Tables of conditional probabilities: checked, and read at the states of parents."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lnz.checks import check_scores, joint_batch_shape, promoted
from lnz.distributions.families import Families


def rows_at(table: Tensor, above: Sequence[Tensor], shape: tuple[int, ...]) -> Tensor:
    """``table [*batch, *parents, card]`` at the states of the parents, each of ``shape [n, *batch]``."""
    axes = len(above) + 1
    flat = table.flatten(-axes, -2) if above else table.unsqueeze(-2)
    index = torch.zeros(shape, dtype=torch.int64, device=table.device)
    for states, size in zip(above, table.shape[-axes:-1], strict=True):
        index = index * size + states
    at = index[..., None, None].expand(*shape, 1, flat.shape[-1])
    return flat.expand(*shape, *flat.shape[-2:]).gather(-2, at).squeeze(-2)


def checked_tables(wiring: Families, log_cpts: Sequence[Tensor], *, values: bool) -> tuple[Tensor, ...]:
    """One table per variable, of one dtype; ``values=False`` does not look at what they hold.

    Raises:
        TypeError, ValueError: another number of them, a wrong type or shape, NaN or +inf.
    """
    if isinstance(log_cpts, Tensor) or len(log_cpts) != len(wiring.cardinalities):
        got = "one tensor" if isinstance(log_cpts, Tensor) else len(log_cpts)
        raise ValueError(f"log_cpts: expected one table per variable, {len(wiring.cardinalities)}, got {got}")
    for variable, table in enumerate(log_cpts):
        name, shape = f"log_cpts[{variable}]", wiring.shape(variable)
        check_scores(name, table, values=values)
        if table.shape[table.dim() - len(shape) :] != shape or table.dim() < len(shape):
            parents = f", of parents {list(wiring.parents[variable])} and the variable" if len(shape) > 1 else ""
            listed = ", ".join(map(str, shape))
            raise ValueError(f"{name}: expected shape [*batch, {listed}]{parents}, got {list(table.shape)}")
    tables = promoted(*log_cpts)
    batches = {f"log_cpts[{v}]": t.shape[: t.dim() - len(wiring.shape(v))] for v, t in enumerate(tables)}
    if len(batches) > 1:
        joint_batch_shape(**batches)
    return tables
