"""The backend "cpu" of linear chains: float32 and float64, in the exponential domain, and in logarithms beyond that."""

VERBS = {
    "forward_backward": "forward_backward",
    "log_prob": "numerator",
    "log_prob_gradient": "numerator",
    "fused_log_prob": "fused_nll",
    "viterbi": "viterbi",
    "topk": "topk",
    "max_marginals": "max_marginals",
    "sample": "sample",
    "expectation": "expectation",
    "covariances": "expectation",
    "forward_backward_in_logs": "in_logs",
    "edges_in_logs": "in_logs",
    "log_prob_in_logs": "in_logs",
    "sample_in_logs": "in_logs",
    "filtered_in_logs": "in_logs",
}
"""What it can do, and in which of its files that is."""
