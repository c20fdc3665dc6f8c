"""TLS contexts: a client certificate of our own, and only the given anchors trusted."""

import os
import ssl
from pathlib import Path

from broker.protocol.bundle import ClaimBundle
from broker.protocol.messages import TrustBundle
from device_client.errors import BundleInvalid, StateUnusable
from device_client.identity import Identity


def claim_context(bundle: ClaimBundle, trust: TrustBundle) -> ssl.SSLContext:
    """For the claim broker, known by `trust`: shows the claim certificate.

    Raises:
        BundleInvalid: its certificate, key or anchors can't be used.
    """
    try:
        context = _trusting(trust.anchors)
        _load_from_memory(context, bundle.certificate, bundle.private_key)
    except (ssl.SSLError, ValueError) as error:
        raise BundleInvalid(
            f"The certificates in the claim bundle can't be used: {error}",
            "Give the bundle as 'muster claim-cert create' wrote it.",
        ) from error
    return context


def fleet_context(identity: Identity, trust: TrustBundle) -> ssl.SSLContext:
    """For the fleet broker, known by `trust`: shows the operational certificate.

    Raises:
        StateUnusable: the stored files can't be used.
    """
    try:
        context = _trusting(trust.anchors)
        context.load_cert_chain(identity.chain_file, identity.key_file, _no_passphrase)
    except (OSError, ValueError) as error:
        raise StateUnusable(
            f"The stored identity can't be used: {error}",
            "Restart the agent: it repairs its state.",
        ) from error
    return context


def _trusting(anchors: str) -> ssl.SSLContext:
    """Checks the server's chain, dates and host name; knows no other anchors, the system's least.

    PROTOCOL_TLS_CLIENT sets CERT_REQUIRED and check_hostname.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=anchors)
    return context


def _load_from_memory(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Python loads certificates from files only; this one never touches a disk."""
    descriptor = os.memfd_create("claim", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "wb") as file:
        file.write(f"{certificate}\n{key}\n".encode())
        file.flush()
        context.load_cert_chain(Path(f"/proc/self/fd/{descriptor}"), password=_no_passphrase)


def _no_passphrase() -> str:
    """Without this OpenSSL would ask on the terminal for an encrypted key's passphrase."""
    return ""
