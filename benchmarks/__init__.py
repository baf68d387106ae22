"""Speed against the field: one process, interleaved repeats, numbers checked before any time is taken."""
