"""Linear chains: ln Z, marginals, best labellings and samples. Shapes as in :mod:`lnz.ops.chain.reference`."""

from lnz.ops.chain.decode import sample, topk
from lnz.ops.chain.op import forward_backward

__all__ = ["forward_backward", "sample", "topk"]
