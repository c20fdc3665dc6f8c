"""How devices know brokers: the signed trust bundle, and which infrastructure authorities count.

One file is the truth, and replaced whole. All that brokers and the service read follows from it,
and is written anew by whoever finds that a kill has left it behind.
"""

import base64
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from broker.adapters.ca.building import Signer
from broker.adapters.ca.errors import AuthorityCode, AuthorityError
from broker.adapters.ca.files import MAX_FILE, read_file, replace_public
from broker.adapters.ca.home import MusterHome
from broker.adapters.ca.key_files import SigningKey
from broker.core.infrastructure_rollover import ServerRollover
from broker.protocol import codec
from broker.protocol.codes import Refused
from broker.protocol.messages import SignedTrustBundle, TrustBundle
from broker.protocol.statements import trust_bundle_statement

FIRST_VERSION = 1
"""Of a home whose bundle was never replaced; it comes with the claim bundle and isn't signed."""


@dataclass(frozen=True, kw_only=True)
class ServerTrust:
    """What the file says."""

    rollover: ServerRollover
    bundle: SignedTrustBundle

    @property
    def contents(self) -> TrustBundle:
        """The bundle itself."""
        return codec.decode(self.bundle.bundle.encode(), TrustBundle, MAX_FILE)


def read_server_trust(home: MusterHome) -> ServerTrust | None:
    """None when the infrastructure authority was never replaced.

    Raises:
        AuthorityError: FILE_UNREADABLE or FILE_MALFORMED.
    """
    try:
        return codec.decode(read_file(home.server_trust), ServerTrust, MAX_FILE)
    except AuthorityError as error:
        if error.code is AuthorityCode.FILE_MISSING:
            return None
        raise
    except Refused as error:
        raise AuthorityError(
            AuthorityCode.FILE_MALFORMED,
            f"{home.server_trust} can't be read",
            "restore it from your backup",
        ) from error


def write_server_trust(home: MusterHome, trust: ServerTrust) -> None:
    """In one step, durable on return.

    Raises:
        AuthorityError: FILE_UNWRITABLE.
    """
    replace_public(home.server_trust, codec.encode(trust))


def sign_bundle(root: Signer, version: int, anchors: Iterable[Signer | bytes]) -> SignedTrustBundle:
    """A trust bundle that devices take for a successor of any older one."""
    pem = b"".join(each if isinstance(each, bytes) else pem_of(each) for each in anchors)
    bundle = TrustBundle(
        version=version, anchors=pem.decode("ascii"), root=pem_of(root).decode("ascii")
    )
    text = codec.encode(bundle).decode()
    signature = _signature(root.key, trust_bundle_statement(text))
    return SignedTrustBundle(bundle=text, signature=base64.b64encode(signature).decode("ascii"))


def pem_of(signer: Signer) -> bytes:
    """The authority's certificate in PEM."""
    return signer.certificate.public_bytes(Encoding.PEM)


def _signature(key: SigningKey, statement: bytes) -> bytes:
    """As `broker.protocol.messages.Signature` has it."""
    match key:
        case ec.EllipticCurvePrivateKey():
            digest = hashes.SHA384() if key.curve.key_size >= 384 else hashes.SHA256()
            return key.sign(statement, ec.ECDSA(digest))
        case rsa.RSAPrivateKey():
            return key.sign(statement, padding.PKCS1v15(), hashes.SHA256())
        case _:
            return key.sign(statement)
