"""The backend "cpu" of projective dependency trees."""

VERBS = {
    "inside_outside": "inside_outside",
    "inside_outside_in_logs": "in_logs",
    "viterbi": "viterbi",
}
"""In which file each verb is, so that a first call compiles no more than it needs."""
