"""The Muster service."""
