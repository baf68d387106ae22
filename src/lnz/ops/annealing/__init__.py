"""Search for best labellings by Gibbs sweeps at many temperatures: one after the other, or side by side."""

from lnz.ops.annealing.op import anneal, temper
from lnz.ops.annealing.records import Replicas

__all__ = ["Replicas", "anneal", "temper"]
