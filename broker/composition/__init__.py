"""The service put together: which adapters it has, and what it does unasked."""
