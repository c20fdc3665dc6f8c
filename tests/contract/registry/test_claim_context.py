"""What bears on one claim, in one look; and at a cost that the size of the fleet doesn't change."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from broker.adapters.registry import SqlRegistry
from broker.adapters.registry.migrate import migrate
from broker.core.claim_policy import ClaimContext
from broker.core.lifecycle import CertificateState
from broker.core.records import Enrollment, RevocationReason
from broker.ports.registry import WriteTransaction
from broker.protocol.names import ClaimName, SerialNumber
from tests.support.records import (
    NOW,
    a_certificate,
    a_claim_certificate,
    a_device,
    a_fingerprint,
    a_group,
)
from tests.support.registries import add_batch, add_member, certificate_number, device_number
from tests.support.statements import Statements

BATCH = a_claim_certificate().name
A1 = SerialNumber("A1")
KEY = a_certificate().key_sha256
NOTHING = ClaimContext(
    claim=None, group=None, enrolled=False, device=None, certificates=(), key_certificate=None
)


async def test_an_empty_registry_knows_nothing(registry: SqlRegistry) -> None:
    assert await registry.read(lambda tx: tx.claim_context(BATCH, A1, KEY)) == NOTHING


async def test_a_claim_certificate_without_a_group(registry: SqlRegistry) -> None:
    await registry.write(lambda tx: tx.save_claim_certificate(a_claim_certificate()))
    context = await registry.read(lambda tx: tx.claim_context(BATCH, A1, KEY))
    assert context == replace(NOTHING, claim=a_claim_certificate())


async def test_a_group_that_lists_what_does_not_exist(registry: SqlRegistry) -> None:
    await registry.write(lambda tx: tx.save_group(a_group()))
    context = await registry.read(lambda tx: tx.claim_context(BATCH, A1, KEY))
    assert context == replace(NOTHING, group=a_group())


async def test_a_serial_number_on_the_allow_list(registry: SqlRegistry) -> None:
    def work(tx: WriteTransaction) -> None:
        add_batch(tx)
        tx.add_enrollments([Enrollment(a_group().name, A1, NOW)])

    await registry.write(work)
    known = ClaimContext(a_claim_certificate(), a_group(), True, None, (), None)
    assert await registry.read(lambda tx: tx.claim_context(BATCH, A1, KEY)) == known
    other = SerialNumber("A2")
    stranger = await registry.read(lambda tx: tx.claim_context(BATCH, other, KEY))
    assert stranger == replace(known, enrolled=False)


async def test_everything_about_a_known_device(registry: SqlRegistry) -> None:
    lost = replace(
        a_certificate(),
        state=CertificateState.REVOKED,
        revoked_at=NOW,
        revoked_for=RevocationReason.NEVER_CONFIRMED,
    )
    first, second = (certificate_number(n, device_id=a_device().id) for n in (1, 2))
    stranger = certificate_number(3)

    def work(tx: WriteTransaction) -> ClaimContext:
        add_batch(tx)
        tx.save_device(a_device())
        tx.save_device(device_number(3))
        for certificate in (lost, first, second, stranger):
            tx.save_certificate(certificate)
        tx.count_claim(BATCH, 3)
        return tx.claim_context(BATCH, A1, KEY)

    inside = await registry.write(work)
    wanted = ClaimContext(
        claim=a_claim_certificate(claims=3),
        group=a_group(),
        enrolled=False,
        device=a_device(),
        certificates=(first, second),
        key_certificate=lost,
    )
    assert inside == wanted
    assert await registry.read(lambda tx: tx.claim_context(BATCH, A1, KEY)) == wanted


async def test_the_newest_certificate_of_a_key_counts(registry: SqlRegistry) -> None:
    certificates = [
        certificate_number(n, device_id=a_device().id, key_sha256=KEY) for n in (9, 1, 5)
    ]

    def work(tx: WriteTransaction) -> None:
        add_batch(tx)
        tx.save_device(a_device())
        for certificate in certificates:
            tx.save_certificate(certificate)

    await registry.write(work)
    context = await registry.read(lambda tx: tx.claim_context(BATCH, A1, KEY))
    assert context.key_certificate == certificates[-1]
    assert context.certificates == tuple(certificates)


async def test_a_claim_sees_the_claims_before_it_in_its_work(registry: SqlRegistry) -> None:
    def claim(tx: WriteTransaction, number: int) -> ClaimContext:
        device, certificate = device_number(number), certificate_number(number)
        context = tx.claim_context(BATCH, device.serial, certificate.key_sha256)
        add_member(tx, number)
        return context

    def work(tx: WriteTransaction) -> None:
        add_batch(tx)
        first, second, again = (claim(tx, number) for number in (1, 2, 1))
        assert first.device is None
        assert (second.claim, second.group) == (a_claim_certificate(claims=1), a_group(devices=1))
        assert second.key_certificate is None
        assert again.device == device_number(1)
        assert again.certificates == (certificate_number(1),)
        assert again.key_certificate == certificate_number(1)

    await registry.write(work)


@pytest.fixture
def statements() -> Iterator[Statements]:
    statements = Statements()
    sa.event.listen(sa.Engine, "connect", statements.listen)
    yield statements
    sa.event.remove(sa.Engine, "connect", statements.listen)


async def test_a_claim_takes_few_statements_and_none_reads_a_whole_table(
    tmp_path: Path, statements: Statements
) -> None:
    path = tmp_path / "registry.db"
    migrate(f"sqlite:///{path}")
    async with SqlRegistry(f"sqlite:///{path}") as registry:
        await registry.write(add_batch)

        def claim(tx: WriteTransaction) -> None:
            tx.claim_context(ClaimName("batch-7"), SerialNumber("S1"), a_fingerprint("key 1"))
            add_member(tx, 1)

        statements.seen.clear()
        await registry.write(claim)
        claiming = [text for text in statements.seen if not text.startswith(("BEGIN", "COMMIT"))]
    reading = [text for text in claiming if text.startswith("SELECT")]
    assert len(reading) == 5, reading  # four for the context, one for the name
    assert len(claiming) == 11, claiming
    assert statements.scans(path) == []
