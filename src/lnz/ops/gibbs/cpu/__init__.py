"""Numba kernels of the Gibbs sweeps."""
