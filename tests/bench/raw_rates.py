"""What the cryptography alone costs: the floor under every other figure."""

import asyncio
import re
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import load_pem_x509_csr

from broker.adapters.ca.file_authority import FileAuthority
from broker.core.csr import verify_csr
from broker.protocol.names import DeviceId
from tests.bench.bench import Bench
from tests.bench.measuring import say
from tests.bench.report import Row
from tests.support.csrs import fresh_key, named_csr

_ALGORITHM: Final = ec.ECDSA(hashes.SHA256())
_FOR_S: Final = 1.0
_OPENSSL: Final = re.compile(r"^ *256 bits ecdsa.*?(\d+\.\d+) +(\d+\.\d+)$", re.MULTILINE)


async def measure(bench: Bench) -> list[Row]:
    """Per CPU-second of one thread."""
    say("raw rates of the cryptography")
    installation = await bench.empty_installation("raw")
    authority = await asyncio.to_thread(FileAuthority.load, installation.home)
    key = fresh_key()
    message = b"m" * 32
    signature = key.sign(message, _ALGORITHM)
    public = key.public_key()
    csr = named_csr(key, "device-1")
    now = datetime.now(UTC)
    until = now + timedelta(days=90)
    actions: dict[str, Callable[[], object]] = {
        "P-256 sign": lambda: key.sign(message, _ALGORITHM),
        "P-256 verify": lambda: public.verify(signature, message, _ALGORITHM),
        "CSR parse and verify, library alone": lambda: (
            load_pem_x509_csr(csr.encode()).is_signature_valid
        ),
        "CSR parse, verify and judge, as the service": lambda: verify_csr(csr),
        "certificate build and sign, as the service": lambda: authority.issue(
            DeviceId("device-1"), public, now, until
        ),
    }
    rows = [_row(name, _per_cpu_second(action)) for name, action in actions.items()]
    return [*rows, await asyncio.to_thread(_openssl)]


def _per_cpu_second(action: Callable[[], object]) -> float:
    action()
    count, began = 0, time.thread_time()
    while (used := time.thread_time() - began) < _FOR_S:
        for _ in range(100):
            action()
        count += 100
    return count / used


def _row(name: str, rate: float) -> Row:
    return Row(f"raw: {name}", f"{rate:,.0f} /CPU-s", values={"per_cpu_s": rate})


def _openssl() -> Row:
    command = ["openssl", "speed", "-seconds", "1", "ecdsap256"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = _OPENSSL.search(output)
    assert found is not None, f"`{' '.join(command)}` printed something else:\n{output}"
    sign, verify = float(found[1]), float(found[2])
    return Row(
        "raw: physical limit (openssl speed ecdsap256)",
        f"{sign:,.0f} sign/CPU-s, {verify:,.0f} verify/CPU-s",
        values={"sign_per_cpu_s": sign, "verify_per_cpu_s": verify},
    )
