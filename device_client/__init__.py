"""The Muster device agent."""
