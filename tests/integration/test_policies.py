"""What a second claim may do, and what a claim certificate is good for."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from broker.core.keys import KeyType
from broker.core.lifecycle import CertificateState, DeviceState
from broker.core.records import EventKind, Reprovision, RevocationReason, Serials
from broker.operating.installation import open_installation
from broker.protocol.codes import Code
from broker.protocol.messages import EnrollAccepted, Rejected
from broker.protocol.names import ClaimName
from broker.protocol.zones import Zone
from broker.services import claim_certificates
from tests.support.certificates import Client
from tests.support.claimant import claimant, enroll_request
from tests.support.csrs import fresh_key, private_key
from tests.support.knocking import Answer, knock
from tests.support.stack import Stack
from tests.support.waiting import eventually


async def refusal(stack: Stack, serial: str = "A1", name: str = "batch-7") -> tuple[str, str]:
    """A claim with a fresh key that is refused: the code on the wire, and that in the audit log."""
    async with claimant(stack, "asking", ClaimName(name)) as asking:
        answer = await asking.enroll(enroll_request(serial))
    assert isinstance(answer, Rejected), answer
    event = (await stack.events_of(EventKind.CLAIM_REFUSED))[-1]
    assert event.claim_name == name
    assert event.code is not None
    return answer.code, event.code


async def with_policy(stack: Stack, policy: Reprovision) -> None:
    await stack.installation.add_claim_certificate()
    await stack.installation.save_group(reprovision=policy)
    await stack.installation.enroll(["A1"])


async def test_refuse_keeps_the_first(stack: Stack, tmp_path: Path) -> None:
    await with_policy(stack, Reprovision.REFUSE)
    identity = await stack.claim_device("A1", tmp_path / "A1")
    assert await refusal(stack) == (Code.SERIAL_REFUSED, Code.SERIAL_TAKEN)
    (live,) = await stack.live_certificates("A1")
    assert live.certificate_sha256 == identity.certificate_sha256
    assert await stack.is_active("A1")


async def test_same_key_refuses_another_key(stack: Stack, tmp_path: Path) -> None:
    await with_policy(stack, Reprovision.SAME_KEY)
    await stack.claim_device("A1", tmp_path / "A1")
    assert await refusal(stack) == (Code.SERIAL_REFUSED, Code.SERIAL_TAKEN)
    assert await stack.is_active("A1")


async def test_replace_gives_the_place_to_the_newcomer(stack: Stack, tmp_path: Path) -> None:
    """The old certificate works until the new one is proven, and not afterwards."""
    await with_policy(stack, Reprovision.REPLACE)
    old = await stack.claim_device("A1", tmp_path / "old")
    new = await stack.claim_device("A1", tmp_path / "new")
    assert new.device_id == old.device_id
    before, after = await stack.certificates_of("A1")
    assert (before.state, before.revoked_for) == (
        CertificateState.REVOKED,
        RevocationReason.REPLACED,
    )
    assert after.certificate_sha256 == new.certificate_sha256
    assert await stack.is_active("A1")
    client = Client(old.device_id, old.chain_file, old.key_file, stack.home.server_anchors)

    async def is_refused() -> bool:
        return await knock(stack.ports[Zone.FLEET], client) is Answer.REFUSED

    await eventually(is_refused)
    assert (await stack.installation.group()).devices == 1


async def test_replace_keeps_the_old_one_until_the_new_is_proven(
    stack: Stack, tmp_path: Path
) -> None:
    await with_policy(stack, Reprovision.REPLACE)
    await stack.claim_device("A1", tmp_path / "old")
    async with claimant(stack, "new") as asking:
        assert isinstance(await asking.enroll(enroll_request("A1")), EnrollAccepted)
    states = [c.state for c in await stack.certificates_of("A1")]
    assert states == [CertificateState.ACTIVE, CertificateState.ISSUED]
    assert (await stack.device("A1")).state is DeviceState.ROTATING
    await stack.claim_device("A1", tmp_path / "old")


async def test_a_revoked_claim_certificate(stack: Stack, tmp_path: Path) -> None:
    """Refused at the door within a moment; members that claimed with it stay."""
    await stack.installation.standard(["A1", "B2"])
    await stack.claim_device("A1", tmp_path / "A1")
    installation = open_installation(stack.home.path, None)
    async with claimant(stack, "inside") as asking:
        async with installation.registry() as registry:
            await claim_certificates.revoke(registry, installation.clock, "batch-7")
        answer = await asking.enroll(enroll_request("B2"))
        assert isinstance(answer, Rejected)
        assert answer.code == Code.CLAIM_REVOKED
    async with installation.registry() as registry:
        await claim_certificates.publish_crl(
            registry,
            installation.clock,
            installation.claim_authority(),
            installation.claim_crl_file(),
        )

    async def is_refused() -> bool:
        client = stack.claim_client()
        return await knock(stack.ports[Zone.CLAIM], client, "outside") is Answer.REFUSED

    await eventually(is_refused)
    await stack.claim_device("A1", tmp_path / "A1")


async def test_an_expired_claim_certificate(stack: Stack) -> None:
    """Who connected before it expired is refused by the service, who comes later by the broker."""
    name = ClaimName("short")
    await stack.installation.save_group(claims=frozenset({name}))
    await stack.installation.enroll(["A1"])
    await stack.installation.add_claim_certificate(name, lifetime=timedelta(seconds=4))
    client = stack.claim_client(name)
    async with claimant(stack, "inside", name) as asking:

        async def is_refused() -> bool:
            return await knock(stack.ports[Zone.CLAIM], client, "outside") is Answer.REFUSED

        await eventually(is_refused)
        answer = await asking.enroll(enroll_request("A1"))
    assert isinstance(answer, Rejected)
    assert answer.code == Code.CLAIM_EXPIRED
    assert await stack.devices() == []


async def test_a_claim_certificate_used_up(stack: Stack, tmp_path: Path) -> None:
    await stack.installation.add_claim_certificate(max_claims=1)
    await stack.installation.save_group()
    await stack.installation.enroll(["A1", "B2"])
    await stack.claim_device("A1", tmp_path / "A1")
    assert await refusal(stack, "B2") == (Code.CLAIM_EXHAUSTED, Code.CLAIM_EXHAUSTED)
    assert len(await stack.devices()) == 1


async def test_one_place_and_many_who_want_it(stack: Stack) -> None:
    """A quota holds when all ask at once."""
    serials = [f"S{number}" for number in range(20)]
    await stack.installation.add_claim_certificate()
    await stack.installation.save_group(quota=3)
    await stack.installation.enroll(serials)

    async def claim(serial: str) -> EnrollAccepted | Rejected:
        async with claimant(stack, serial) as asking:
            return await asking.enroll(enroll_request(serial))

    answers = await asyncio.gather(*map(claim, serials))
    lost = [a.code for a in answers if isinstance(a, Rejected)]
    assert lost == [Code.GROUP_FULL] * 17
    assert len(await stack.devices()) == 3


async def test_a_claim_certificate_that_no_group_lists(stack: Stack) -> None:
    await stack.installation.add_claim_certificate()
    assert await refusal(stack) == (Code.CLAIM_WITHOUT_GROUP, Code.CLAIM_WITHOUT_GROUP)


async def test_any_serial_number_where_the_group_says_so(stack: Stack, tmp_path: Path) -> None:
    await stack.installation.add_claim_certificate()
    await stack.installation.save_group(serials=Serials.ANY)
    assert (await stack.claim_device("Z9", tmp_path / "Z9")).device_id == "lamp-Z9"


async def test_a_type_of_key_that_the_group_does_not_want(stack: Stack) -> None:
    await stack.installation.add_claim_certificate()
    await stack.installation.save_group(allowed_keys=frozenset({KeyType.P384}))
    await stack.installation.enroll(["A1"])
    assert await refusal(stack) == (Code.KEY_NOT_ALLOWED, Code.KEY_NOT_ALLOWED)
    async with claimant(stack, "right") as asking:
        answer = await asking.enroll(enroll_request("A1", private_key("p384")))
    assert isinstance(answer, EnrollAccepted)


async def test_a_key_belongs_to_one_device(stack: Stack) -> None:
    """A flashed image with a key in it would give a whole batch one identity."""
    await stack.installation.standard(["A1", "B2"])
    key = fresh_key()
    async with claimant(stack, "A1") as asking:
        assert isinstance(await asking.enroll(enroll_request("A1", key)), EnrollAccepted)
        answer = await asking.enroll(enroll_request("B2", key))
    assert isinstance(answer, Rejected)
    assert answer.code == Code.KEY_IN_USE
    assert [d.serial for d in await stack.devices()] == ["A1"]


async def test_two_serial_numbers_for_one_name(stack: Stack) -> None:
    await stack.installation.add_claim_certificate()
    await stack.installation.save_group(device_name="{serial}-{room}")
    await stack.installation.enroll(["A", "A-B"])
    async with claimant(stack, "asking") as asking:
        first = await asking.enroll(enroll_request("A", parameters={"room": "B-C"}))
        second = await asking.enroll(enroll_request("A-B", parameters={"room": "C"}))
        third = await asking.enroll(enroll_request("A-B"))
    assert isinstance(first, EnrollAccepted)
    assert isinstance(second, Rejected)
    assert isinstance(third, Rejected)
    codes = [e.code for e in await stack.events_of(EventKind.CLAIM_REFUSED)]
    assert (second.code, codes[0]) == (Code.SERIAL_REFUSED, Code.NAME_TAKEN)
    assert third.code == codes[1] == Code.PARAMETER_MISSING


@pytest.mark.parametrize("kind", ["p256", "p384", "ed25519", "rsa-3072"])
async def test_every_type_of_key(stack: Stack, kind: str) -> None:
    await stack.installation.standard(["A1"])
    async with claimant(stack, "asking") as asking:
        answer = await asking.enroll(enroll_request("A1", private_key(kind)))
    assert isinstance(answer, EnrollAccepted)
