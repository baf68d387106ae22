"""Sequential message passing in Numba."""
