"""What all measurements of one run share."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.bench.devices import Device
from tests.support.installation import BATCH, Installation, make_installation

CLAIM: Final = BATCH
MANY: Final = 100_000_000
UNLIMITED: Final = """
[limits]
claims_per_second = 1000000
claims_burst = 1000000
"""
"""Rate limits protect the service from a stolen claim certificate; here they'd be what is measured.
Those for each client stay: every device asks once."""


@dataclass
class Bench:
    """One run: its folder and its options."""

    folder: Path
    step_ca: Path | None = None
    """The step-ca program to compare with."""

    def place(self, name: str) -> Path:
        """A new folder of this run."""
        place = self.folder / name
        place.mkdir()
        return place

    async def empty_installation(self, name: str, settings_toml: str = UNLIMITED) -> Installation:
        """An installation that lets nobody in."""
        return await make_installation(self.folder / name, settings_toml)

    async def installation(self, name: str, settings_toml: str = UNLIMITED) -> Installation:
        """An installation with a claim certificate and a group that never run out."""
        installation = await self.empty_installation(name, settings_toml)
        await installation.add_claim_certificate(CLAIM, max_claims=MANY)
        await installation.save_group(quota=MANY)
        return installation


async def enroll(installation: Installation, devices: list[Device]) -> None:
    """Puts the devices on the allow-list."""
    await installation.enroll([device.request.serial for device in devices])
