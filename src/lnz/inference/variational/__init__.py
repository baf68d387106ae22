"""Variational inference: belief propagation, its tree-reweighted bound, mean field, and the interval between bounds."""
