"""Gibbs sampling in blocks that induce forests, each drawn exactly given the rest."""
