"""The golden vectors of reports, replayed through router, use case and registry."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from broker.core.lifecycle import CertificateState, DeviceState
from broker.core.rate_limit import TokenBuckets
from broker.core.rollout import Image, Progress, Rollout, Selection, Timing
from broker.core.rollout_pace import Pace, StopRule
from broker.core.update_records import DeviceUpdate, GivenAssignment, Part
from broker.entry.mqtt.router import Router, Services
from broker.protocol.names import CertificateSerial, DeviceId, SerialNumber
from broker.protocol.updates import ImageFacts
from broker.protocol.zones import Zone
from broker.services.admission import Admission
from broker.services.blocks import BlockService
from broker.services.outbox import Outbox
from broker.services.refusals import RefusalLog
from tests.support.desk import GROUP, Desk, open_desk
from tests.support.images import PublishedImages
from tests.support.records import a_certificate, a_device, a_fingerprint, a_group
from tests.support.schema import fits

ROOT = Path(__file__).parents[3]
PAGE = json.loads((ROOT / "tests" / "vectors" / "reports.json").read_text(encoding="utf-8"))
INSTALLATION = PAGE["installation"]
BY_NAME = {vector["name"]: vector for vector in PAGE["vectors"]}
SCHEMAS = yaml.safe_load((ROOT / "docs" / "asyncapi.yaml").read_text(encoding="utf-8"))[
    "components"
]["schemas"]
NOW = datetime.fromisoformat(INSTALLATION["now"]).astimezone(UTC)
CODES = {
    "report_signature_invalid",
    "report_device_mismatch",
    "report_conflict",
    "assignment_unknown",
}


class NoTelemetry:
    def count(self, zone: Zone, operation: str, outcome: str) -> None:
        pass


class Replay:
    """One installation, and what it has published."""

    def __init__(self, desk: Desk, place: Path) -> None:
        self.desk = desk
        self.heard: list[tuple[str, dict[str, Any]]] = []
        services = Services(
            enroll=desk.enrolling,
            recover=desk.recovering,
            confirm=desk.confirming,
            renew=desk.renewing,
            admission=Admission(desk.clock, TokenBuckets(1.0, 99), TokenBuckets(1.0, 99)),
            refusals=RefusalLog(desk.registry, desk.clock),
            outbox=Outbox(desk.registry, self),
            blocks=BlockService(
                desk.registry, PublishedImages(place), desk.clock, TokenBuckets(1.0, 1)
            ),
            reports=desk.reporting,
        )
        self.router = Router(services, self, NoTelemetry())

    async def publish(
        self, zone: Zone, topic: str, payload: bytes, *, retain: bool = False
    ) -> None:
        self.heard.append((topic, json.loads(payload)))

    async def send(self, vector: dict[str, Any]) -> None:
        await self.router.handle(Zone(vector["zone"]), vector["topic"], vector["payload"].encode())


async def set_up(desk: Desk) -> None:
    """What `installation` describes: each device has been told to run the image."""
    desk.clock.at = NOW
    await desk.write(("save_group", replace(a_group(), claim_certificates=frozenset())))
    image = INSTALLATION["image"]
    facts = ImageFacts(model=image["model"], version=image["version"], security_counter=1)
    rollout = Rollout(
        name=INSTALLATION["rollout"],
        number=1,
        images=(Image(image["path"], image["sha256"], image["length"], facts),),
        selection=Selection(everyone=True),
        pace=Pace(),
        timing=Timing(),
        stop=StopRule(),
        started_at=NOW,
    )
    await desk.write(("save_rollout", rollout))
    for each in INSTALLATION["devices"]:
        await tell(desk, each, (image["path"], image["sha256"]))


async def tell(desk: Desk, told: dict[str, Any], target: tuple[str, str]) -> None:
    device_id, sequence = DeviceId(told["id"]), told["sequence"]
    parsed = x509.load_pem_x509_certificate(told["pem"].encode())
    device = a_device(
        id=device_id, serial=SerialNumber(device_id), group=GROUP, state=DeviceState.ACTIVE
    )
    certificate = a_certificate(
        serial=CertificateSerial(a_fingerprint(device_id)[:16]),
        device_id=device_id,
        state=CertificateState.ACTIVE,
        key_sha256=a_fingerprint(f"key {device_id}"),
        certificate_sha256=parsed.fingerprint(hashes.SHA256()).hex(),
        not_after=parsed.not_valid_after_utc,
        pem=told["pem"],
    )
    rollout = INSTALLATION["rollout"]
    given = GivenAssignment(
        device_id, sequence, rollout, "n" * 32, NOW, NOW + timedelta(days=14), (target,)
    )
    await desk.write(
        ("save_device", device),
        ("save_certificate", certificate),
        ("save_assignment", given),
        ("save_part", Part(rollout, device_id, Progress.ASSIGNED, NOW, sequence=sequence)),
        ("save_device_update", DeviceUpdate(device_id, sequence, rollout, 1)),
    )


@pytest.fixture
async def replay(tmp_path: Path) -> AsyncIterator[Replay]:
    async with open_desk(tmp_path) as desk:
        await set_up(desk)
        yield Replay(desk, tmp_path)


@pytest.mark.parametrize("name", BY_NAME)
async def test_a_report_is_answered_as_the_vector_says(replay: Replay, name: str) -> None:
    vector = BY_NAME[name]
    for earlier in vector.get("before", ()):
        await replay.send(BY_NAME[earlier])
    replay.heard.clear()
    await replay.send(vector)
    expected = vector["expect"]
    ((topic, answer),) = replay.heard
    assert topic == f"{vector['topic']}/{expected['outcome']}"
    if expected["outcome"] == "rejected":
        assert fits(answer, SCHEMAS["Rejected"], SCHEMAS)
        assert answer["code"] == expected["code"]
        return
    assert fits(answer, SCHEMAS["ReportAccepted"], SCHEMAS)
    assert {field: answer[field] for field in expected["fields"]} == expected["fields"]
    device = vector["topic"].split("/")[3]
    part = await replay.desk.read("part", INSTALLATION["rollout"], DeviceId(device))
    assert part.progress == expected["progress"]


@pytest.mark.parametrize("name", BY_NAME)
def test_the_schema_takes_the_requests_that_the_service_reads(name: str) -> None:
    request = json.loads(BY_NAME[name]["payload"])
    is_wrong = name in {"a signature that isn't base64", "a text that is too long"}
    assert fits(request, SCHEMAS["ReportRequest"], SCHEMAS) is not is_wrong


def test_every_code_of_reports_has_a_vector() -> None:
    assert {vector["expect"].get("code") for vector in BY_NAME.values()} >= CODES
