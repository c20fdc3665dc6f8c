"""The audit log's key, and the newest seal, in files of the home.

They lie beside the registry and not in it: who can write to the one needn't have the other.
"""

import base64
from pathlib import Path
from typing import Final, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from broker.adapters.ca.errors import AuthorityCode, AuthorityError
from broker.adapters.ca.files import replace_public, write_public
from broker.adapters.ca.key_files import generate_key, read_key, write_key
from broker.core.audit_chain import Floor, Seal, Signed
from broker.ports.audit import AuditError
from broker.protocol import codec
from broker.protocol.codes import Refused

_LARGEST: Final = 4096
_DOMAINS: Final = {Seal: b"muster audit seal v1\n", Floor: b"muster audit floor v1\n"}

SaidT = TypeVar("SaidT", Seal, Floor)


class AuditFolder:
    """`audit/` in a home."""

    def __init__(self, home: Path) -> None:
        self.path = home / "audit"
        self.key = self.path / "audit.key"
        self.public = self.path / "audit.pub"
        self.head = self.path / "head.json"

    def is_used(self) -> bool:
        """Whether there is a key, or was meant to be. Blocks."""
        return self.path.exists()


class FileAuditKey:
    """Meets `broker.ports.audit.AuditKey`; without the private half it verifies only."""

    def __init__(
        self, public: ec.EllipticCurvePublicKey, private: ec.EllipticCurvePrivateKey | None
    ) -> None:
        self._public = public
        self._private = private

    @classmethod
    def opened(cls, folder: AuditFolder, passphrase: bytes | None) -> "FileAuditKey":
        """The key, made when there is none. Blocks.

        Raises:
            AuthorityError: it can't be read, opened or written.
            AuditError: there was one, and it is gone.
        """
        if not folder.key.exists():
            if folder.public.exists():
                raise _broken(f"{folder.key} is missing")
            folder.path.mkdir(mode=0o700, exist_ok=True)
            write_key(folder.key, generate_key(), passphrase)
        private = _private(folder, passphrase)
        public = private.public_key()
        if not folder.public.exists():
            pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            write_public(folder.public, pem)
        return cls(public, private)

    @classmethod
    def for_looking(cls, folder: AuditFolder) -> "FileAuditKey":
        """The public half. Blocks.

        Raises:
            AuditError: it can't be read.
        """
        try:
            public = load_pem_public_key(folder.public.read_bytes())
        except (OSError, ValueError) as error:
            raise _broken(f"{folder.public} can't be read") from error
        if not isinstance(public, ec.EllipticCurvePublicKey):
            raise _broken(f"{folder.public} isn't the key that Muster made")
        return cls(public, None)

    @classmethod
    def check_private(cls, folder: AuditFolder, passphrase: bytes | None) -> None:
        """Returns when the service could open the key to sign. Blocks, and changes nothing.

        Raises:
            AuthorityError, AuditError: as `opened`.
        """
        if not folder.key.exists():
            raise _broken(f"{folder.key} is missing")
        _private(folder, passphrase)

    def sign(self, said: Seal | Floor) -> Signed:
        if self._private is None:
            raise ValueError("this key is for looking only")
        statement = codec.encode(said).decode()
        signature = self._private.sign(
            _DOMAINS[type(said)] + statement.encode(), ec.ECDSA(hashes.SHA256())
        )
        return Signed(statement, base64.b64encode(signature).decode("ascii"))

    def seal(self, signed: Signed) -> Seal:
        return self._checked(signed, Seal)

    def floor(self, signed: Signed) -> Floor:
        return self._checked(signed, Floor)

    def _checked(self, signed: Signed, kind: type[SaidT]) -> SaidT:
        statement = signed.statement.encode()
        try:
            signature = base64.b64decode(signed.signature, validate=True)
            self._public.verify(signature, _DOMAINS[kind] + statement, ec.ECDSA(hashes.SHA256()))
            return codec.decode(statement, kind, _LARGEST)
        except (InvalidSignature, ValueError, Refused) as error:
            raise AuditError(
                "audit_forged",
                "A seal of the audit log isn't signed by this installation's key.",
                "Somebody wrote to the registry, or it is another installation's: see 'muster "
                "events verify', and compare with a backup.",
            ) from error


class FileAuditHead:
    """Meets `broker.ports.audit.AuditHead`."""

    def __init__(self, folder: AuditFolder) -> None:
        self._file = folder.head

    def read(self) -> list[Signed]:
        try:
            content = self._file.read_bytes()
            return [codec.decode(content, Signed, _LARGEST)]
        except FileNotFoundError:
            return []
        except (OSError, Refused) as error:
            raise _broken(f"{self._file} can't be read") from error

    def write(self, newest: Signed) -> None:
        replace_public(self._file, codec.encode(newest))


def _private(folder: AuditFolder, passphrase: bytes | None) -> ec.EllipticCurvePrivateKey:
    """The key, whether or not it was made when the home's passphrase was given."""
    try:
        private = read_key(folder.key, passphrase)
    except AuthorityError as error:
        if error.code is not AuthorityCode.PASSPHRASE_NEEDLESS:
            raise
        private = read_key(folder.key)
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise _broken(f"{folder.key} isn't the key that Muster made")
    return private


def _broken(message: str) -> AuditError:
    return AuditError("audit_files_broken", f"{message}.", "Restore it from your backup.")
