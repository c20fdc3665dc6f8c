"""Requests that arrive over MQTT."""
