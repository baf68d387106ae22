"""Many inputs on many machines, by Ray Data."""
