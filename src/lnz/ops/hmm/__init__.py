"""Hidden Markov models, beyond what :mod:`lnz.ops.chain` has: node scores, filtering."""

from lnz.ops.hmm.op import filtered, joined

__all__ = ["filtered", "joined"]
