"""Sequential tree-reweighted message passing: a labelling, and an upper bound on the score of every labelling."""
