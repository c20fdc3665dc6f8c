"""What is wrong, or soon will be, with the update repository."""

import asyncio
from collections.abc import Iterator
from datetime import datetime
from typing import Final

from broker.core.findings import Finding, Level
from broker.core.metadata_lifetime import support_state
from broker.ports.registry import Registry
from broker.ports.updates import Lapse, PublishedTarget, UpdateError, UpdateRepository

_REMEDIES: Final = {
    "root": "Run 'muster update rotate-root', sign with the root keys, and publish.",
    "snapshot": "The service signs it: see that it runs and that updates/keys/ has the key.",
    "timestamp": "The service signs it: see that it runs and that updates/keys/ has the key.",
}
_OTHERWISE: Final = "Run 'muster update renew', sign with a targets key, and publish."


def examine_updates(repository: UpdateRepository, now: datetime) -> list[Finding]:
    """What lapses, and what has no support any more; nothing in a home without a repository."""
    try:
        if not repository.files():
            return []
        lapses, targets = repository.lapsing(now), repository.targets()
        unusable = repository.unusable_keys()
    except UpdateError as error:
        message = f"It can't be read: {error} ({error.code})."
        return [Finding(Level.ERROR, "updates", "update repository", message, error.remedy)]
    findings = [_key_finding(error) for error in unusable]
    findings += [lapse_finding(lapse, now) for lapse in lapses]
    findings += _examine_images(repository, targets)
    if not findings:
        message = f"Signed and fresh, with {len(targets):,} images."
        findings = [Finding(Level.OK, "updates", "update repository", message)]
    return [*findings, *_examine_support(targets, now)]


async def examine_lost_updates(registry: Registry, repository: UpdateRepository) -> list[Finding]:
    """That there is no repository, although the registry holds what was rolled out from one.

    Raises:
        RegistryError: the registry failed.
    """
    try:
        if await asyncio.to_thread(repository.files):
            return []
    except UpdateError:
        return []  # `examine_updates` says so
    if not await registry.read(lambda view: view.rollouts(1)):
        return []
    message = "It is gone, and the registry holds rollouts: nothing is signed, and soon devices "
    message += "refuse every update."
    remedy = "Restore updates/ from the backup of this home."
    return [Finding(Level.ERROR, "updates", "update repository", message, remedy)]


def lapse_finding(lapse: Lapse, now: datetime) -> Finding:
    """That a role's metadata expires soon, or has."""
    at = f"{lapse.expires:%Y-%m-%d %H:%M}Z"
    remedy = _REMEDIES.get(lapse.role, _OTHERWISE)
    if lapse.expires <= now:
        message = f"It expired at {at}: devices refuse every update."
        return Finding(Level.ERROR, "updates", lapse.role, message, remedy)
    message = f"It expires at {at}; devices refuse every update from then on."
    return Finding(Level.WARNING, "updates", lapse.role, message, remedy)


def _examine_images(
    repository: UpdateRepository, targets: list[PublishedTarget]
) -> Iterator[Finding]:
    """Whether each image's file is there, with its length."""
    for target in targets:
        try:
            repository.image(target.path, target.sha256)
        except UpdateError:
            yield Finding(
                Level.ERROR,
                "updates",
                target.path,
                "Its file is gone or cut short, so devices can't get it from here.",
                "Restore it from your backup, or 'muster update add' exactly the same image again, "
                "sign and publish.",
            )


def _key_finding(error: UpdateError) -> Finding:
    """That the service can't sign: nothing is told to devices, or they'll soon refuse all."""
    message = f"{_capital(str(error))}: the service can't sign, and soon devices refuse updates."
    return Finding(Level.ERROR, "updates", "online key", message, f"{_capital(error.remedy)}.")


def _capital(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"


def _examine_support(targets: list[PublishedTarget], now: datetime) -> Iterator[Finding]:
    for target in targets:
        state = support_state(target.facts, now)
        if state not in ("ended", "ending"):
            continue
        word = "ended" if state == "ended" else "ends"
        yield Finding(
            Level.WARNING,
            "support",
            target.path,
            f"Its support {word} on {target.facts.support_until:%Y-%m-%d}.",
            "Bring its devices to an image that is supported, or revoke it.",
        )
