"""What docs/ says of the protocol is what the code says."""

import dataclasses
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from broker.protocol import codec, limits, topics
from broker.protocol.bundle import ClaimBundle
from broker.protocol.codes import Code, public
from broker.protocol.messages import (
    ConfirmAccepted,
    ConfirmRequest,
    EnrollAccepted,
    EnrollRequest,
    RecoverRequest,
    Rejected,
    RenewRequest,
    SignedTrustBundle,
    TrustBundle,
)
from broker.protocol.names import ClaimName, ClientId, DeviceId
from broker.protocol.topics import (
    ZONE_OF,
    ClaimOrigin,
    Desired,
    DeviceOrigin,
    Operation,
    Outcome,
)
from broker.protocol.updates import ImageFacts
from broker.protocol.zones import Zone

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
PROTOCOL = (DOCS / "protocol.md").read_text(encoding="utf-8")
ASYNCAPI = yaml.safe_load((DOCS / "asyncapi.yaml").read_text(encoding="utf-8"))
MESSAGES = {
    "enroll": EnrollRequest,
    "enroll/accepted": EnrollAccepted,
    "confirm": ConfirmRequest,
    "confirm/accepted": ConfirmAccepted,
    "renew": RenewRequest,
    "recover": RecoverRequest,
    "rejected": Rejected,
}


def generate(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the generator."""
    program = [sys.executable, str(ROOT / "scripts" / "generate_docs.py"), *arguments]
    return subprocess.run(program, capture_output=True, text=True, timeout=60, cwd=ROOT)


def section(title: str) -> str:
    """What stands below a heading, up to the next one of any level."""
    found = re.search(rf"^##+ {re.escape(title)}\n(.*?)(?=^##+ |\Z)", PROTOCOL, re.M | re.S)
    assert found is not None, f"docs/protocol.md has no heading {title!r}"
    return found[1]


def test_everything_generated_is_in_step() -> None:
    ended = generate("--check")
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("name", ["protocol.md", "lifecycle.md", "asyncapi.yaml"])
def test_what_is_out_of_step_is_noticed_and_put_right(tmp_path: Path, name: str) -> None:
    docs = tmp_path / "docs"
    shutil.copytree(DOCS, docs)
    page = docs / name
    good = page.read_text(encoding="utf-8")
    page.write_text(re.sub("revoke", "rewoke", good), encoding="utf-8")
    ended = generate("--check", "--docs", str(docs))
    assert ended.returncode == 1
    assert name in ended.stderr
    assert generate("--docs", str(docs)).returncode == 0
    assert generate("--check", "--docs", str(docs)).returncode == 0


@pytest.mark.parametrize("title", MESSAGES)
def test_every_example_is_a_whole_message(title: str) -> None:
    (example,) = re.findall(r"```json\n(.*?)```", section(title), re.S)
    codec.decode(example.encode(), MESSAGES[title], limits.MAX_ANSWER)


@pytest.mark.parametrize(
    ("title", "message"), [*MESSAGES.items(), ("The claim bundle", ClaimBundle)]
)
def test_every_field_is_described_in_its_order(title: str, message: type) -> None:
    described = re.findall(r"^\| `(\w+)` \|", section(title), re.M)
    fields = dataclasses.fields(message)
    assert described == [field.name for field in fields]


@pytest.mark.parametrize(
    ("title", "messages"),
    [("fleet/trust-bundle", [SignedTrustBundle, TrustBundle]), ("image facts", [ImageFacts])],
)
def test_every_field_of_what_is_signed_is_described(title: str, messages: list[type]) -> None:
    described = re.findall(r"^\| `(\w+)` \|", section(title), re.M)
    fields = [field.name for message in messages for field in dataclasses.fields(message)]
    assert sorted(described) == sorted(fields)


def test_the_example_of_a_trust_bundle_is_one_and_holds_one() -> None:
    (example,) = re.findall(r"```json\n(.*?)```", section("fleet/trust-bundle"), re.S)
    signed = codec.decode(example.encode(), SignedTrustBundle, limits.MAX_ANSWER)
    assert codec.decode(signed.bundle.encode(), TrustBundle, limits.MAX_ANSWER).root


def test_the_example_of_an_image_s_facts() -> None:
    (example,) = re.findall(r"```json\n(.*?)```", section("image facts"), re.S)
    assert codec.decode(example.encode(), ImageFacts, limits.MAX_METADATA).depends


def test_every_public_code_is_described_once_and_no_masked_one_beside_it() -> None:
    tables = section("Refusal codes").split("<!-- end -->")
    rows = [re.findall(r"^\| `(\w+)` \|", table, re.M) for table in tables]
    assert rows[0] == [code for code in Code if public(code) is code]
    assert rows[1] == [code for code in Code if public(code) is not code]


def references(part: Any) -> Iterator[str]:
    """Every `$ref` in a document."""
    if isinstance(part, dict):
        for name, inner in part.items():
            if name == "$ref":
                yield inner
            else:
                yield from references(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from references(inner)


def test_every_reference_of_the_asyncapi_document_resolves() -> None:
    found = set(references(ASYNCAPI))
    assert found
    for reference in found:
        part = ASYNCAPI
        for name in reference.removeprefix("#/").split("/"):
            part = part[name]


def test_the_asyncapi_document_has_every_topic_and_no_other() -> None:
    claimant = ClaimOrigin(ClaimName("{claimName}"), ClientId("{clientId}"))
    device = DeviceOrigin(DeviceId("{deviceId}"))
    requests = [
        topics.claim_topic(claimant, operation)
        if zone is Zone.CLAIM
        else topics.device_topic(device, operation)
        for operation, zone in ZONE_OF.items()
    ]
    answers = [topics.answer_topic(topic, outcome) for topic in requests for outcome in Outcome]
    retained = [topics.desired_topic(device.device_id, what) for what in Desired]
    retained += [topics.TRUST_BUNDLE, topics.metadata_topic("{metadataFile}")]
    addresses = [channel["address"] for channel in ASYNCAPI["channels"].values()]
    assert set(ZONE_OF) == set(Operation)
    assert sorted(addresses) == sorted(requests + answers + retained)


def test_what_is_retained_is_received_as_such() -> None:
    retained = {
        name
        for name, operation in ASYNCAPI["operations"].items()
        if operation["bindings"]["mqtt"].get("retain")
    }
    assert retained == {"desiredRotation", "desiredUpdate", "trustBundle", "updateMetadata"}
    assert all(ASYNCAPI["operations"][name]["action"] == "receive" for name in retained)
