"""Sampling: Markov chains, how well they mix, and annealed importance sampling."""
