"""The Numba kernels of CTC: frames, lattices, best alignments, gradients."""
