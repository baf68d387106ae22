"""Connectionist temporal classification: sums, marginals, best alignments and samples over the paths of a lattice."""

from lnz.ops.ctc.decode import sample, topk
from lnz.ops.ctc.lattice import Lattice, collapse, frames_needed, lattice
from lnz.ops.ctc.linear import linear_log_prob
from lnz.ops.ctc.op import log_partition, log_prob, marginals, surprisal
from lnz.ops.ctc.words import WordPosteriors, Words, best_states, word_posteriors

__all__ = [
    "Lattice",
    "WordPosteriors",
    "Words",
    "best_states",
    "collapse",
    "frames_needed",
    "lattice",
    "linear_log_prob",
    "log_partition",
    "log_prob",
    "marginals",
    "sample",
    "surprisal",
    "topk",
    "word_posteriors",
]
