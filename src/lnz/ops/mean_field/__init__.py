"""Naive mean field on any factor graph: the product distribution nearest to the model, and its lower bound on ln Z."""
