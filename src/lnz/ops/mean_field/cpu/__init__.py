"""The backend "cpu" of mean field: 4-neighbour grids, float32 and float64."""

VERBS = {"solver": "grid"}
"""What it can do, and in which of its files that is."""
