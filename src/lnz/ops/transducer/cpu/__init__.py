"""The backend "cpu" of transducers: float32 and float64."""

VERBS = {
    "joint_arcs": "calls",
    "joint_slopes": "calls",
    "forward_backward": "calls",
    "viterbi": "calls",
}
"""What it can do, and in which of its files that is."""
