"""Signing authorities."""
