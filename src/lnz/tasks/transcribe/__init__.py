"""``lnz fit transcribe``: what a recording says, and when."""
