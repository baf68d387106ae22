"""The backend "cpu" of joint draws of forests: float32 and float64."""

VERBS = {
    "tree_sweeps": "calls",
    "forest_moves": "calls",
}
"""What it can do, and in which of its files that is."""
