"""The backend "triton" of CTC: logits of any floating point dtype, read where they lie; float32 sums, or float64.

The softmax is fused: of each frame its largest logit and its sum are found in one reading, the lattice takes the logits
of the labels of the target out of them, and the gradient is written in one reading more. States lie in memory, row by
row, so that targets may have any length.
"""

VERBS = {
    "solve": "calls",
    "value": "calls",
    "gradient": "calls",
    "slopes": "calls",
    "viterbi": "viterbi",
}
"""What it can do, and in which of its files that is."""
