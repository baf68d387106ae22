"""``lnz fit segment``: a label for every pixel of an image."""
