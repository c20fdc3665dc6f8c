"""What every registry keeps, proven on each database."""
