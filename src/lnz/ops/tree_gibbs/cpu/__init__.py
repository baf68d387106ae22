"""Forests in Numba: how one is grown, and the joint draw of its nodes."""
