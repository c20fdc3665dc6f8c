"""The four guarantees, on every broker."""
