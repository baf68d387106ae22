"""``lnz fit density``: a distribution over binary images, with units that nobody observes."""
