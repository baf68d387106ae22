"""Hidden Markov models, beyond what :mod:`lnz.ops.chain` has: filtering."""

from lnz.ops.hmm.op import filtered

__all__ = ["filtered"]
