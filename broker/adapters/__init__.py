"""What the ports mean in the world."""
