"""Compiling kernels and keeping them on disk, running them on threads, memory for their results."""
