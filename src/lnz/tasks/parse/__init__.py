"""Parsing: the tree of a sentence, with an exponential softmax over trees on top."""
