"""The kernels of belief propagation on grids, in Numba."""
