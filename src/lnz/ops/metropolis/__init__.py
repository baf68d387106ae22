"""Metropolis sampling: every node in turn offered a label drawn uniformly from all that it has."""
