"""`muster update add` and `revoke`: the images that offline keys sign."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from broker.entry.cli.output import note, say
from broker.entry.cli.update_options import update_desk_of
from broker.entry.cli.update_shown import show_staged
from broker.operating.updating import NewImage
from broker.protocol.updates import ImageFacts

_DAY = "%Y-%m-%d"
_CONTACTS = ("mailto:", "https://")


def add(
    context: typer.Context,
    image: Annotated[Path, typer.Argument(help="The image's file.")],
    model: Annotated[str, typer.Option(help="The devices' model.")],
    version: Annotated[str, typer.Option(help="Such as 1.4.0 or 2.0-rc.1.")],
    security_counter: Annotated[
        int, typer.Option(min=0, help="Raise it when older versions must never run again.")
    ],
    component: Annotated[
        str, typer.Option(help="The part of the device that it replaces.")
    ] = "main",
    hw_rev: Annotated[
        list[str] | None, typer.Option(help="A hardware revision that it runs on (else all).")
    ] = None,
    min_source_version: Annotated[
        str | None, typer.Option(help="The oldest version that can be updated to it.")
    ] = None,
    depends: Annotated[
        list[str] | None, typer.Option(help="COMPONENT=VERSION that must run beside it.")
    ] = None,
    sbom: Annotated[Path | None, typer.Option(help="Its bill of materials, a file.")] = None,
    support_until: Annotated[
        datetime | None, typer.Option(formats=[_DAY], help="The last day of support, in UTC.")
    ] = None,
    contact: Annotated[
        str | None, typer.Option(help="Where to report a weakness: mailto:… or https://…")
    ] = None,
    notes: Annotated[str | None, typer.Option(help="What it changes, in a sentence.")] = None,
    path: Annotated[
        str | None, typer.Option(help="The target's path (else MODEL/VERSION/FILE).")
    ] = None,
    allow_lower_counter: Annotated[
        bool, typer.Option("--allow-lower-counter", help="Than an earlier version's.")
    ] = False,
) -> None:
    """Stage an image: copied and hashed, and written into its model's role for signing."""
    if contact is not None and not contact.startswith(_CONTACTS):
        raise typer.BadParameter("give mailto:… or https://…", param_hint="--contact")
    facts = ImageFacts(
        component=component,
        model=model,
        hw_revs=tuple(hw_rev or ()),
        version=version,
        security_counter=security_counter,
        min_source_version=min_source_version,
        depends=_dependencies(depends or ()),
        support_until=_end_of(support_until),
        vulnerability_contact=contact,
        notes=notes,
    )
    new = NewImage(image, facts, path, sbom, allow_lower_counter)
    show_staged(update_desk_of(context).add(new))
    if facts.support_until is not None and facts.support_until <= datetime.now(UTC):
        note(
            "Its support is over already, as devices and 'muster doctor' will say. If that isn't "
            "meant: 'muster update discard', and add it again.",
            "yellow",
        )


def revoke(
    context: typer.Context,
    image: Annotated[
        str, typer.Argument(help="The target's path or SHA-256, or the image's file.")
    ],
    reason: Annotated[str, typer.Option(help="Signed with it, for all to read.")] = "",
) -> None:
    """Stage the removal of an image; in force once it's signed and published. A key is revoked by
    'muster update rotate-root'."""
    staged, paths = update_desk_of(context).revoke(image, reason)
    for path in paths:
        say(f"{path} is taken out.")
    show_staged(staged)


def _dependencies(texts: Sequence[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        component, equals, version = text.partition("=")
        if not equals:
            message = f"{text!r} isn't COMPONENT=VERSION"
            raise typer.BadParameter(message, param_hint="--depends")
        found[component] = version
    return found


def _end_of(day: datetime | None) -> datetime | None:
    """The day's last second: somebody who reads it counts the day in."""
    if day is None:
        return None
    return day.replace(hour=23, minute=59, second=59, tzinfo=UTC)
