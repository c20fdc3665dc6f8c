"""Muster beside other people's tools."""
