"""The backend "triton" of linear chains: any range of scores, in the dtype of the scores, float32 at least.

A pass is the forward recursion alone (``forward``). What follows from it, marginals or the gradient of ln P(y), is one
recursion backwards by conditionals (``backward``). Long chains of a small batch are cut into blocks of steps that run
side by side (``blocks``).
"""

VERBS = {
    "filtered": "calls",
    "labelled": "calls",
    "smoothed": "calls",
    "viterbi": "viterbi",
    "sample_in_any_range": "sample",
}
"""What it can do, and in which of its files that is."""
