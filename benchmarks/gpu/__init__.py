"""The kernels for accelerators: checked, measured on a card, and compiled for cards that are not there."""
