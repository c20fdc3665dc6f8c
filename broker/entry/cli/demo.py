"""`muster demo`: see it work."""

from typing import Annotated, Final

import typer

MOST: Final = 1000


def demo(
    devices: Annotated[int, typer.Option(min=1, max=MOST, help="How many claim.")] = 25,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the installation there.")] = False,
) -> None:
    """See it work: an installation, the service, and 25 devices that claim and update on this
    machine; then all gone."""
    from broker.entry.cli.demo_course import demonstrate  # with the device agent, for this alone

    demonstrate(devices, keep)
