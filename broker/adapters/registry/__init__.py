"""Registries of devices and certificates."""

from broker.adapters.registry.registry import SqlRegistry

__all__ = ["SqlRegistry"]
