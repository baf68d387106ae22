"""``lnz fit latent-class``: classes that nobody saw, from answers to items, by EM."""
