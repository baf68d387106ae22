"""Gibbs sampling: every node in turn redrawn from its conditional distribution given all others."""
