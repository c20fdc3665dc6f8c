"""Bytes nobody agreed on."""
