"""Our update verifier behind the interface that TUF's own conformance suite drives."""
