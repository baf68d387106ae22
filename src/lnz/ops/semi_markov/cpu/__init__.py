"""The backend "cpu" of semi-Markov chains: float32 and float64."""

VERBS = {
    "forward_backward": "calls",
    "viterbi": "calls",
    "sample": "calls",
    "expectation": "expectation",
    "covariances": "expectation",
}
"""What it can do, and in which of its files that is."""
