"""Numba kernels of mean field on grids."""
