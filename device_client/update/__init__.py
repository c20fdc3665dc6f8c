"""Signed updates on the device: trust, choice, installation, report. Loaded only where used."""
