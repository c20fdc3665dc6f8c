"""Clients that aren't ours: the walk in docs/protocol.md, typed into a shell as it stands there."""

import asyncio
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from broker.core.csr import verify_csr
from broker.core.lifecycle import CertificateState, DeviceState
from broker.core.possession import verified_holder
from broker.core.records import EventKind
from broker.protocol import codec
from broker.protocol.bundle import write_bundle
from broker.protocol.messages import RecoverRequest
from broker.protocol.statements import recovery_statement
from broker.settings import BrokerKind
from tests.support.csrs import csr_pem, fresh_key
from tests.support.stack import Plan, Stack, running_stack
from tests.support.succeeding import self_signed

PAGE = Path(__file__).parents[2] / "docs" / "protocol.md"
BLOCK = re.compile(r"^<!-- test: (\w+) -->\n```sh\n(.*?)^```$", re.M | re.S)
CLAIM = ("setup", "bundle", "key", "enroll", "accepted", "confirm")
PATIENCE_S = 90.0


def commands(*names: str) -> str:
    """The shell commands of these steps, as the page has them."""
    blocks = dict(BLOCK.findall(PAGE.read_text(encoding="utf-8")))
    missing = set(names) - set(blocks)
    assert not missing, f"docs/protocol.md has no commands marked {sorted(missing)}"
    return "\n".join(blocks[name] for name in names)


async def typed(folder: Path, script: str) -> str:
    """What a shell prints that runs the script; each command must succeed."""
    for program in ("bash", "openssl", "mosquitto_rr", "python3"):
        assert shutil.which(program), f"the walk in docs/protocol.md needs {program}"
    shell = await asyncio.create_subprocess_exec(
        "bash",
        *("-euo", "pipefail", "-c", script),
        cwd=folder,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            output, _ = await shell.communicate()
    finally:
        if shell.returncode is None:
            os.killpg(shell.pid, 9)  # the shell's own session: it and what it started
            await shell.wait()
    assert shell.returncode == 0, output.decode()
    return output.decode()


async def prepared(stack: Stack, place: Path) -> Path:
    """A folder with the bundle, as the walk expects it."""
    await stack.installation.standard(["A-0001"])
    folder = place / "device"
    folder.mkdir()
    (folder / "batch-7.bundle").write_bytes(write_bundle(stack.bundle()))
    return folder


@pytest.mark.parametrize("brokers", BrokerKind)
async def test_a_whole_claim_by_hand(tmp_path: Path, brokers: BrokerKind) -> None:
    async with running_stack(tmp_path, Plan(brokers)) as stack:
        folder = await prepared(stack, tmp_path)
        said = await typed(folder, commands(*CLAIM, "renew", "rejected"))
        assert (await stack.device("A-0001")).state is DeviceState.ROTATING
        certificate, renewed = await stack.certificates_of("A-0001")
        (active,) = await stack.events_of(EventKind.DEVICE_ACTIVE)
    assert certificate.state is CertificateState.ACTIVE
    assert certificate.pem in (folder / "device.crt").read_text()
    assert renewed.pem in (folder / "new.crt").read_text()
    assert active.device_id == "lamp-A-0001"
    assert said.splitlines()[-3:-1] == ["lamp-A-0001", "key_in_use"]
    assert (folder / "device.key").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("brokers", BrokerKind)
async def test_a_device_that_walks_twice_gets_the_same_certificate(
    tmp_path: Path, brokers: BrokerKind
) -> None:
    """It lost everything but its key, as though power had failed before anything was stored."""
    async with running_stack(tmp_path, Plan(brokers)) as stack:
        folder = await prepared(stack, tmp_path)
        await typed(folder, commands(*CLAIM))
        first = (folder / "device.crt").read_text()
        again = [step for step in CLAIM if step != "key"]
        await typed(folder, commands(*again))
        assert len(await stack.certificates_of("A-0001")) == 1
    assert (folder / "device.crt").read_text() == first


async def test_a_recovery_signed_by_hand_proves_the_key(tmp_path: Path) -> None:
    old = fresh_key()
    certificate = self_signed(old)
    key = old.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "device.key").touch(0o600)
    (tmp_path / "device.key").write_bytes(key)
    (tmp_path / "device.crt").write_bytes(certificate.public_bytes(Encoding.PEM))
    (tmp_path / "new.csr").write_text(csr_pem(fresh_key()))
    await typed(tmp_path, commands("recovery"))
    request = codec.decode((tmp_path / "recover.json").read_bytes(), RecoverRequest)
    statement = recovery_statement(request.request_id, verify_csr(request.csr).sha256)
    found = verified_holder(request.certificate, statement, request.signature)
    assert found == certificate.fingerprint(hashes.SHA256()).hex()


async def test_a_claim_by_hand_over_mqtt_5(tmp_path: Path) -> None:
    """The embedded brokers speak 3.1.1 only."""
    async with running_stack(tmp_path, Plan(BrokerKind.MOSQUITTO)) as stack:
        folder = await prepared(stack, tmp_path)
        script = commands(*CLAIM)
        assert script.count("-V mqttv311") == 2
        await typed(folder, script.replace("-V mqttv311", "-V mqttv5"))
        assert await stack.is_active("A-0001")
