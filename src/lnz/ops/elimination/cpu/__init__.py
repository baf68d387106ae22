"""Kernels of variable elimination, in Numba: what goes up and down the tree, and expectations on the way up."""
