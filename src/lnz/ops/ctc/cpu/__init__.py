"""The backend "cpu" of CTC: float32 and float64, each sum with an exponent of its own, so for any range of scores."""

VERBS = {
    "solve": "calls",
    "value": "calls",
    "gradient": "calls",
    "slopes": "calls",
    "viterbi": "calls",
    "search": "calls",
    "best_states": "calls",
    "word_posteriors": "calls",
}
"""What it can do, and in which of its files that is."""
