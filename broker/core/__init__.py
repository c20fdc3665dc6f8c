"""Decisions without I/O, clock or chance."""
