"""The backend "cpu" of grids: float32 and float64, a vector of pixels at a time."""

VERBS = {"Images": "calls"}
"""What it can do, and in which of its files that is."""
