"""The backend "cpu" of binary trees: float32 and float64."""

VERBS = {"forward_backward": "calls", "share": "calls", "viterbi": "calls", "sample": "calls"}
"""What it can do, and in which of its files that is."""
