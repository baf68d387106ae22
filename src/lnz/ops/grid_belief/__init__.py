"""Belief propagation on 4-neighbour grids, by a kernel of its own."""
