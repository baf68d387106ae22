"""The backend "triton" of projective dependency trees: charts in float64, exponentials in float32 or float64."""

VERBS = {"solve": "calls"}
"""What it can do, and in which of its files that is."""
