"""Registries of devices and certificates."""
