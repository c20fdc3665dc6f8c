"""The service with real brokers, databases and devices."""
