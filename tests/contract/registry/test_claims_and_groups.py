"""Claim certificates, groups and allow-lists."""

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.adapters.registry import SqlRegistry
from broker.core.keys import KeyType
from broker.core.records import Enrollment, Reprovision, RotationKey, Serials
from broker.ports.registry import EnrollmentFilter, RegistryConflict, WriteTransaction
from broker.protocol.names import ClaimName, GroupName, SerialNumber
from tests.support.records import NOW, a_claim_certificate, a_device, a_group
from tests.support.registries import add_batch

BATCH = a_claim_certificate().name
LAMPS = a_group().name
OTHER = ClaimName("batch-8")


async def test_a_claim_certificate_is_kept_as_it_is(registry: SqlRegistry) -> None:
    claim = a_claim_certificate(revoked_at=NOW + timedelta(microseconds=1))
    await registry.write(lambda tx: tx.save_claim_certificate(claim))
    assert await registry.read(lambda tx: tx.claim_certificate(BATCH)) == claim


async def test_what_is_not_there_is_none_or_nothing(registry: SqlRegistry) -> None:
    assert await registry.read(lambda tx: tx.claim_certificate(BATCH)) is None
    assert await registry.read(lambda tx: tx.claim_certificates()) == []
    assert await registry.read(lambda tx: tx.group(LAMPS)) is None
    assert await registry.read(lambda tx: tx.group_of_claim(BATCH)) is None
    assert await registry.read(lambda tx: tx.groups()) == []
    assert await registry.read(lambda tx: tx.count_enrollments(LAMPS)) == 0


async def test_claim_certificates_are_listed_by_name(registry: SqlRegistry) -> None:
    names = [ClaimName(name) for name in ("c", "a", "b")]

    def work(tx: WriteTransaction) -> None:
        for name in names:
            tx.save_claim_certificate(a_claim_certificate(name=name))

    await registry.write(work)
    listed = await registry.read(lambda tx: tx.claim_certificates())
    assert [claim.name for claim in listed] == sorted(names)


async def test_replacing_a_claim_certificate_keeps_its_count(registry: SqlRegistry) -> None:
    def work(tx: WriteTransaction) -> None:
        tx.save_claim_certificate(a_claim_certificate())
        tx.count_claim(BATCH, 3)
        tx.save_claim_certificate(a_claim_certificate(claims=77, max_claims=5))

    await registry.write(work)
    claim = await registry.read(lambda tx: tx.claim_certificate(BATCH))
    assert claim == a_claim_certificate(claims=3, max_claims=5)


async def test_replacing_a_group_keeps_its_count(registry: SqlRegistry) -> None:
    def work(tx: WriteTransaction) -> None:
        tx.save_group(a_group())
        tx.count_device(LAMPS, 3)
        tx.save_group(a_group(devices=77, quota=5))

    await registry.write(work)
    assert await registry.read(lambda tx: tx.group(LAMPS)) == a_group(devices=3, quota=5)


async def test_counts_add_up_and_never_fall_below_zero(registry: SqlRegistry) -> None:
    async def count(by: int) -> None:
        await registry.write(lambda tx: tx.count_claim(BATCH, by))
        await registry.write(lambda tx: tx.count_device(LAMPS, by))

    await registry.write(add_batch)
    for by in (2, -5, 3, -1):
        await count(by)
    claim = await registry.read(lambda tx: tx.claim_certificate(BATCH))
    group = await registry.read(lambda tx: tx.group(LAMPS))
    assert claim == a_claim_certificate(claims=2)
    assert group == a_group(devices=2)


async def test_a_work_sees_its_own_counts_everywhere(registry: SqlRegistry) -> None:
    def work(tx: WriteTransaction) -> tuple[object, ...]:
        add_batch(tx)
        tx.count_claim(BATCH, 2)
        tx.count_device(LAMPS, 2)
        one = (tx.claim_certificate(BATCH), tx.group(LAMPS))
        listed = (*tx.claim_certificates(), *tx.groups())
        assert one == listed
        return one

    assert await registry.write(work) == (a_claim_certificate(claims=2), a_group(devices=2))


async def test_counting_what_is_not_there_does_nothing(registry: SqlRegistry) -> None:
    def work(tx: WriteTransaction) -> None:
        tx.count_claim(BATCH, 1)
        tx.count_device(LAMPS, 1)

    await registry.write(work)
    assert await registry.read(lambda tx: tx.claim_certificates()) == []


async def test_a_group_is_kept_as_it_is(registry: SqlRegistry) -> None:
    group = a_group(
        claim_certificates=frozenset({BATCH, OTHER}),
        allowed_keys=frozenset({KeyType.P256, KeyType.ED25519}),
        certificate_lifetime=timedelta(days=1, microseconds=1),
        serials=Serials.ANY,
        reprovision=Reprovision.SAME_KEY,
        rotation_key=RotationKey.SAME_ALLOWED,
        rotation_grace=timedelta(),
        recover_within=timedelta(days=3650, microseconds=1),
    )
    bare = a_group(name=GroupName("bare"), claim_certificates=frozenset(), allowed_keys=frozenset())

    def work(tx: WriteTransaction) -> None:
        tx.save_group(group)
        tx.save_group(bare)

    await registry.write(work)
    assert await registry.read(lambda tx: tx.group(LAMPS)) == group
    assert await registry.read(lambda tx: tx.group_of_claim(OTHER)) == LAMPS
    assert await registry.read(lambda tx: tx.groups()) == [bare, group]


async def test_a_claim_certificate_belongs_to_one_group(registry: SqlRegistry) -> None:
    await registry.write(add_batch)
    rival = a_group(name=GroupName("bulbs"), claim_certificates=frozenset({OTHER, BATCH}))
    with pytest.raises(RegistryConflict, match="batch-7 belongs to the group lamps") as refused:
        await registry.write(lambda tx: tx.save_group(rival))
    assert refused.value.code == "registry_conflict"
    assert refused.value.remedy
    assert await registry.read(lambda tx: tx.groups()) == [a_group()]


async def test_a_work_may_live_with_a_conflict(registry: SqlRegistry) -> None:
    def work(tx: WriteTransaction) -> None:
        add_batch(tx)
        with pytest.raises(RegistryConflict):
            tx.save_group(a_group(name=GroupName("bulbs")))

    await registry.write(work)
    assert await registry.read(lambda tx: tx.group_of_claim(BATCH)) == LAMPS


async def test_groups_can_trade_a_claim_certificate(registry: SqlRegistry) -> None:
    bulbs = a_group(name=GroupName("bulbs"), claim_certificates=frozenset({OTHER}))

    def work(tx: WriteTransaction) -> GroupName | None:
        tx.save_group(a_group())
        tx.save_group(bulbs)
        assert tx.group_of_claim(BATCH) == LAMPS
        tx.save_group(a_group(claim_certificates=frozenset()))
        assert tx.group_of_claim(BATCH) is None
        tx.save_group(replace(bulbs, claim_certificates=frozenset({BATCH})))
        return tx.group_of_claim(BATCH)

    assert await registry.write(work) == GroupName("bulbs")
    assert await registry.read(lambda tx: tx.group_of_claim(BATCH)) == GroupName("bulbs")
    assert await registry.read(lambda tx: tx.group_of_claim(OTHER)) is None


async def test_importing_an_allow_list_again_adds_what_is_new(registry: SqlRegistry) -> None:
    await registry.write(add_batch)
    first = [Enrollment(LAMPS, SerialNumber(f"A{n}"), NOW) for n in range(1500)]
    more = [*first, *(Enrollment(LAMPS, SerialNumber(f"B{n}"), NOW) for n in range(3))]
    assert await registry.write(lambda tx: tx.add_enrollments(first)) == 1500
    assert await registry.write(lambda tx: tx.add_enrollments(iter(more))) == 3
    assert await registry.write(lambda tx: tx.add_enrollments([more[-1]])) == 0
    assert await registry.read(lambda tx: tx.count_enrollments(LAMPS)) == 1503


async def test_serial_numbers_are_found_and_taken_off_the_list(registry: SqlRegistry) -> None:
    await registry.write(add_batch)
    many = [SerialNumber(f"A{n}") for n in range(2500)]
    lines = [Enrollment(LAMPS, serial, NOW) for serial in many]
    await registry.write(lambda tx: tx.add_enrollments(lines))
    await registry.write(lambda tx: tx.save_device(a_device(serial=many[7])))
    asked = [*many[:2000], SerialNumber("B1")]
    assert await registry.read(lambda tx: tx.enrolled(LAMPS, asked)) == set(many[:2000])
    assert await registry.read(lambda tx: tx.claimed(LAMPS, asked)) == {many[7]}
    bulbs = GroupName("bulbs")
    assert await registry.read(lambda tx: tx.enrolled(bulbs, asked)) == set()
    assert await registry.read(lambda tx: tx.claimed(bulbs, asked)) == set()
    await registry.write(lambda tx: tx.remove_enrollments(bulbs, asked))
    await registry.write(lambda tx: tx.remove_enrollments(LAMPS, asked))
    assert await registry.read(lambda tx: tx.enrolled(LAMPS, many)) == set(many[2000:])
    assert await registry.read(lambda tx: tx.claimed(LAMPS, asked)) == {many[7]}


async def test_a_line_that_stands_twice_counts_once(registry: SqlRegistry) -> None:
    await registry.write(add_batch)
    line = Enrollment(LAMPS, SerialNumber("A1"), NOW)
    assert await registry.write(lambda tx: tx.add_enrollments([line, line])) == 1


async def test_an_allow_list_needs_its_group(registry: SqlRegistry) -> None:
    line = Enrollment(GroupName("nobody"), SerialNumber("A1"), NOW)
    with pytest.raises(RegistryConflict):
        await registry.write(lambda tx: tx.add_enrollments([line]))


async def test_an_allow_list_is_read_in_order_page_by_page(registry: SqlRegistry) -> None:
    await registry.write(add_batch)
    lines = [Enrollment(LAMPS, SerialNumber(f"A{n}"), NOW) for n in range(5)]
    await registry.write(lambda tx: tx.add_enrollments(reversed(lines)))
    first = await registry.read(lambda tx: tx.enrollments(EnrollmentFilter(LAMPS, limit=3)))
    after = EnrollmentFilter(LAMPS, after=first[-1].serial)
    assert first == lines[:3]
    assert await registry.read(lambda tx: tx.enrollments(after)) == lines[3:]
    one = EnrollmentFilter(LAMPS, lines[2].serial)
    assert await registry.read(lambda tx: tx.enrollments(one)) == [lines[2]]
    other = EnrollmentFilter(GroupName("bulbs"))
    assert await registry.read(lambda tx: tx.enrollments(other)) == []
