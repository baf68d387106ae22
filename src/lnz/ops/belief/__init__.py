"""Belief propagation on any factor graph: messages, the Bethe ln Z and its gradient, the beliefs."""
