"""Kernels of the linear chain, in the exponential domain; :mod:`lnz.ops.chain.kernel` calls them."""
