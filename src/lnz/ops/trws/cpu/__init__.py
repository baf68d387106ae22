"""The backend "cpu" of sequential message passing: float32 and float64."""

VERBS = {"turns": "calls"}
"""What it can do, and in which of its files that is."""
