"""The backend "cpu" of annealing and tempering: float32 and float64."""

VERBS = {"anneal": "calls", "temper": "calls"}
"""What it can do, and in which of its files that is."""
