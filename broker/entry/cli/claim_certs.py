"""`muster claim-cert`: bootstrap certificates, one for each batch of devices."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from broker.core.campaign import Selection, SelectionKind
from broker.core.durations import parse_duration
from broker.core.lifecycle import DeviceInput
from broker.core.records import Device
from broker.entry.cli.asking import to_act_on
from broker.entry.cli.device_acts import (
    TIMEOUT_S,
    How,
    ReasonOption,
    TimeoutOption,
    carry_out,
    checked_reason,
)
from broker.entry.cli.options import DryRunOption, JsonOption, common, with_registry
from broker.entry.cli.output import STYLES, counted, emit, note, say, table
from broker.entry.cli.rotate import begin
from broker.entry.cli.views import claim_json, claim_state, device_json, shown_time
from broker.operating.installation import Installation, SecretFile
from broker.ports.registry import DeviceFilter, Registry
from broker.protocol.names import DeviceId
from broker.services import campaigns, claim_certificates, device_acts
from broker.services.claim_certificates import ClaimUse, Wanted
from broker.services.group_file import MAX_LIFETIME
from broker.services.problems import Problem, ProblemCode

commands = typer.Typer(
    help="Claim certificates: what a batch of devices is flashed with.", no_args_is_help=True
)


@commands.command("create")
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A name for the batch, never used before.")],
    max_claims: Annotated[
        int, typer.Option(min=1, help="How many devices may claim with it; some to spare.")
    ],
    expires: Annotated[str, typer.Option(help="For how long: 30d, 12h …")] = "30d",
    output: Annotated[
        Path | None, typer.Option(help="The bundle's file (else NAME.bundle.json here).")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a claim certificate and the bundle to flash on a batch."""
    installation = to_act_on(context)
    path = output or Path(f"{name}.bundle.json")
    wanted = Wanted(name, max_claims, _lifetime(expires))
    authority = installation.claim_authority()
    claim = with_registry(
        installation,
        lambda registry: claim_certificates.create(
            registry, installation.clock, authority, wanted, SecretFile(path)
        ),
    )
    if as_json:
        now = installation.clock.now()
        emit(claim_json(claim, None, now) | {"bundle": str(path)})
    else:
        say(str(path))
    claims = counted(claim.max_claims, "claim")
    note(f"{claim.name}: {claims} until {shown_time(claim.not_after)}.")
    note(f"Whoever reads {path} can ask for membership: keep it 0600, flash it, delete it.")
    if installation.lacks_update_root():
        note(
            "The bundle has no update root, as the update repository isn't published yet: its "
            "devices take no updates. 'muster update publish' first and make another bundle, or "
            "give them 1.root.json later by 'muster-device claim --update-root FILE'.",
            STYLES["warning"],
        )
    note(f"Next: list {name!r} in a group file's claim_certificates and 'muster group apply' it.")


@commands.command("list")
def list_(context: typer.Context, as_json: JsonOption = False) -> None:
    """All claim certificates, and what they are still good for."""
    installation = common(context).installation()
    found = with_registry(installation, claim_certificates.uses)
    now = installation.clock.now()
    if as_json:
        for use in found:
            emit(claim_json(use.claim, use.group, now))
        return
    rows = [
        (
            use.claim.name,
            claim_state(use.claim, now),
            use.group or "-",
            f"{use.claim.claims}/{use.claim.max_claims}",
            shown_time(use.claim.not_after),
        )
        for use in found
    ]
    table(("name", "state", "group", "claims", "expires"), rows)


@commands.command("revoke")
def revoke(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Whose devices may claim no more.")],
    revoke_devices: Annotated[
        bool, typer.Option("--revoke-devices", help="And every device that claimed with it.")
    ] = False,
    rotate_devices: Annotated[
        bool, typer.Option("--rotate-devices", help="And have its devices renew, at a safe pace.")
    ] = False,
    reason: ReasonOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    timeout: TimeoutOption = TIMEOUT_S,
) -> None:
    """Take a claim certificate back; devices that have claimed already stay, unless you say so."""
    if revoke_devices and rotate_devices:
        raise typer.BadParameter("who is revoked can't renew: give one of the two options")
    why = checked_reason(reason)
    installation = to_act_on(context)
    how = How(dry_run, as_json, timeout)
    if dry_run:
        _preview(installation, name, stay=not (revoke_devices or rotate_devices), as_json=as_json)
    else:
        _take_back(installation, name, why, as_json=as_json)
    if revoke_devices:
        because = why or f"claim certificate {name} was revoked"
        wanted = device_acts.Wanted(DeviceInput.REVOKE, because)
        chosen = with_registry(installation, lambda registry: _claimed(registry, name))
        carry_out(installation, chosen, wanted, how)
    if rotate_devices:
        _rotate(installation, name, how)


@commands.command("show")
def show(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The claim certificate.")],
    as_json: JsonOption = False,
) -> None:
    """One claim certificate, and every device that claimed with it."""
    installation = common(context).installation()
    use, devices = with_registry(installation, lambda registry: _one(registry, name))
    now = installation.clock.now()
    if as_json:
        shown = [device_json(device) for device in devices]
        emit(claim_json(use.claim, use.group, now) | {"devices": shown})
        return
    fields = {
        "state": claim_state(use.claim, now),
        "group": use.group or "-",
        "claims": f"{use.claim.claims}/{use.claim.max_claims}",
        "expires": shown_time(use.claim.not_after),
        "revoked": shown_time(use.claim.revoked_at),
    }
    table(("field", "value"), list(fields.items()), title=f"claim certificate {name}")
    rows = [(d.id, d.state.value, d.serial, shown_time(d.activated_at)) for d in devices]
    table(("device", "state", "serial", "active since"), rows, title="claimed with it")
    note(f"{counted(len(devices), 'device')}. What was refused: 'muster events --claim {name}'.")
    note(
        f"If it leaked: 'muster claim-cert revoke {name}', and if need be with --rotate-devices "
        "or --revoke-devices."
    )


def _take_back(installation: Installation, name: str, reason: str | None, *, as_json: bool) -> None:
    number = with_registry(
        installation, lambda registry: _revoke(installation, registry, name, reason)
    )
    if as_json:
        use = with_registry(installation, lambda registry: claim_certificates.find(registry, name))
        shown = claim_json(use.claim, use.group, installation.clock.now())
        emit(shown | {"dry_run": False, "crl_number": number})
    else:
        say(f"{name} is revoked.")
    note(f"CRL number {number} is in place; a running service applies it within a second.")


def _preview(installation: Installation, name: str, *, stay: bool, as_json: bool) -> None:
    use = with_registry(installation, lambda registry: claim_certificates.find(registry, name))
    if as_json:
        shown = claim_json(use.claim, use.group, installation.clock.now())
        emit(shown | {"dry_run": True, "crl_number": None})
    else:
        _announce(use, stay=stay)


def _rotate(installation: Installation, name: str, how: How) -> None:
    """Starts the campaign, unless one has begun since the revocation."""
    selection = Selection(SelectionKind.CLAIM, name)
    use = with_registry(installation, lambda registry: claim_certificates.find(registry, name))
    since = use.claim.revoked_at
    begun = with_registry(
        installation, lambda registry: campaigns.begun(registry, selection, since)
    )
    if begun is None:
        reason = f"claim certificate {name} was revoked"
        begin(
            installation,
            campaigns.Wanted(selection, reason=reason),
            dry_run=how.dry_run,
            as_json=how.as_json,
        )
    elif begun.is_over:
        note(
            f"Campaign {begun.id} had its devices renew since: {begun.done:,} have followed, "
            f"{begun.dropped:,} were left out. None is started; for another: "
            f"'muster rotate start --claimed-by {name}'."
        )
    else:
        note(
            f"Campaign {begun.id} is {begun.state} for its devices already: {begun.settled:,} of "
            f"{begun.total:,} are done with. None is started; "
            f"see 'muster rotate status {begun.id}'."
        )


async def _one(registry: Registry, name: str) -> tuple[ClaimUse, list[Device]]:
    use = await claim_certificates.find(registry, name)
    wanted = DeviceFilter(claim_name=use.claim.name)
    return use, await device_acts.found(registry, wanted)


async def _claimed(registry: Registry, name: str) -> list[DeviceId]:
    _, devices = await _one(registry, name)
    return [device.id for device in devices]


async def _revoke(
    installation: Installation, registry: Registry, name: str, reason: str | None
) -> int:
    await claim_certificates.revoke(registry, installation.clock, name, reason)
    try:
        return await claim_certificates.publish_crl(
            registry,
            installation.clock,
            installation.claim_authority(),
            installation.claim_crl_file(),
        )
    except Exception as error:
        raise _half_done(name, error) from error


def _half_done(name: str, error: Exception) -> Problem:
    """The registry's refusal stands alone; it's enough against claims, not against connections."""
    return Problem(
        ProblemCode.CRL_UNSIGNED,
        f"{name} is revoked in the registry: no claim with it is accepted any more. But the claim "
        f"broker still lets it connect, because its CRL couldn't be renewed: {error}",
        "Run the same command again where the claim authority's key (and its passphrase) is.",
    )


def _announce(use: ClaimUse, *, stay: bool) -> None:
    claim = use.claim
    if claim.revoked_at is not None:
        say(f"{claim.name} was revoked at {shown_time(claim.revoked_at)}; its CRL is signed anew.")
        return
    left = max(0, claim.max_claims - claim.claims)
    unused = counted(left, "claim")
    say(f"{claim.name} (group {use.group or '-'}) would be revoked, with {unused} unused.")
    if stay:
        say(f"Who claimed with it stays a member: {counted(claim.claims, 'device')}.")
        say("Nothing was changed.")


def _lifetime(text: str) -> timedelta:
    try:
        lifetime = parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--expires") from error
    if lifetime > MAX_LIFETIME:
        raise typer.BadParameter(f"at most {MAX_LIFETIME.days}d", param_hint="--expires")
    return lifetime
