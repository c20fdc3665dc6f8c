"""The golden vectors, replayed through router, use cases and registry, and against the schemas."""

import base64
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from broker.core.csr import fingerprint_of_key
from broker.core.keys import KeyType
from broker.core.lifecycle import CertificateState, DeviceState
from broker.core.rate_limit import TokenBuckets
from broker.core.records import Certificate
from broker.entry.mqtt.router import Router, Services
from broker.protocol import codec, limits, messages
from broker.protocol.codes import Refused
from broker.protocol.names import CertificateSerial, ClaimName, DeviceId, GroupName, SerialNumber
from broker.protocol.topics import Outcome
from broker.protocol.zones import Zone
from broker.services.admission import Admission
from broker.services.blocks import BlockService
from broker.services.outbox import Outbox
from broker.services.refusals import RefusalLog
from tests.support.desk import Desk, open_desk
from tests.support.images import PublishedImages
from tests.support.records import a_certificate, a_claim_certificate, a_device, a_group
from tests.support.schema import fits
from tests.support.signing import confirmation

ROOT = Path(__file__).parents[3]
VECTORS = ROOT / "tests" / "vectors"
REQUESTS = json.loads((VECTORS / "requests.json").read_text(encoding="utf-8"))
ANSWERS = json.loads((VECTORS / "answers.json").read_text(encoding="utf-8"))["vectors"]
INSTALLATION = REQUESTS["installation"]
BY_NAME = {vector["name"]: vector for vector in REQUESTS["vectors"]}
SCHEMAS = yaml.safe_load((ROOT / "docs" / "asyncapi.yaml").read_text(encoding="utf-8"))[
    "components"
]["schemas"]
SHA256 = "{certificate_sha256}"
FIRST_SHA256 = "{first_certificate_sha256}"
SIGNATURE = "{signature}"
REQUESTS_OF = {
    "enroll": "EnrollRequest",
    "recover": "RecoverRequest",
    "confirm": "ConfirmRequest",
    "renew": "RenewRequest",
}


OF_UPDATES = ("report_", "assignment_", "image_")
"""Codes that take an update repository to cause; tests of their services do."""


class NoTelemetry:
    def count(self, zone: Zone, operation: str, outcome: str) -> None:
        pass


class Replay:
    """One installation, and what it has published."""

    def __init__(self, desk: Desk, place: Path) -> None:
        self.desk = desk
        self.heard: list[tuple[Zone, str, bytes]] = []
        refusals = RefusalLog(desk.registry, desk.clock)
        admission = Admission(desk.clock, TokenBuckets(1.0, 1000), TokenBuckets(1.0, 1000))
        outbox = Outbox(desk.registry, self)
        services = Services(
            enroll=desk.enrolling,
            recover=desk.recovering,
            confirm=desk.confirming,
            renew=desk.renewing,
            admission=admission,
            refusals=refusals,
            outbox=outbox,
            blocks=BlockService(
                desk.registry, PublishedImages(place), desk.clock, TokenBuckets(1.0, 1)
            ),
            reports=desk.reporting,
        )
        self.router = Router(services, self, NoTelemetry())

    async def publish(
        self, zone: Zone, topic: str, payload: bytes, *, retain: bool = False
    ) -> None:
        self.heard.append((zone, topic, payload))

    async def send(self, vector: dict[str, Any]) -> None:
        payload = payload_of(vector)
        for placeholder, which in ((SHA256, -1), (FIRST_SHA256, 0)):
            if placeholder.encode() in payload:
                payload = payload.replace(placeholder.encode(), (await self.sha256(which)).encode())
        if "signed_by" in vector:
            payload = signed(payload, vector)
        await self.router.handle(Zone(vector["zone"]), vector["topic"], payload)

    async def sha256(self, which: int = -1) -> str:
        return (await self.desk.certificates("lamp-A1"))[which].certificate_sha256

    async def audit_code(self) -> str | None:
        return (await self.desk.events())[-1].code


def signed(payload: bytes, vector: dict[str, Any]) -> bytes:
    """The confirmation, signed by the key that the vector names."""
    request = json.loads(payload)
    pem = INSTALLATION["keys"][vector["signed_by"]]
    key = load_pem_private_key(pem.encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    device_id, sha256 = vector["topic"].split("/")[3], request["certificate_sha256"]
    made = confirmation(key, device_id, sha256, request["request_id"])
    return payload.replace(SIGNATURE.encode(), made.signature.encode())


def payload_of(vector: dict[str, Any]) -> bytes:
    if "payload_base64" in vector:
        return base64.b64decode(vector["payload_base64"])
    text: str = vector["payload"]
    return text.encode()


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


async def set_up(desk: Desk) -> None:
    """What `installation` describes."""
    desk.clock.at = now = moment(INSTALLATION["now"])
    for number, claim in enumerate(INSTALLATION["claim_certificates"]):
        times = {name: moment(claim[name]) for name in ("revoked_at", "not_after") if name in claim}
        certificate = a_claim_certificate(
            name=ClaimName(claim["name"]),
            serial=CertificateSerial(f"c{number}"),
            max_claims=claim["max_claims"],
            **{"not_after": now + timedelta(days=1), **times},
        )
        await desk.write(("save_claim_certificate", certificate))
    for group in INSTALLATION["groups"]:
        rule = a_group(
            name=GroupName(group["name"]),
            claim_certificates=frozenset(map(ClaimName, group["claim_certificates"])),
            device_name=group["device_name"],
            allowed_keys=frozenset(map(KeyType, group["allowed_keys"])),
            quota=group["quota"],
        )
        await desk.open_group(rule, None, *group["serials"])
    for device in INSTALLATION["devices"]:
        member = a_device(
            id=DeviceId(device["id"]),
            group=GroupName(device["group"]),
            serial=SerialNumber(device["serial"]),
            state=DeviceState(device["state"]),
        )
        await desk.write(("save_device", member))
    for number, held in enumerate(INSTALLATION["certificates"]):
        await desk.write(("save_certificate", certificate_of(held, f"e{number}")))


def certificate_of(held: dict[str, Any], serial: str) -> Certificate:
    """What the registry knows of a certificate that `installation` lists."""
    parsed = x509.load_pem_x509_certificate(held["pem"].encode())
    return a_certificate(
        serial=CertificateSerial(serial),
        device_id=DeviceId(held["device_id"]),
        state=CertificateState(held["state"]),
        key_sha256=fingerprint_of_key(parsed.public_key()),
        certificate_sha256=parsed.fingerprint(hashes.SHA256()).hex(),
        not_after=moment(held["not_after"]),
        pem=held["pem"],
    )


@pytest.fixture
async def replay(tmp_path: Path) -> AsyncIterator[Replay]:
    async with open_desk(tmp_path) as desk:
        await set_up(desk)
        yield Replay(desk, tmp_path)


@pytest.mark.parametrize("name", BY_NAME)
async def test_a_request_is_answered_as_the_vector_says(replay: Replay, name: str) -> None:
    vector = BY_NAME[name]
    for earlier in vector.get("before", ()):
        await replay.send(BY_NAME[earlier])
    before = replay.heard[:1]
    replay.heard.clear()
    await replay.send(vector)
    expected = vector["expect"]
    if expected["outcome"] == "silence":
        assert replay.heard == []
        assert await replay.audit_code() == expected["audit_code"]
        return
    ((zone, topic, payload),) = replay.heard
    answer = json.loads(payload)
    assert (zone, topic) == (vector["zone"], f"{vector['topic']}/{expected['outcome']}")
    assert fits(answer, schema_of_answer(vector), SCHEMAS)
    if expected["outcome"] == Outcome.REJECTED:
        assert answer["code"] == expected["code"]
        assert await replay.audit_code() == expected.get("audit_code", expected["code"])
    await check_fields(replay, answer, dict(expected.get("fields", {})), before)


async def check_fields(
    replay: Replay,
    answer: dict[str, Any],
    fields: dict[str, Any],
    before: list[tuple[Zone, str, bytes]],
) -> None:
    if fields.pop("same_certificate", False):
        assert answer["certificate_chain"] == json.loads(before[0][2])["certificate_chain"]
    if fields.get("certificate_sha256") == SHA256:
        fields["certificate_sha256"] = await replay.sha256()
    assert {name: answer[name] for name in fields} == fields


def schema_of_answer(vector: dict[str, Any]) -> dict[str, Any]:
    if vector["expect"]["outcome"] == Outcome.REJECTED:
        name = "Rejected"
    else:
        name = "ConfirmAccepted" if vector["topic"].endswith("/confirm") else "EnrollAccepted"
    schema: dict[str, Any] = SCHEMAS[name]
    return schema


@pytest.mark.parametrize("name", BY_NAME)
def test_the_schemas_take_the_requests_that_the_service_reads(name: str) -> None:
    vector = BY_NAME[name]
    operation = vector["topic"].rpartition("/")[2]
    if operation not in REQUESTS_OF or vector["expect"].get("code") in {
        "operation_unknown",
        "payload_malformed",
        "payload_too_large",
    }:
        return  # not about a schema
    text = payload_of(vector).decode()
    for placeholder, filled in ((SHA256, "0" * 64), (FIRST_SHA256, "1" * 64), (SIGNATURE, "AA==")):
        text = text.replace(placeholder, filled)
    value = json.loads(text)
    schema = SCHEMAS[REQUESTS_OF[operation]]
    assert fits(value, schema, SCHEMAS) is (vector["expect"].get("code") != "field_invalid")


@pytest.mark.parametrize("vector", ANSWERS, ids=lambda vector: vector["name"])
def test_an_answer_is_read_as_the_vector_says(vector: dict[str, Any]) -> None:
    kind = getattr(messages, vector["message"])
    try:
        codec.decode(vector["payload"].encode(), kind, limits.MAX_ANSWER)
    except Refused:
        assert not vector["is_valid"]
    else:
        assert vector["is_valid"]


@pytest.mark.parametrize("vector", ANSWERS, ids=lambda vector: vector["name"])
def test_the_schemas_take_the_valid_answers_and_no_others(vector: dict[str, Any]) -> None:
    try:
        value = json.loads(vector["payload"])
    except ValueError:
        assert not vector["is_valid"]
        return
    assert fits(value, SCHEMAS[vector["message"]], SCHEMAS) is vector["is_valid"]


def test_every_public_code_that_a_request_can_cause_has_a_vector() -> None:
    caused = {vector["expect"].get("code") for vector in BY_NAME.values()}
    load_and_time = {"rate_limited", "busy", "internal", "origin_invalid"}
    load_and_time |= {"certificate_revoked", "certificate_expired"}
    documented = set(SCHEMAS["Rejected"]["properties"]["code"]["examples"])
    of_updates = {code for code in documented if code.startswith(OF_UPDATES)}
    assert documented - caused - of_updates == load_and_time
