"""Kernels of semi-Markov chains; :mod:`lnz.ops.semi_markov.kernel` calls them."""
