"""Transducers: sums, occupancies, best alignments and samples over the paths of a lattice of frames and labels."""

from lnz.ops.transducer.clamped import clamped_log_prob
from lnz.ops.transducer.decode import sample, topk
from lnz.ops.transducer.joint import arcs
from lnz.ops.transducer.lattice import Lattice
from lnz.ops.transducer.op import forward_backward, log_prob, surprisal

__all__ = [
    "Lattice",
    "arcs",
    "clamped_log_prob",
    "forward_backward",
    "log_prob",
    "sample",
    "surprisal",
    "topk",
]
