"""The golden vectors of what a device verifies, replayed through the agent's own verifiers."""

import json
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from broker.protocol import codec, limits
from broker.protocol.codes import Refused
from broker.protocol.messages import TrustBundle
from broker.protocol.names import DeviceId
from broker.protocol.updates import AssignedTarget, ImageFacts
from broker.protocol.versions import parse_version
from device_client.bundles import successor_of
from device_client.errors import TrustRefused
from device_client.update.assignment import authentic
from device_client.update.codes import UpdateCode, UpdateRefused
from device_client.update.images import Hardware, Image, Running, check_dependencies, check_fit
from device_client.update.trusted import Trusted
from tests.support.schema import fits

ROOT = Path(__file__).parents[3]
SCHEMAS = yaml.safe_load((ROOT / "docs" / "asyncapi.yaml").read_text(encoding="utf-8"))[
    "components"
]["schemas"]


def page(name: str) -> Any:
    return json.loads((ROOT / "tests" / "vectors" / name).read_text(encoding="utf-8"))


BUNDLES, ASSIGNMENTS, IMAGES = map(page, ("trust-bundles.json", "assignments.json", "images.json"))


def named(vector: dict[str, Any]) -> str:
    return str(vector["name"])


@pytest.mark.parametrize("vector", BUNDLES["vectors"], ids=named)
def test_a_trust_bundle_is_taken_as_the_vector_says(vector: dict[str, Any]) -> None:
    known = TrustBundle(**BUNDLES["known"][vector["known"]])
    expected = vector["expect"]
    try:
        found = successor_of(known, vector["payload"].encode())
    except TrustRefused:
        assert not expected["is_taken"]
        return
    assert (found.version > known.version) is expected["is_taken"]
    assert found.version == expected.get("version", known.version)
    assert found.root == known.root


def assignment_code(vector: dict[str, Any]) -> str:
    now = datetime.fromisoformat(vector.get("now", ASSIGNMENTS["now"])).astimezone(UTC)
    trusted = Trusted(ASSIGNMENTS["roots"][vector["root"]].encode(), now)
    try:
        authentic(vector["payload"].encode(), trusted, DeviceId(ASSIGNMENTS["device_id"]), now)
    except UpdateRefused as refused:
        return refused.why
    return "authentic"


@pytest.mark.parametrize("vector", ASSIGNMENTS["vectors"], ids=named)
def test_an_assignment_is_judged_as_the_vector_says(vector: dict[str, Any]) -> None:
    assert assignment_code(vector) == vector["expect"]


RUNNING = {name: Running(**each) for name, each in IMAGES["device"]["running"].items()}
HARDWARE = Hardware(model=IMAGES["device"]["model"], hw_rev=IMAGES["device"]["hw_rev"])


def image_code(vector: dict[str, Any]) -> str:
    try:
        facts = codec.decode(json.dumps(vector["custom"]).encode(), ImageFacts, limits.MAX_METADATA)
    except Refused:
        return UpdateCode.FACTS_INVALID
    if facts.component not in RUNNING:
        return UpdateCode.COMPONENT_UNKNOWN
    image = Image(target=AssignedTarget(path="fw.bin", sha256="0" * 64, length=1), facts=facts)
    try:
        check_fit(image, HARDWARE, RUNNING[facts.component])
        check_dependencies((image,), RUNNING)
    except UpdateRefused as refused:
        return refused.why
    return "fits"


@pytest.mark.parametrize("vector", IMAGES["vectors"], ids=named)
def test_an_image_s_facts_are_judged_as_the_vector_says(vector: dict[str, Any]) -> None:
    assert image_code(vector) == vector["expect"]


@pytest.mark.parametrize("vector", IMAGES["vectors"], ids=named)
def test_the_schema_takes_the_facts_that_a_device_reads(vector: dict[str, Any]) -> None:
    is_read = vector["expect"] != UpdateCode.FACTS_INVALID
    assert fits(vector["custom"], SCHEMAS["ImageFacts"], SCHEMAS) is is_read


def test_versions_are_in_the_order_that_the_vectors_say() -> None:
    versions = [parse_version(text) for text in IMAGES["versions"]]
    assert all(one < other for one, other in pairwise(versions))


@pytest.mark.parametrize("vector", ASSIGNMENTS["vectors"], ids=named)
def test_the_schemas_take_the_assignments_that_a_device_reads(vector: dict[str, Any]) -> None:
    is_read = vector["expect"] != UpdateCode.ASSIGNMENT_MALFORMED
    if vector["expect"] == UpdateCode.ASSIGNMENT_UNTRUSTED:
        return  # it's refused before its text is read
    try:
        message = json.loads(vector["payload"])
    except ValueError:
        assert not is_read
        return
    is_message = fits(message, SCHEMAS["SignedAssignment"], SCHEMAS)
    is_one = is_message and fits(json.loads(message["assignment"]), SCHEMAS["Assignment"], SCHEMAS)
    assert is_one is is_read
