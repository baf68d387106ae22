"""Tagging: a label for every element of a sequence, with a chain on top."""
