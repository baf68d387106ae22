"""The Numba kernels of transducers: joint scores, lattices, best alignments."""
