"""Counter-based random numbers: what a draw is depends on what it is for, never on who draws it when."""
