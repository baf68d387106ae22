"""Tree-reweighted message passing on any factor graph: an upper bound on ln Z and its pseudo-marginals."""
