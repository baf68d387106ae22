"""Iterated conditional modes: one node at a time takes the best label given all others."""
