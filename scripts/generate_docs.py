"""Writes the parts of docs/ that follow from the code; with --check, only says whether they do.

python scripts/generate_docs.py [--check] [--docs DIR]
"""

import argparse
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec
import yaml  # type: ignore[import-untyped]

from broker.core.ca_rollover import ROLLOVER_TRANSITIONS, Phase, Step
from broker.core.campaign import CAMPAIGN_TRANSITIONS, CampaignInput, CampaignState
from broker.core.lifecycle import (
    CERTIFICATE_TRANSITIONS,
    DEVICE_TRANSITIONS,
    CertificateInput,
    CertificateState,
    DeviceInput,
    DeviceState,
)
from broker.protocol import limits, topics
from broker.protocol.codec import rejection
from broker.protocol.codes import EXPLANATIONS, Code, Refused, public
from broker.protocol.messages import (
    ConfirmAccepted,
    ConfirmRequest,
    EnrollAccepted,
    EnrollRequest,
    RecoverRequest,
    Rejected,
    RenewRequest,
    RotationOrder,
    SignedTrustBundle,
)
from broker.protocol.names import NAME_PATTERN, ClaimName, ClientId, DeviceId
from broker.protocol.topics import ZONE_OF, ClaimOrigin, Desired, DeviceOrigin, Operation, Outcome
from broker.protocol.updates import (
    Assignment,
    BlockAccepted,
    BlockRequest,
    ImageFacts,
    ReportAccepted,
    ReportRequest,
    SignedAssignment,
    SoftwareReport,
    UpdateReport,
)
from broker.protocol.zones import Zone
from device_client import retry
from device_client.errors import RequestRejected

Table = Mapping[Any, StrEnum]
"""(state, input) → state."""

PROSPECTS = {
    retry.Prospect.SOON: "soon",
    retry.Prospect.LATER: "later",
    retry.Prospect.NEVER: "no",
}
MARKED = re.compile(r"<!-- generated: ([a-z ]+) -->\n.*?<!-- end -->", re.DOTALL)


def _rows(head: str, rows: Iterable[tuple[str, ...]]) -> str:
    columns = head.count("|") - 1
    body = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    return f"{head}\n|{'---|' * columns}\n{body}"


def _ask_again(code: Code) -> str:
    """What this project's own agent does, so that the page can't promise anything else."""
    error = RequestRejected(rejection(Refused(code), None))
    return PROSPECTS[retry.prospect(error, 1)]


def codes() -> str:
    """The table of the codes that go on the wire."""
    return _rows(
        "| Code | Means | What to do | Ask again |",
        (
            (f"`{code}`", EXPLANATIONS[code].message, EXPLANATIONS[code].remedy, _ask_again(code))
            for code in Code
            if public(code) is code
        ),
    )


def masked_codes() -> str:
    """The table of the codes that only the audit log has."""
    return _rows(
        "| In the audit log | Means | On the wire |",
        (
            (f"`{code}`", EXPLANATIONS[code].message, f"`{public(code)}`")
            for code in Code
            if public(code) is not code
        ),
    )


def sizes() -> str:
    """The table of what may be how large."""
    return _rows(
        "| What | At most |",
        [
            ("a request", f"{limits.MAX_REQUEST:,} bytes"),
            ("an answer", f"{limits.MAX_ANSWER:,} bytes"),
            ("a claim bundle", f"{limits.MAX_BUNDLE:,} bytes"),
            ("a topic", f"{limits.MAX_TOPIC:,} characters"),
            ("`request_id`", f"{limits.MAX_REQUEST_ID:,} characters"),
            ("`csr`", f"{limits.MAX_CSR:,} characters"),
            ("`parameters`", f"{limits.MAX_PARAMETERS:,} entries"),
            ("a parameter's value", f"{limits.MAX_PARAMETER_VALUE:,} characters"),
        ],
    )


def _diagram(table: Table, first: StrEnum) -> str:
    final = sorted(set(table.values()) - {state for state, _ in table})
    inputs: dict[tuple[StrEnum, StrEnum], list[str]] = {}
    for (state, happens), follows in table.items():
        inputs.setdefault((state, follows), []).append(happens)
    lines = [f"    [*] --> {first}"]
    lines += [f"    {a} --> {b}: {', '.join(words)}" for (a, b), words in inputs.items()]
    lines += [f"    {state} --> [*]" for state in final]
    return "```mermaid\nstateDiagram-v2\n" + "\n".join(lines) + "\n```\n"


def _matrix(table: Table, states: type[StrEnum], inputs: type[StrEnum]) -> str:
    return _rows(
        f"| | {' | '.join(inputs)} |",
        (
            (f"**{state}**", *(str(table.get((state, happens), "")) for happens in inputs))
            for state in states
        ),
    )


GENERATORS: Mapping[str, Callable[[], str]] = {
    "codes": codes,
    "masked codes": masked_codes,
    "sizes": sizes,
    "device diagram": lambda: _diagram(DEVICE_TRANSITIONS, DeviceState.REGISTERED),
    "device table": lambda: _matrix(DEVICE_TRANSITIONS, DeviceState, DeviceInput),
    "certificate diagram": lambda: _diagram(CERTIFICATE_TRANSITIONS, CertificateState.ISSUED),
    "certificate table": lambda: _matrix(
        CERTIFICATE_TRANSITIONS, CertificateState, CertificateInput
    ),
    "rollover diagram": lambda: _diagram(ROLLOVER_TRANSITIONS, Phase.INTRODUCING),
    "rollover table": lambda: _matrix(ROLLOVER_TRANSITIONS, Phase, Step),
    "campaign diagram": lambda: _diagram(CAMPAIGN_TRANSITIONS, CampaignState.RUNNING),
    "campaign table": lambda: _matrix(CAMPAIGN_TRANSITIONS, CampaignState, CampaignInput),
}


def filled(page: str) -> str:
    """The page with every marked part written anew."""
    return MARKED.sub(
        lambda found: f"<!-- generated: {found[1]} -->\n{GENERATORS[found[1]]()}<!-- end -->", page
    )


# --- AsyncAPI -------------------------------------------------------------------------------------

REQUESTS: Mapping[Operation, type] = {
    Operation.ENROLL: EnrollRequest,
    Operation.RECOVER: RecoverRequest,
    Operation.CONFIRM: ConfirmRequest,
    Operation.RENEW: RenewRequest,
    Operation.REPORT: ReportRequest,
    Operation.BLOCK: BlockRequest,
}
ACCEPTED: Mapping[Operation, type] = {
    Operation.ENROLL: EnrollAccepted,
    Operation.RECOVER: EnrollAccepted,
    Operation.CONFIRM: ConfirmAccepted,
    Operation.RENEW: EnrollAccepted,
    Operation.REPORT: ReportAccepted,
    Operation.BLOCK: BlockAccepted,
}
CLAIMANT = ClaimOrigin(ClaimName("{claimName}"), ClientId("{clientId}"))
DEVICE = DeviceOrigin(DeviceId("{deviceId}"))
RETAINED: Mapping[str, tuple[str, type | None]] = {
    "desiredRotation": (
        topics.desired_topic(DEVICE.device_id, Desired.ROTATION),
        RotationOrder,
    ),
    "desiredUpdate": (topics.desired_topic(DEVICE.device_id, Desired.UPDATE), SignedAssignment),
    "trustBundle": (topics.TRUST_BUNDLE, SignedTrustBundle),
    "updateMetadata": (topics.metadata_topic("{metadataFile}"), None),
}
"""By channel, the topic and its message; none where TUF's specification says what it is."""
INNER = (Assignment, UpdateReport, SoftwareReport, ImageFacts)
"""What travels as text within a signed message, or within TUF's metadata."""
PARAMETERS = {
    "claimName": "The claim certificate's common name.",
    "clientId": "The id of the connection that publishes.",
    "deviceId": "The device certificate's common name.",
    "metadataFile": "The name of a file of TUF's metadata, such as `3.root.json`.",
}
METADATA = "TufMetadata"


def asyncapi() -> str:
    """The contract for machines, from a device's point of view."""
    document = {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Muster",
            "version": "1.0.0",
            "description": "Fleet provisioning over MQTT, as a device sees it. "
            "docs/protocol.md is the same for people, and says what no schema can.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "claim": _server("mqtt.example.com:8884", "Where devices ask for an identity."),
            "fleet": _server("mqtt.example.com:8883", "Where devices live that have one."),
        },
        "channels": _channels(),
        "operations": _operations(),
        "components": {
            "messages": _messages(),
            "schemas": _schemas(),
            "securitySchemes": {"certificate": {"type": "X509"}},
        },
    }
    text: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=96)
    return "# Generated by scripts/generate_docs.py from broker/protocol.\n" + text


def _server(host: str, description: str) -> dict[str, Any]:
    return {
        "host": host,
        "protocol": "secure-mqtt",
        "protocolVersion": "3.1.1",
        "description": description,
        "security": [{"$ref": "#/components/securitySchemes/certificate"}],
    }


def _address(operation: Operation) -> str:
    if ZONE_OF[operation] is Zone.CLAIM:
        return topics.claim_topic(CLAIMANT, operation)
    return topics.device_topic(DEVICE, operation)


def _channels() -> dict[str, Any]:
    channels = {}
    for operation, zone in ZONE_OF.items():
        address = _address(operation)
        channels[operation.value] = _channel(zone, address, REQUESTS[operation].__name__)
        for outcome, message in _answers(operation).items():
            name = f"{operation}{outcome.capitalize()}"
            channels[name] = _channel(zone, f"{address}/{outcome}", message.__name__)
    for name, (address, kind) in RETAINED.items():
        channels[name] = _channel(Zone.FLEET, address, kind.__name__ if kind else METADATA)
    return channels


def _answers(operation: Operation) -> dict[Outcome, type]:
    return {Outcome.ACCEPTED: ACCEPTED[operation], Outcome.REJECTED: Rejected}


def _channel(zone: Zone, address: str, message: str) -> dict[str, Any]:
    names = re.findall(r"\{(\w+)\}", address)
    return {
        "address": address,
        "servers": [{"$ref": f"#/servers/{zone}"}],
        "parameters": {name: {"description": PARAMETERS[name]} for name in names},
        "messages": {message: {"$ref": f"#/components/messages/{message}"}},
    }


def _operations() -> dict[str, Any]:
    operations = {}
    for operation in ZONE_OF:
        operations[operation.value] = _operation("send", operation.value)
        for outcome in Outcome:
            name = f"{operation}{outcome.capitalize()}"
            operations[name] = _operation("receive", name)
    for name in RETAINED:
        operations[name] = _operation("receive", name, is_retained=True)
    return operations


def _operation(action: str, channel: str, *, is_retained: bool = False) -> dict[str, Any]:
    mqtt = {"qos": 1, "bindingVersion": "0.2.0"}
    if action == "send" or is_retained:
        mqtt = {"qos": 1, "retain": is_retained, "bindingVersion": "0.2.0"}
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "bindings": {"mqtt": mqtt},
    }


def _kinds() -> list[type]:
    retained = [kind for _, kind in RETAINED.values() if kind is not None]
    return list(dict.fromkeys([*REQUESTS.values(), *ACCEPTED.values(), Rejected, *retained]))


def _messages() -> dict[str, Any]:
    messages: dict[str, Any] = {
        kind.__name__: {
            "contentType": "application/json",
            "payload": {"$ref": f"#/components/schemas/{kind.__name__}"},
        }
        for kind in _kinds()
    }
    messages[METADATA] = {
        "contentType": "application/json",
        "summary": "A file of TUF's metadata, unchanged (TUF 1.0, section 4).",
        "payload": {"type": "object"},
    }
    return messages


def _schemas() -> dict[str, Any]:
    kinds = [*_kinds(), *INNER]
    _, schemas = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    schemas["Rejected"]["properties"]["code"]["examples"] = sorted(
        code for code in Code if public(code) is code
    )
    schemas["EnrollAccepted"]["properties"]["device_id"]["pattern"] = NAME_PATTERN
    portable: dict[str, Any] = _portable(schemas)
    return portable


def _portable(schema: Any) -> Any:
    """Patterns as JSON Schema wants them (`\\Z` is Python's, and ECMA 262's `$` means the same),
    and descriptions without a docstring's margin."""
    if isinstance(schema, dict):
        return {name: _PORTABLE.get(name, _portable)(part) for name, part in schema.items()}
    if isinstance(schema, list):
        return [_portable(part) for part in schema]
    return str(schema) if isinstance(schema, str) else schema


_PORTABLE: Mapping[str, Callable[[Any], Any]] = {
    "pattern": lambda pattern: pattern.replace(r"\Z", "$"),
    "description": inspect.cleandoc,
}


# --- The files ------------------------------------------------------------------------------------


def wanted(docs: Path) -> dict[Path, str]:
    """What each generated file should hold, by the pages that are in `docs`."""
    pages = [docs / "protocol.md", docs / "lifecycle.md"]
    files = {page: filled(page.read_text(encoding="utf-8")) for page in pages}
    files[docs / "asyncapi.yaml"] = asyncapi()
    return files


def _stands(path: Path, text: str) -> bool:
    return path.exists() and path.read_text(encoding="utf-8") == text


def main() -> int:
    """Exit status 1 when --check found a file out of step."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--check", action="store_true")
    options.add_argument("--docs", type=Path, default=Path(__file__).parents[1] / "docs")
    chosen = options.parse_args()
    stale = {path: text for path, text in wanted(chosen.docs).items() if not _stands(path, text)}
    for path, text in stale.items():
        if chosen.check:
            print(f"{path} is out of step; run: python scripts/generate_docs.py", file=sys.stderr)
        else:
            path.write_text(text, encoding="utf-8")
    return 1 if chosen.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
