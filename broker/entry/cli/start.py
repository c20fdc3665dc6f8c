"""The command's entry point; it answers at once what needs no command's imports."""

import importlib.metadata
import sys


def main() -> None:
    """Carries out the process's command line."""
    if sys.argv[1:] == ["--version"]:
        print(importlib.metadata.version("mqtt-muster"))
        return
    from broker.entry.cli.main import main as carry_out  # all commands, and what they import

    carry_out()
