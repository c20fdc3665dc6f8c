"""The device's updates, one part at a time."""
