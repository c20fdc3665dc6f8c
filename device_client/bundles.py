"""When one trust bundle may follow another.

The root that came with the claim bundle is pinned: a bundle follows another only if that root's key
has signed it, or if it came in the answer to an authenticated request. Never an older one, never
one of another root.
"""

from dataclasses import replace
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from broker.protocol import codec, limits
from broker.protocol.codes import Refused
from broker.protocol.messages import SignedTrustBundle, TrustBundle
from broker.protocol.statements import trust_bundle_statement
from device_client import keys, signatures
from device_client.errors import TrustRefused

LARGEST: Final = 2 * limits.MAX_ANSWER + limits.MAX_SIGNATURE + 128
"""The bundle is JSON within JSON: each of its quotes and line ends takes two bytes."""


def successor_of(known: TrustBundle, payload: bytes) -> TrustBundle:
    """The bundle in a `SignedTrustBundle`, if it may follow `known`.

    Raises:
        TrustRefused: why it may not.
    """
    try:
        signed = codec.decode(payload, SignedTrustBundle, LARGEST)
        bundle = codec.decode(signed.bundle.encode(), TrustBundle, LARGEST)
    except Refused as refused:
        raise TrustRefused(f"The trust bundle can't be read: {refused}") from refused
    if known.root is None:
        raise TrustRefused("This device knows no root that a trust bundle could be signed by.")
    if bundle.version < known.version:
        raise TrustRefused(f"Trust bundle {bundle.version} is older than {known.version}.")
    if bundle.root is not None and not same_root(bundle, known):
        raise TrustRefused("The trust bundle names another root than this device's.")
    statement = trust_bundle_statement(signed.bundle)
    try:
        root = x509.load_pem_x509_certificate(known.root.encode())
        signatures.verify(root.public_key(), signed.signature, statement)
        anchors = x509.load_pem_x509_certificates(bundle.anchors.encode())
    except (InvalidSignature, UnsupportedAlgorithm) as error:
        raise TrustRefused("The root hasn't signed the trust bundle.") from error
    except ValueError as error:
        raise TrustRefused("The anchors in the trust bundle can't be read.") from error
    if not anchors:
        raise TrustRefused("The trust bundle is empty.")
    return replace(bundle, root=known.root)


def merged(known: TrustBundle, answered: TrustBundle) -> TrustBundle:
    """What counts after an authenticated answer that brought a bundle: the newer one.

    Raises:
        TrustRefused: it names another root than this device's.
    """
    if answered.root is not None and known.root is not None and not same_root(answered, known):
        raise TrustRefused("the trust bundle names another root than this device's")
    root = known.root or answered.root
    return replace(answered if answered.version >= known.version else known, root=root)


def same_root(one: TrustBundle, other: TrustBundle) -> bool:
    """By their keys: a root may be certified anew."""
    if one.root is None or other.root is None:
        return False
    if one.root == other.root:
        return True
    try:
        first, second = (
            keys.fingerprint(x509.load_pem_x509_certificate(pem.encode()).public_key())
            for pem in (one.root, other.root)
        )
    except (ValueError, UnsupportedAlgorithm):
        return False
    return first == second
