"""Homes to test with, and the real OpenSSL to judge what lies in them."""

import subprocess
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from broker.adapters.ca.home import MusterHome
from broker.adapters.ca.init import create_home

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)


def make_home(folder: Path, *hosts: str, passphrase: bytes | None = None) -> MusterHome:
    """A home made at `NOW`."""
    home = MusterHome(folder / "home")
    create_home(home, hosts=hosts, passphrase=passphrase, now=NOW)
    return home


def certificate_in(path: Path) -> x509.Certificate:
    """The first certificate in a file."""
    return x509.load_pem_x509_certificate(path.read_bytes())


def openssl_verify(
    certificate: Path,
    anchors: Path,
    *options: str,
    crl: Path | None = None,
    at: datetime = NOW,
) -> subprocess.CompletedProcess[str]:
    """What `openssl verify` says, strictly, trusting `anchors` only."""
    revocation = () if crl is None else ("-crl_check", "-CRLfile", str(crl))
    command = (
        *("openssl", "verify", "-x509_strict", "-no-CApath", "-no-CAstore"),
        *("-attime", str(int(at.timestamp())), "-CAfile", str(anchors)),
        *(*revocation, *options, str(certificate)),
    )
    return subprocess.run(command, capture_output=True, text=True, timeout=60)
