"""``lnz fit bayesnet``: the tables of a Bayesian network from rows with holes, by EM."""
