"""The device's way into the fleet, on real brokers, with a service that follows a script."""

import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from broker.protocol.codes import Code, Refused
from broker.protocol.messages import EnrollAccepted, Rejected
from device_client.errors import AnswerInvalid, NoAnswer, RequestRejected, TimedOut
from device_client.keys import KeyType
from tests.support.device_agents import QUICK, device
from tests.support.fake_service import SILENCE, FakeFleet, fake_fleet


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[FakeFleet]:
    async with fake_fleet(tmp_path) as world:
        yield world


async def test_a_device_becomes_a_confirmed_member(fleet: FakeFleet, tmp_path: Path) -> None:
    with device(tmp_path / "state", fleet.bundle()) as (agent, store):
        identity = await agent.claim(60)
        assert store.current() == identity
    assert identity.device_id == "device-A1"
    assert identity.confirmed_at is not None
    assert [one.certificate_sha256 for one in fleet.service.confirms] == [
        identity.certificate_sha256
    ]
    assert len(fleet.service.keys_seen()) == 1


async def test_the_private_key_stays(fleet: FakeFleet, tmp_path: Path) -> None:
    with device(tmp_path / "state", fleet.bundle()) as (agent, _):
        identity = await agent.claim(60)
    (request,) = fleet.service.enrolls
    assert "PRIVATE" not in request.csr
    assert identity.key_file.stat().st_mode & 0o777 == 0o600


async def test_a_member_only_confirms_again(fleet: FakeFleet, tmp_path: Path) -> None:
    for _ in range(2):
        with device(tmp_path / "state", fleet.bundle()) as (agent, _):
            await agent.claim(60)
    assert len(fleet.service.enrolls) == 1
    assert len(fleet.service.confirms) == 2


async def test_an_unanswered_request_is_repeated_as_it_was(
    fleet: FakeFleet, tmp_path: Path
) -> None:
    fleet.service.enroll_script.extend([SILENCE, SILENCE])
    timing = dataclasses.replace(QUICK, answers_s=(0.1, 0.1, 30.0))
    with device(tmp_path / "state", fleet.bundle(), timing=timing) as (agent, _):
        await agent.claim(60)
    first, second, third = fleet.service.enrolls
    assert first == second == third
    assert len(set(fleet.service.claim_topics)) == 1


async def test_silence_ends_a_single_try(fleet: FakeFleet, tmp_path: Path) -> None:
    fleet.service.enroll_script.extend([SILENCE] * 3)
    timing = dataclasses.replace(QUICK, answers_s=(0.05, 0.05, 0.05))
    with (
        device(tmp_path / "state", fleet.bundle(), timing=timing) as (agent, _),
        pytest.raises(NoAnswer),
    ):
        await agent.claim(60, wait=False)


@pytest.mark.parametrize("key_type", KeyType)
async def test_every_type_of_key(fleet: FakeFleet, tmp_path: Path, key_type: KeyType) -> None:
    with device(tmp_path / "state", fleet.bundle(), key_type=key_type) as (agent, _):
        assert (await agent.claim(60)).confirmed_at is not None


@pytest.mark.parametrize("code", [Code.RATE_LIMITED, Code.BUSY, Code.SERIAL_REFUSED])
async def test_what_may_pass_is_asked_again_with_the_same_key(
    fleet: FakeFleet, tmp_path: Path, code: Code
) -> None:
    fleet.service.enroll_script.append(Refused(code, retry_after_s=0))
    with device(tmp_path / "state", fleet.bundle()) as (agent, _):
        await agent.claim(60)
    assert len(fleet.service.enrolls) == 2
    assert len(fleet.service.keys_seen()) == 1


async def test_an_unknown_code_is_asked_again(fleet: FakeFleet, tmp_path: Path) -> None:
    fleet.service.enroll_script.append(
        Rejected(request_id=None, code="not_yet_invented", message="No.", remedy="Wait.")
    )
    with device(tmp_path / "state", fleet.bundle()) as (agent, _):
        await agent.claim(60)
    assert len(fleet.service.enrolls) == 2


@pytest.mark.parametrize("code", [Code.CLAIM_REVOKED, Code.FIELD_INVALID, Code.CSR_MALFORMED])
async def test_what_will_not_pass_ends_the_claim(
    fleet: FakeFleet, tmp_path: Path, code: Code
) -> None:
    fleet.service.enroll_script.append(Refused(code))
    with (
        device(tmp_path / "state", fleet.bundle()) as (agent, _),
        pytest.raises(RequestRejected) as caught,
    ):
        await agent.claim(60)
    assert caught.value.stable_code == code
    assert caught.value.remedy


async def test_waiting_has_an_end_that_says_what_was_in_the_way(
    fleet: FakeFleet, tmp_path: Path
) -> None:
    fleet.service.enroll_script.append(Refused(Code.SERIAL_REFUSED, retry_after_s=3600))
    with (
        device(tmp_path / "state", fleet.bundle()) as (agent, _),
        pytest.raises(TimedOut) as caught,
    ):
        await agent.claim(1.0)
    assert "serial_refused" in caught.value.remedy


async def test_a_key_in_use_is_replaced_once(fleet: FakeFleet, tmp_path: Path) -> None:
    fleet.service.enroll_script.append(Refused(Code.KEY_IN_USE))
    with device(tmp_path / "state", fleet.bundle()) as (agent, _):
        await agent.claim(60)
    assert len(fleet.service.keys_seen()) == 2


async def test_a_second_key_in_use_ends_the_claim(fleet: FakeFleet, tmp_path: Path) -> None:
    fleet.service.enroll_script.extend([Refused(Code.KEY_IN_USE)] * 2)
    with (
        device(tmp_path / "state", fleet.bundle()) as (agent, _),
        pytest.raises(RequestRejected, match="belongs to another device"),
    ):
        await agent.claim(60)
    assert len(fleet.service.enrolls) == 2


async def test_another_type_of_key_after_the_first_was_not_allowed(
    fleet: FakeFleet, tmp_path: Path
) -> None:
    fleet.service.enroll_script.append(Refused(Code.KEY_NOT_ALLOWED))
    with (
        device(tmp_path / "state", fleet.bundle()) as (agent, _),
        pytest.raises(RequestRejected),
    ):
        await agent.claim(60)
    fleet.service.enroll_script.append(Refused(Code.KEY_NOT_ALLOWED))
    with device(tmp_path / "state", fleet.bundle(), key_type=KeyType.P384) as (agent, _):
        await agent.claim(60)
    csr = x509.load_pem_x509_csr(fleet.service.enrolls[-1].csr.encode())
    key = csr.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp384r1"


async def test_nothing_of_an_unusable_answer_is_stored(fleet: FakeFleet, tmp_path: Path) -> None:
    def rename(answer: EnrollAccepted) -> EnrollAccepted:
        return dataclasses.replace(answer, device_id="somebody-else")

    fleet.service.enroll_script.append(rename)
    with device(tmp_path / "state", fleet.bundle()) as (agent, store):
        with pytest.raises(AnswerInvalid):
            await agent.claim(60)
        assert store.current() is None


async def test_a_revoked_certificate_is_discarded_and_its_key_kept(
    fleet: FakeFleet, tmp_path: Path
) -> None:
    fleet.service.confirm_script.append(Refused(Code.CERTIFICATE_REVOKED))
    with device(tmp_path / "state", fleet.bundle()) as (agent, _):
        identity = await agent.claim(60)
    assert identity.confirmed_at is not None
    assert len(fleet.service.enrolls) == 2
    assert len(fleet.service.keys_seen()) == 1


async def test_a_lapsed_certificate_is_replaced_with_the_same_key(
    fleet: FakeFleet, tmp_path: Path
) -> None:
    fleet.service.confirm_script.append(Refused(Code.BUSY))
    with device(tmp_path / "state", fleet.bundle()) as (agent, store):
        with pytest.raises(RequestRejected):
            await agent.claim(60, wait=False)
        lapsed = store.current()
    assert lapsed is not None
    await fleet.revoke(lapsed.chain_file.read_text(), lapsed.device_id)
    fleet.service.forget_certificates()
    fleet.service.recover_script.extend([Refused(Code.RECOVERY_REFUSED)] * 9)
    with device(tmp_path / "state", fleet.bundle()) as (agent, _):
        identity = await agent.claim(60)
    assert identity.certificate_sha256 != lapsed.certificate_sha256
    assert identity.key_sha256 == lapsed.key_sha256
