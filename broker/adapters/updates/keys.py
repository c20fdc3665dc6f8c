"""Keys of the update repository: files, and whatever else securesystemslib can sign with."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)
from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import (
    SIGNER_FOR_URI_SCHEME,
    CryptoSigner,
    HSMSigner,
    Key,
    Signer,
    SSlibKey,
)

from broker.adapters.ca.errors import AuthorityCode, AuthorityError
from broker.adapters.ca.files import read_file, write_public
from broker.adapters.ca.key_files import read_key, write_key
from broker.ports.updates import UpdateCode, UpdateError

ED25519: Final = "ed25519"
P256: Final = "p256"
ALGORITHMS: Final = (ED25519, P256)
_OFFLINE_REMEDIES: Final = {
    AuthorityCode.FILE_MISSING: "check its name, and that its medium is there",
    AuthorityCode.PASSPHRASE_MISSING: "sign at a terminal, which asks, or name a file that holds "
    "it with --key-passphrase-file",
    AuthorityCode.PASSPHRASE_WRONG: "check the passphrase; if it's right, take the key's other "
    "copy",
}
_PROBE: Final = b"muster-key-probe-v1\n"


UpdateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def generate(algorithm: str) -> UpdateKey:
    """A new key of one of `ALGORITHMS`, in memory only."""
    if algorithm == P256:
        return ec.generate_private_key(ec.SECP256R1())
    return ed25519.Ed25519PrivateKey.generate()


def new_key_file(path: Path, algorithm: str, passphrase: bytes | None) -> SSlibKey:
    """Makes a key, writes it 0600 to `path` and its public half beside it (`.pub`).

    Raises:
        AuthorityError: FILE_EXISTS, FILE_UNWRITABLE, PASSPHRASE_EMPTY.
    """
    key = generate(algorithm)
    write_key(path, key, passphrase)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    write_public(path.with_name(f"{path.name}.pub"), public)
    return SSlibKey.from_crypto(key.public_key())


def read_public(path: Path) -> SSlibKey:
    """The public key in a file in PEM.

    Raises:
        AuthorityError: FILE_MISSING, FILE_UNREADABLE, FILE_MALFORMED or KEY_NOT_ALLOWED.
    """
    try:
        key = load_pem_public_key(read_file(path))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise AuthorityError(
            AuthorityCode.FILE_MALFORMED,
            f"'{path}' holds no public key in PEM",
            "name the .pub file; 'muster update key new' writes it beside the private one",
        ) from error
    if not isinstance(key, ed25519.Ed25519PublicKey) and not _is_p256(key):
        raise _not_allowed(str(path))
    return SSlibKey.from_crypto(key)


def open_file(path: Path, passphrase: bytes | None) -> CryptoSigner:
    """The private key in a file.

    Raises:
        AuthorityError: as `read_key`.
    """
    key = read_key(path, passphrase)
    public = key.public_key()
    if not isinstance(key, ed25519.Ed25519PrivateKey) and not _is_p256(public):
        raise _not_allowed(str(path))
    return CryptoSigner(key, SSlibKey.from_crypto(public))


def open_offline(path: Path, passphrase: bytes | None) -> CryptoSigner:
    """The private key in a file on a medium; what is wrong with it is said for the one who signs.

    Raises:
        AuthorityError: as `read_key`.
    """
    try:
        return open_file(path, passphrase)
    except AuthorityError as error:
        message, remedy = error.message, _OFFLINE_REMEDIES.get(error.code, error.remedy)
        if _is_public(path):
            message = f"{path} is the public half of a key"
            remedy = "name the private one, without .pub"
        raise AuthorityError(error.code, message, remedy) from error


def _is_public(path: Path) -> bool:
    try:
        return b"BEGIN PUBLIC KEY" in read_file(path)  # RFC 7468, 13
    except AuthorityError:
        return False


def is_uri(reference: str) -> bool:
    """Whether a key is named by one of securesystemslib's URIs, such as `hsm:`."""
    return reference.partition(":")[0] in SIGNER_FOR_URI_SCHEME


def wants_pin(reference: str) -> bool:
    """Whether the key is in a token that asks for a PIN."""
    return reference.partition(":")[0] == HSMSigner.SCHEME


def open_uri(uri: str, candidates: Iterable[Key], pin: bytes | None) -> Signer:
    """The key behind a URI: which of `candidates` it is shows by a signature that verifies.

    A token that refuses is asked no second time: after a few wrong PINs it locks itself.

    Raises:
        UpdateError: KEY_MISSING, or KEY_UNUSABLE without the PIN that a token asks for.
    """
    if wants_pin(uri) and pin is None:
        raise UpdateError(
            UpdateCode.KEY_UNUSABLE,
            f"the PIN of {uri} wasn't given",
            "sign at a terminal, which asks, or name a file that holds it with "
            "--key-passphrase-file",
        )
    reason = "it belongs to none of the keys that could sign"
    for key in candidates:
        try:
            signer = Signer.from_priv_key_uri(uri, key, lambda _: (pin or b"").decode())
        except Exception as error:  # each kind of signer has errors of its own
            reason = f"{type(error).__name__}: {error}"
            continue
        try:
            key.verify_signature(signer.sign(_PROBE), _PROBE)
        except UnverifiedSignatureError:
            continue
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            break
        return signer
    raise UpdateError(
        UpdateCode.KEY_MISSING,
        f"{uri} can't sign: {reason}",
        "see that the token is plugged in, that the PIN is right, that securesystemslib's extra "
        "for it is installed, and that root.json lists its public key",
    )


def unique(keys: Sequence[SSlibKey]) -> list[SSlibKey]:
    """Each key once, in the order given."""
    return list({key.keyid: key for key in keys}.values())


def _is_p256(key: object) -> bool:
    return isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)


def _not_allowed(where: str) -> AuthorityError:
    return AuthorityError(
        AuthorityCode.KEY_NOT_ALLOWED,
        f"{where} holds a kind of key that devices don't verify updates with",
        "use Ed25519 or P-256",
    )
