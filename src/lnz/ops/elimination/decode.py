"""Best labellings and samples by variable elimination: the upward pass, then labels from the roots down.

No gradients. The best one and samples are the kernels', the k best the reference's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.ops.elimination import reference
from lnz.ops.elimination.program import program_of
from lnz.ops.elimination.records import KERNELS, arrays
from lnz.semirings import KMax, Log, Max


def argmax(scores: Tensor, base: Tensor, handle: str, labels: Tensor) -> Tensor:
    """A best labelling per row, ``int64 [B, N]``; ``labels`` ``[B, N]`` says those of the nodes that are cut out."""
    return _decode(scores, base, handle, None, labels[None])[0]


def topk(scores: Tensor, base: Tensor, handle: str, k: int) -> tuple[Tensor, Tensor]:
    """The best scores ``[at most k, B]`` and the indicators of their labellings ``[at most k, B, program.size]``.

    The gradient of the j-th best score is the indicator of a labelling that has it, as that of ln Z is the marginals.
    """
    program = program_of(handle)
    with torch.enable_grad():
        scores = scores.detach().requires_grad_()
        best = reference.partition(scores, program.starts(base), program, KMax(k))
        indicators = [torch.autograd.grad(row.sum(), scores, retain_graph=True)[0] for row in best]
    return best.detach(), torch.stack(indicators)


def sample(scores: Tensor, base: Tensor, handle: str, uniforms: Tensor, labels: Tensor) -> Tensor:
    """Independent labellings ``int64 [n, B, N]``, one per ``uniforms`` ``[n, B, cliques]``."""
    return _decode(scores, base, handle, uniforms, labels.expand(len(uniforms), -1, -1))


def _decode(scores: Tensor, base: Tensor, handle: str, uniforms: Tensor | None, labels: Tensor) -> Tensor:
    program = program_of(handle)
    base = program.starts(base)
    run = KERNELS.find("decode", scores)
    if run is not None:
        drawn = None if uniforms is None else uniforms.numpy()
        given, threads = arrays(scores, base), torch.get_num_threads()
        return torch.from_numpy(run(*given, program, drawn, labels.contiguous().numpy(), threads))
    return reference.decode(scores, base, program, Max() if uniforms is None else Log(), uniforms, labels)
