"""The backend "cpu" of variable elimination: float32 and float64."""

VERBS = {
    "marginals": "sharing",
    "partition": "sharing",
    "surprisal": "sharing",
    "decode": "sharing",
    "evidence": "evidence_calls",
}
"""What it can do, and in which of its files that is."""
