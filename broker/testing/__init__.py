"""For other projects' tests: a running Muster of their own (docs/testing.md)."""
