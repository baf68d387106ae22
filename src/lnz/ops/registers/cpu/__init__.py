"""For Numba kernels: LLVM vectors, since loops over few numbers spend more on starting than on arithmetic."""
