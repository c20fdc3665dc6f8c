"""Update notice: until the last connected device was told, from the operator's word on.

That word is the release of a rollout that was prepared, or a push that nothing was prepared for:
then deciding and signing an assignment for each comes on top. Both against a bare publish of the
very messages that the service published, in the way in which it publishes, on the same Mosquitto to
the same connections.
"""

import asyncio
import base64
import ssl
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from secrets import token_hex
from typing import Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from broker.adapters.ca.file_authority import FileAuthority
from broker.adapters.clock import SystemClock
from broker.composition.registries import open_registry
from broker.core.csr import fingerprint_of_key
from broker.core.lifecycle import CertificateState, DeviceState
from broker.core.records import Certificate, Device
from broker.core.rollout import Progress, Rollout, RolloutInput, Selection
from broker.operating.updating import update_repository
from broker.ports.registry import Registry, WriteTransaction
from broker.protocol import codec, limits
from broker.protocol.names import DeviceId, Fingerprint, SerialNumber
from broker.protocol.statements import report_statement
from broker.protocol.topics import (
    Desired,
    DeviceOrigin,
    Operation,
    Outcome,
    answer_topic,
    desired_topic,
    device_topic,
    metadata_topic,
)
from broker.protocol.updates import (
    Assignment,
    Phase,
    ReportAccepted,
    ReportRequest,
    SignedAssignment,
)
from broker.protocol.zones import Zone
from broker.services import rollouts
from broker.services.rollouts import Push
from broker.settings import BrokerKind
from device_client.update import steps
from device_client.update.images import Image
from device_client.update.journal import Entry, State
from tests.bench.bare_publisher import BEGAN, TOOK, BarePlan
from tests.bench.bench import Bench
from tests.bench.load.mqtt import Connection, connected
from tests.bench.measuring import CpuMark, middle, say
from tests.bench.processes import own_child
from tests.bench.report import Row, at_most
from tests.support.csrs import fresh_key
from tests.support.installation import GROUP
from tests.support.stack import Plan, Stack, running_stack
from tests.support.update_devices import workshop_of
from tests.support.update_workshop import MODEL, Workshop
from tests.support.waiting import eventually

DEVICES: Final = 2_000
_ROUNDS: Final = 5
_TO_HOLD: Final = 1.2
_CONNECTING: Final = 32
_GIVE_UP_S: Final = 120.0
_PUBLISH_OVERHEAD: Final = 2 + 3 + 2 + 4
"""Bytes of PUBLISH besides topic and payload (type, length, topic's length, id), and its PUBACK."""


@dataclass(frozen=True)
class Round:
    """One notice to all of them, and the CPU of whoever published."""

    seconds: float
    cpu_s: float


@dataclass(frozen=True)
class Rounds:
    """What was measured: each kind several times."""

    pushed: Sequence[Round]
    released: Sequence[Round]
    bare: Sequence[Round]
    prepared_cpu_s: float
    """Of the service, for one preparation of all."""


@dataclass
class Told:
    """What a fleet of connections has heard in one round."""

    expected: int
    at: list[float] = field(default_factory=list)
    messages: dict[str, bytes] = field(default_factory=dict)
    everybody: asyncio.Event = field(default_factory=asyncio.Event)

    def hear(self, topic: str, payload: bytes) -> None:
        self.at.append(time.monotonic())
        self.messages[topic] = payload
        if len(self.messages) == self.expected:
            self.everybody.set()

    async def wait(self) -> None:
        async with asyncio.timeout(_GIVE_UP_S):
            await self.everybody.wait()


class Fleet:
    """Connected devices that listen for assignments, and say nothing."""

    def __init__(self) -> None:
        self.told = Told(0)

    def begin(self, expected: int) -> Told:
        """From now on they are heard into a new round."""
        self.told = Told(expected)
        return self.told

    async def listen(self, connection: Connection) -> None:
        """Until it's cancelled."""
        while True:
            answer = await connection.heard()
            if answer.payload:
                self.told.hear(answer.topic, answer.payload)


async def measure(bench: Bench) -> list[Row]:
    """On Mosquitto, with the service in a process of its own."""
    return await measure_with(bench, DEVICES)


async def measure_with(bench: Bench, devices: int) -> list[Row]:
    """The same for any number of devices."""
    place = bench.place("update-notice")
    plan = Plan(brokers=BrokerKind.MOSQUITTO, in_process=False)
    async with running_stack(place, plan) as stack, AsyncExitStack() as ending:
        await stack.installation.standard([])
        workshop = await asyncio.to_thread(workshop_of, stack, place)
        path = await asyncio.to_thread(workshop.publish_image)
        contexts = await _members(stack, place, devices)
        say(f"{devices:,} devices connect")
        fleet = Fleet()
        await _connect(stack, contexts, fleet, ending)
        operator = _Operator(stack, workshop, path, fleet, devices)
        pushed = [await operator.push() for _ in range(_ROUNDS)]
        prepared, released = [], []
        for _ in range(_ROUNDS):
            prepared.append(await operator.prepare())
            released.append(await operator.release())
        messages = fleet.told.messages
        await stack.stop_service()
        bare = [await _publish_bare(stack, place, messages, fleet) for _ in range(_ROUNDS)]
        size = _wire_bytes(workshop, messages)
    return _rows(devices, Rounds(pushed, released, bare, middle(prepared)), size)


async def _members(stack: Stack, place: Path, count: int) -> dict[str, ssl.SSLContext]:
    """Registers devices with certificates, by their own authority; TLS contexts by name."""
    folder = place / "devices"
    folder.mkdir()
    authority = await asyncio.to_thread(FileAuthority.load, stack.home)
    anchors = stack.home.server_anchors.read_text()
    contexts: dict[str, ssl.SSLContext] = {}
    known = []
    for number in range(count):
        device, certificate, context = _member(authority, folder, anchors, number)
        contexts[device.id] = context
        known.append((device, certificate))

    def save(tx: WriteTransaction) -> None:
        for device, certificate in known:
            tx.save_device(device)
            tx.save_certificate(certificate)

    async with open_registry(stack.home, stack.installation.settings) as registry:
        await registry.write(save)
    return contexts


def _member(
    authority: FileAuthority, folder: Path, anchors: str, number: int
) -> tuple[Device, Certificate, ssl.SSLContext]:
    now, name, key = datetime.now(UTC), DeviceId(f"notice-{number:05d}"), fresh_key()
    issued = authority.issue(name, key.public_key(), now, now + timedelta(days=1))
    chain, secret = folder / f"{name}.crt", folder / f"{name}.key"
    chain.write_text(issued.pem + authority.chain_pem)
    secret.touch(0o600)
    secret.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.create_default_context(cadata=anchors)
    context.load_cert_chain(chain, secret)
    leaf = x509.load_pem_x509_certificate(issued.pem.encode())
    device = Device(
        id=name,
        group=GROUP,
        serial=SerialNumber(name),
        state=DeviceState.ACTIVE,
        registered_at=now,
        parameters={"model": MODEL},
        activated_at=now,
    )
    certificate = Certificate(
        serial=issued.serial,
        device_id=name,
        state=CertificateState.ACTIVE,
        claim_name=None,
        key_sha256=fingerprint_of_key(key.public_key()),
        certificate_sha256=Fingerprint(leaf.fingerprint(hashes.SHA256()).hex()),
        not_before=issued.not_before,
        not_after=issued.not_after,
        pem=issued.pem,
        confirm_by=now,
        confirmed_at=now,
    )
    return device, certificate, context


async def _connect(
    stack: Stack, contexts: dict[str, ssl.SSLContext], fleet: Fleet, ending: AsyncExitStack
) -> None:
    names = list(contexts)
    for begin in range(0, len(names), _CONNECTING):
        some = names[begin : begin + _CONNECTING]
        opening = (_open(stack, name, contexts[name], ending) for name in some)
        for connection in await asyncio.gather(*opening):
            listening = asyncio.create_task(fleet.listen(connection))
            ending.push_async_callback(_end, listening)


async def _end(listening: "asyncio.Task[None]") -> None:
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)


async def _open(
    stack: Stack, name: str, context: ssl.SSLContext, ending: AsyncExitStack
) -> Connection:
    port = stack.ports[Zone.FLEET]
    connection = await ending.enter_async_context(connected(port, context, name))
    await connection.subscribe([desired_topic(DeviceId(name), Desired.UPDATE)])
    return connection


class _Operator:
    """Has all of the fleet told, again and again."""

    def __init__(
        self, stack: Stack, workshop: Workshop, path: str, fleet: Fleet, devices: int
    ) -> None:
        self._stack = stack
        self._targets = update_repository(workshop.home, None).targets()
        self._path = path
        self._fleet = fleet
        self._devices = devices
        self._service = own_child("up")
        self._clock = SystemClock()
        self._names = (f"notice-{number}" for number in count())
        self._held = ""

    async def push(self) -> Round:
        """Until the last of them has heard of a rollout that nobody has prepared."""
        rollout = self._planned(hold=False)
        return await self._timed(lambda registry: rollouts.start(registry, self._clock, rollout))

    async def prepare(self) -> float:
        """CPU seconds of the service until all of a rollout that is held is prepared."""
        before = CpuMark.now([self._service])
        rollout = self._planned(hold=True)
        self._held = rollout.name
        async with self._registry() as registry:
            await rollouts.start(registry, self._clock, rollout)

            async def is_prepared() -> bool:
                return (await rollouts.look(registry, self._held)).prepared == self._devices

            await eventually(is_prepared, within=_GIVE_UP_S)
        return before.since()

    async def release(self) -> Round:
        """Until the last of them has heard of what was prepared."""
        name, release = self._held, RolloutInput.RELEASE
        return await self._timed(
            lambda registry: rollouts.steer(registry, self._clock, name, release, None)
        )

    async def _timed(self, word: Callable[[Registry], Awaitable[object]]) -> Round:
        async with self._registry() as registry:
            told = self._fleet.begin(self._devices)
            before, began = CpuMark.now([self._service]), time.monotonic()
            await word(registry)
            await told.wait()
            cpu_s = before.since()
            await registry.write(self._over)
        return Round(max(told.at) - began, cpu_s)

    def _over(self, tx: WriteTransaction) -> None:
        """Whoever was told has installed it, as the service notes it down when they report so."""
        now = self._clock.now()
        for rollout in tx.moving_rollouts():
            for part in tx.parts(rollout.name, [Progress.ASSIGNED], None, self._devices):
                tx.save_part(replace(part, progress=Progress.INSTALLED, changed_at=now))
                held = tx.given_assignment(part.device_id, part.sequence or 0)
                assert held is not None
                tx.save_assignment(replace(held, settled_at=now))

    def _planned(self, *, hold: bool) -> Rollout:
        push = Push(next(self._names), (self._path,), Selection(everyone=True), hold=hold)
        return rollouts.planned(push, self._targets, self._clock.now())

    def _registry(self) -> AbstractAsyncContextManager[Registry]:
        return open_registry(self._stack.home, self._stack.installation.settings, rings=True)


async def _publish_bare(
    stack: Stack, place: Path, messages: dict[str, bytes], fleet: Fleet
) -> Round:
    """Until the last of them has heard a message that was made before."""
    plan = place / "bare.json"
    found = BarePlan(str(stack.home.path), stack.service_ports[Zone.FLEET], messages)
    plan.write_bytes(msgspec.json.encode(found))
    told = fleet.begin(len(messages))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.bare_publisher", str(plan)),
        stdout=asyncio.subprocess.PIPE,
    )
    began = await _said(process, BEGAN)
    await told.wait()
    cpu_s = await _said(process, TOOK)
    await process.wait()
    return Round(max(told.at) - began, cpu_s)


async def _said(process: asyncio.subprocess.Process, word: str) -> float:
    assert process.stdout is not None
    line = (await process.stdout.readline()).decode()
    assert line.startswith(word), f"the bare publisher said {line!r}"
    return float(line.removeprefix(word))


def _wire_bytes(workshop: Workshop, messages: dict[str, bytes]) -> dict[str, int]:
    """MQTT bytes that one device receives and sends for one update, without the image."""
    files = update_repository(workshop.home, None).files()
    fresh = [name for name in files if not name.endswith("root.json")]
    metadata = sum(_on_wire(metadata_topic(name), files[name]) for name in fresh)
    sizes = [_on_wire(topic, payload) for topic, payload in messages.items()]
    payload = next(iter(messages.values()))
    return {
        "assignment": round(middle(sizes)),
        "metadata": metadata,
        **_report_bytes(workshop, payload),
    }


def _report_bytes(workshop: Workshop, payload: bytes) -> dict[str, int]:
    """What the device's own code makes of the assignment: how it gets on, and that it's installed.
    Each has its answer."""
    signed = codec.decode(payload, SignedAssignment, limits.MAX_METADATA)
    assignment = codec.decode(signed.assignment.encode(), Assignment, limits.MAX_ASSIGNMENT)
    sent = answered = 0
    topic = device_topic(DeviceOrigin(DeviceId(assignment.device_id)), Operation.REPORT)
    entries = _reports(workshop, assignment)
    for entry in entries:
        request = ReportRequest(
            request_id=token_hex(16), report=entry.text, signature=_signature(entry.text)
        )
        answer = ReportAccepted(request_id=request.request_id, report_id=entry.report_id)
        sent += _on_wire(topic, codec.encode(request))
        answered += _on_wire(answer_topic(topic, Outcome.ACCEPTED), codec.encode(answer))
    return {"report_count": len(entries), "reports": sent, "answers": answered}


def _reports(workshop: Workshop, assignment: Assignment) -> list[Entry]:
    facts = {each.path: each.facts for each in update_repository(workshop.home, None).targets()}
    images = tuple(Image(target=each, facts=facts[each.path]) for each in assignment.targets)
    at = assignment.issued_at
    state = steps.chosen(steps.taken_up(State(), assignment, at), images)
    states = [
        steps.progressed(state, Phase.DOWNLOADING, at),
        steps.progressed(state, Phase.WAITING, at),
        steps.finished(state, Phase.INSTALLED, at),
    ]
    return [each.outbox[-1] for each in states]


def _signature(text: str) -> str:
    """As a device's key signs; its length is what counts."""
    return base64.b64encode(
        fresh_key().sign(report_statement(text), ec.ECDSA(hashes.SHA256()))
    ).decode()


def _on_wire(topic: str, payload: bytes) -> int:
    return len(topic) + len(payload) + _PUBLISH_OVERHEAD


def _rows(devices: int, rounds: Rounds, size: dict[str, int]) -> list[Row]:
    to_all = f"to {devices:,} connected devices, mosquitto"
    sizes = (
        f"to it: assignment {size['assignment']:,} + metadata {size['metadata']:,} + answers "
        f"{size['answers']:,}; from it: {size['report_count']} reports {size['reports']:,}"
    )
    return [
        _row(f"update notice {to_all}: from the release", rounds.released, rounds.bare),
        _row(f"the same, nothing prepared: from the push {to_all}", rounds.pushed, rounds.bare),
        Row("- rounds from the release, from the push", _listed(rounds.released, rounds.pushed)),
        Row("- rounds of the bare publish", _listed(rounds.bare)),
        Row("- CPU of who publishes, a device", _cpu(devices, rounds)),
        Row("bytes on the wire of a device per update, without the image", sizes, values=size),
    ]


def _row(what: str, noticed: Sequence[Round], bare: Sequence[Round]) -> Row:
    ours, least = (middle(each.seconds for each in rounds) for rounds in (noticed, bare))
    ratio = ours / least
    figure = f"{ours:.2f} s, a bare publish of the same {least:.2f} s: {ratio:.2f}x"
    return at_most(what, figure, ratio, _TO_HOLD, f"<= {_TO_HOLD}x")


def _cpu(devices: int, rounds: Rounds) -> str:
    kinds = {"release": rounds.released, "push": rounds.pushed, "bare": rounds.bare}
    took = {kind: middle(each.cpu_s for each in some) for kind, some in kinds.items()}
    took["preparing"] = rounds.prepared_cpu_s
    return ", ".join(f"{kind} {1e6 * cpu_s / devices:.0f} µs" for kind, cpu_s in took.items())


def _listed(*kinds: Sequence[Round]) -> str:
    return "; ".join(", ".join(f"{each.seconds:.2f}" for each in some) + " s" for some in kinds)
