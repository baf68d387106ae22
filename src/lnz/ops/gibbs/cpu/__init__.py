"""The backend "cpu" of Gibbs and Metropolis sweeps: float32 and float64."""

VERBS = {
    "gibbs_sweeps": "calls",
    "metropolis_sweeps": "graph",
}
"""What it can do, and in which of its files that is."""
