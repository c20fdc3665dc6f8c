"""Private keys and the files that hold them."""

from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from broker.adapters.ca.errors import AuthorityCode, AuthorityError
from broker.adapters.ca.files import read_with_mode, write_secret
from broker.adapters.ca.pkcs8 import encrypt_private_key
from broker.core.keys import key_type_of

SigningKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey

_OTHERS: Final = 0o077


def generate_key() -> ec.EllipticCurvePrivateKey:
    """A new P-256 key: what every TLS library on every small device verifies, and fast."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: SigningKey, passphrase: bytes | None = None) -> bytes:
    """The key in PEM (PKCS#8), encrypted when there is a passphrase.

    Raises:
        AuthorityError: PASSPHRASE_EMPTY.
    """
    if passphrase is None:
        return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    if not passphrase:
        raise AuthorityError(
            AuthorityCode.PASSPHRASE_EMPTY,
            "the passphrase is empty",
            "give one that isn't, or none at all",
        )
    return encrypt_private_key(key, passphrase)


def write_key(path: Path, key: SigningKey, passphrase: bytes | None = None) -> None:
    """Writes a new key file that only its owner may read.

    Raises:
        AuthorityError: FILE_EXISTS, FILE_UNWRITABLE, PASSPHRASE_EMPTY.
    """
    write_secret(path, key_pem(key, passphrase))


def read_key(path: Path, passphrase: bytes | None = None) -> SigningKey:
    """The key in a file that nobody but its owner may read.

    Raises:
        AuthorityError: FILE_MISSING, FILE_UNREADABLE, FILE_MALFORMED, KEY_EXPOSED,
            KEY_NOT_ALLOWED, PASSPHRASE_MISSING, PASSPHRASE_NEEDLESS, PASSPHRASE_WRONG.
    """
    content, mode = read_with_mode(path)
    if mode & _OTHERS:
        raise AuthorityError(
            AuthorityCode.KEY_EXPOSED,
            f"'{path}' may be read or written by others than its owner (mode {mode:04o})",
            f"run `chmod 600 {path}`, and think about who may have read it",
        )
    return _decode(path, content, passphrase)


def _decode(path: Path, content: bytes, passphrase: bytes | None) -> SigningKey:
    _check_passphrase(path, _is_encrypted(content), passphrase)
    try:
        key = load_pem_private_key(content, passphrase)
    except UnsupportedAlgorithm as error:
        raise _not_allowed(path) from error
    except (ValueError, TypeError) as error:
        # A wrong passphrase and a damaged encrypted key can't be told apart.
        if passphrase is not None:
            raise AuthorityError(
                AuthorityCode.PASSPHRASE_WRONG,
                f"the passphrase doesn't open '{path}'",
                "check the passphrase; if it's right, restore the file from your backup",
            ) from error
        raise AuthorityError(
            AuthorityCode.FILE_MALFORMED,
            f"'{path}' holds no private key in PEM",
            "restore it from your backup",
        ) from error
    if not isinstance(key, SigningKey) or key_type_of(key.public_key()) is None:
        raise _not_allowed(path)
    return key


def _check_passphrase(path: Path, encrypted: bool, passphrase: bytes | None) -> None:
    if encrypted and not passphrase:
        raise AuthorityError(
            AuthorityCode.PASSPHRASE_MISSING,
            f"'{path}' is encrypted, and no passphrase was given",
            "give the passphrase that was chosen when the home was made",
        )
    if passphrase is not None and not encrypted:
        raise AuthorityError(
            AuthorityCode.PASSPHRASE_NEEDLESS,
            f"a passphrase was given, but '{path}' isn't encrypted",
            "encrypt the key (`openssl pkcs8 -topk8 -scrypt`), or give no passphrase",
        )


def _is_encrypted(pem: bytes) -> bool:
    """Whether the key in `pem` needs a passphrase (RFC 7468, 11; RFC 1421 headers of old)."""
    return b"ENCRYPTED" in pem


def _not_allowed(path: Path) -> AuthorityError:
    return AuthorityError(
        AuthorityCode.KEY_NOT_ALLOWED,
        f"'{path}' holds a kind of key that Muster doesn't use",
        "use P-256, P-384, Ed25519, or RSA of 3072 to 4096 bits",
    )
