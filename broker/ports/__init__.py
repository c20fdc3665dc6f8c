"""What the services need from the world, as Protocols; the adapters are the world."""
