"""Encrypting a private key so that a stolen file is slow to guess at.

`cryptography` writes PKCS#8 with PBKDF2 of 2048 rounds, which a graphics card tries by the million,
and reads scrypt but doesn't write it. So the envelope is built here: PBES2 (RFC 8018, A.4) of
scrypt (RFC 7914, 7) and AES-256-CBC. OpenSSL and `cryptography` both read it.
"""

import base64
import os
import textwrap
from typing import Final

from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

# 16 MiB a guess, five times over: within the 32 MiB that OpenSSL spends on reading it.
_COST: Final = 2**14
_BLOCK_SIZE: Final = 8
_PARALLEL: Final = 5
_KEY_LENGTH: Final = 32
_BLOCK: Final = 16

_INTEGER: Final = 0x02
_OCTET_STRING: Final = 0x04
_SEQUENCE: Final = 0x30
_PBES2: Final = bytes.fromhex("06092a864886f70d01050d")
_SCRYPT: Final = bytes.fromhex("06092b06010401da47040b")
_AES_256_CBC: Final = bytes.fromhex("060960864801650304012a")


def encrypt_private_key(key: PrivateKeyTypes, passphrase: bytes) -> bytes:
    """The key as an EncryptedPrivateKeyInfo in PEM (RFC 5958, 3; RFC 7468, 11)."""
    plain = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    salt, vector = os.urandom(_BLOCK), os.urandom(_BLOCK)
    derived = Scrypt(salt, _KEY_LENGTH, _COST, _BLOCK_SIZE, _PARALLEL).derive(passphrase)
    pad = PKCS7(_BLOCK * 8).padder()
    encryptor = Cipher(algorithms.AES256(derived), modes.CBC(vector)).encryptor()
    sealed = encryptor.update(pad.update(plain) + pad.finalize()) + encryptor.finalize()
    return _pem(_sequence(_algorithm(salt, vector), _tlv(_OCTET_STRING, sealed)))


def _algorithm(salt: bytes, vector: bytes) -> bytes:
    costs = (_COST, _BLOCK_SIZE, _PARALLEL, _KEY_LENGTH)
    scrypt = _sequence(_tlv(_OCTET_STRING, salt), *(_integer(cost) for cost in costs))
    cipher = _sequence(_AES_256_CBC, _tlv(_OCTET_STRING, vector))
    return _sequence(_PBES2, _sequence(_sequence(_SCRYPT, scrypt), cipher))


def _sequence(*parts: bytes) -> bytes:
    return _tlv(_SEQUENCE, b"".join(parts))


def _integer(value: int) -> bytes:
    # One bit more than the value has: DER's integers carry a sign.
    return _tlv(_INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _tlv(tag: int, content: bytes) -> bytes:
    """Tag, length, value, in DER (X.690, 8.1.3)."""
    length = len(content)
    if length < 0x80:
        return bytes((tag, length)) + content
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + content


def _pem(der: bytes) -> bytes:
    body = "\n".join(textwrap.wrap(base64.b64encode(der).decode("ascii"), 64))
    label = "ENCRYPTED PRIVATE KEY"
    return f"-----BEGIN {label}-----\n{body}\n-----END {label}-----\n".encode("ascii")
