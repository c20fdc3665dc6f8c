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

from broker.core.lifecycle import (
    CERTIFICATE_TRANSITIONS,
    DEVICE_TRANSITIONS,
    CertificateInput,
    CertificateState,
    DeviceInput,
    DeviceState,
)
from broker.protocol import limits
from broker.protocol.codec import rejection
from broker.protocol.codes import EXPLANATIONS, Code, Refused, public
from broker.protocol.messages import (
    ConfirmAccepted,
    ConfirmRequest,
    EnrollAccepted,
    EnrollRequest,
    Rejected,
)
from broker.protocol.names import NAME_PATTERN
from broker.protocol.topics import Operation, Outcome
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
}


def filled(page: str) -> str:
    """The page with every marked part written anew."""
    return MARKED.sub(
        lambda found: f"<!-- generated: {found[1]} -->\n{GENERATORS[found[1]]()}<!-- end -->", page
    )


# --- AsyncAPI -------------------------------------------------------------------------------------

ACCEPTED = {Operation.ENROLL: EnrollAccepted, Operation.CONFIRM: ConfirmAccepted}
REQUESTS = {Operation.ENROLL: EnrollRequest, Operation.CONFIRM: ConfirmRequest}
ADDRESSES = {
    Operation.ENROLL: (Zone.CLAIM, "muster/v1/claim/{claimName}/{clientId}/enroll"),
    Operation.CONFIRM: (Zone.FLEET, "muster/v1/device/{deviceId}/confirm"),
}
PARAMETERS = {
    "claimName": "The claim certificate's common name.",
    "clientId": "The id of the connection that publishes.",
    "deviceId": "The device certificate's common name.",
}


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


def _channels() -> dict[str, Any]:
    channels = {}
    for operation, (zone, address) in ADDRESSES.items():
        channels[operation.value] = _channel(zone, address, REQUESTS[operation])
        for outcome, message in _answers(operation).items():
            name = f"{operation}{outcome.capitalize()}"
            channels[name] = _channel(zone, f"{address}/{outcome}", message)
    return channels


def _answers(operation: Operation) -> dict[Outcome, type]:
    return {Outcome.ACCEPTED: ACCEPTED[operation], Outcome.REJECTED: Rejected}


def _channel(zone: Zone, address: str, message: type) -> dict[str, Any]:
    names = re.findall(r"\{(\w+)\}", address)
    return {
        "address": address,
        "servers": [{"$ref": f"#/servers/{zone}"}],
        "parameters": {name: {"description": PARAMETERS[name]} for name in names},
        "messages": {
            message.__name__: {"$ref": f"#/components/messages/{message.__name__}"},
        },
    }


def _operations() -> dict[str, Any]:
    operations = {}
    for operation in ADDRESSES:
        operations[operation.value] = _operation("send", operation.value)
        for outcome in Outcome:
            name = f"{operation}{outcome.capitalize()}"
            operations[name] = _operation("receive", name)
    return operations


def _operation(action: str, channel: str) -> dict[str, Any]:
    mqtt = {"qos": 1, "bindingVersion": "0.2.0"}
    if action == "send":
        mqtt = {"qos": 1, "retain": False, "bindingVersion": "0.2.0"}
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "bindings": {"mqtt": mqtt},
    }


def _messages() -> dict[str, Any]:
    kinds = [*REQUESTS.values(), *ACCEPTED.values(), Rejected]
    return {
        kind.__name__: {
            "contentType": "application/json",
            "payload": {"$ref": f"#/components/schemas/{kind.__name__}"},
        }
        for kind in kinds
    }


def _schemas() -> dict[str, Any]:
    kinds = [*REQUESTS.values(), *ACCEPTED.values(), Rejected]
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
