"""However renewals, proofs, losses and time follow each other: never two identities beyond the
grace, and never none."""

import contextlib
import random
from datetime import timedelta
from typing import Final

import pytest

from broker.core.lifecycle import CertificateState
from broker.core.records import Certificate
from broker.protocol.codes import Refused
from tests.support.csrs import PrivateKey, fresh_key
from tests.support.desk import CONFIRM_WITHIN, Desk
from tests.support.records import a_claim_certificate, a_group
from tests.support.succeeding import recover, renew

GRACE: Final = timedelta(hours=1)
SWEEP: Final = timedelta(minutes=1)
LIFETIME: Final = timedelta(hours=12)


class Walk:
    """A device that does anything at any time, and remembers all its keys."""

    def __init__(self, desk: Desk, seed: int) -> None:
        self.desk = desk
        self.random = random.Random(seed)
        self.keys: list[PrivateKey] = [fresh_key()]

    async def step(self) -> None:
        """One thing happens; what is refused changes nothing."""
        act = self.random.choice(
            [self.renew, self.renew, self.repeat, self.prove, self.prove, self.recover, self.wait]
        )
        with contextlib.suppress(Refused):
            await act()
        await self.desk.lapsing.revoke_unconfirmed()
        await self.desk.superseding.revoke_superseded()

    async def renew(self) -> None:
        self.keys.append(fresh_key())
        await renew(self.desk, self.keys[-1], order=self.random.choice([None, 1, 2]))

    async def repeat(self) -> None:
        await renew(self.desk, self.random.choice(self.keys))

    async def prove(self) -> None:
        chosen = self.random.choice((await self.desk.certificates())[-3:])
        await self.desk.confirm("lamp-A1", chosen.certificate_sha256)

    async def recover(self) -> None:
        chosen = self.random.choice(await self.desk.certificates())
        self.keys.append(fresh_key())
        await recover(self.desk, self.random.choice(self.keys[:-1]), self.keys[-1], chosen)

    async def wait(self) -> None:
        self.desk.clock.at += self.random.choice(
            [SWEEP, CONFIRM_WITHIN, GRACE / 2, GRACE, LIFETIME]
        )


def check(certificates: list[Certificate], desk: Desk) -> None:
    """What a broker may let in, and what the device can go on with."""
    now = desk.clock.at
    (proven,) = [c for c in certificates if c.state is CertificateState.ACTIVE]
    assert proven.revoked_at is None
    for other in certificates:
        if other is proven or other.state is CertificateState.REVOKED:
            continue
        if other.state is CertificateState.ISSUED:
            assert now < other.confirm_by
            continue
        assert other.grace_until is not None
        assert other.is_live(now) == (now < min(other.grace_until, other.not_after))
        # The sweep rests for a minute at most; after it the certificate is on the CRL.
        assert now <= other.grace_until + SWEEP
    pending = [c for c in certificates if c.state is CertificateState.ISSUED]
    assert len(pending) <= 1


@pytest.mark.parametrize("seed", range(12))
async def test_there_is_one_identity_whatever_happens(desk: Desk, seed: int) -> None:
    group = a_group(certificate_lifetime=LIFETIME, rotation_grace=GRACE)
    long_lived = a_claim_certificate(
        max_claims=1, not_before=desk.clock.at, not_after=desk.clock.at + timedelta(days=999)
    )
    await desk.write(("save_group", group), ("save_claim_certificate", long_lived))
    walk = Walk(desk, seed)
    await desk.join("A1", walk.keys[0])
    for _ in range(60):
        await walk.step()
        check(await desk.certificates(), desk)
    assert await desk.counts() == (1, 1)
