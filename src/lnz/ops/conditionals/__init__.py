"""The score of every label of a node given the labels of all others, and which nodes may be updated together."""
