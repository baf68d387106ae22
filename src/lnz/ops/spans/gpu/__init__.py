"""The backend "triton" of binary trees: charts in float64, exponentials in float32 or float64."""

VERBS = {"solve": "calls", "share": "calls"}
"""What it can do, and in which of its files that is."""
