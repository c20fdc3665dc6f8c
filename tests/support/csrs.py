"""Certificate signing requests: well-made ones of every kind, and ones put together by hand."""

import base64
from collections.abc import Sequence
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

PrivateKey = (
    ec.EllipticCurvePrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
    | rsa.RSAPrivateKey
    | dsa.DSAPrivateKey
)
_ECDSA_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")
"""The AlgorithmIdentifier of ecdsa-with-SHA256 in DER (RFC 5758, 3.2)."""


@cache
def private_key(kind: str) -> PrivateKey:
    """A key of the kind, the same one each time: `p256`, `rsa-3072`, `rsa-3072-e3`, `dsa` …"""
    match kind.split("-"):
        case ["ed25519"]:
            return ed25519.Ed25519PrivateKey.generate()
        case ["ed448"]:
            return ed448.Ed448PrivateKey.generate()
        case ["dsa"]:
            return dsa.generate_private_key(1024)
        case ["rsa", bits]:
            return rsa.generate_private_key(65_537, int(bits))
        case ["rsa", bits, "e3"]:
            return rsa.generate_private_key(3, int(bits))
        case [curve]:
            return ec.generate_private_key(_CURVES[curve]())
        case _:
            raise ValueError(kind)


_CURVES: dict[str, type[ec.EllipticCurve]] = {
    "p256": ec.SECP256R1,
    "p384": ec.SECP384R1,
    "p521": ec.SECP521R1,
    "p224": ec.SECP224R1,
    "secp256k1": ec.SECP256K1,
}


def fresh_key() -> ec.EllipticCurvePrivateKey:
    """A P-256 key that nobody else has."""
    return ec.generate_private_key(ec.SECP256R1())


def csr_pem(
    key: PrivateKey,
    names: Sequence[tuple[x509.ObjectIdentifier, str]] = (),
    extensions: Sequence[x509.ExtensionType] = (),
) -> str:
    """A signed request for `key` with this subject and these extensions, in PEM."""
    subject = x509.Name([x509.NameAttribute(oid, value) for oid, value in names])
    builder = x509.CertificateSigningRequestBuilder(subject)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    edwards = isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
    request = builder.sign(key, None if edwards else hashes.SHA256())
    return request.public_bytes(Encoding.PEM).decode("ascii")


def named_csr(key: PrivateKey, common_name: str) -> str:
    """A signed request whose subject is this common name."""
    return csr_pem(key, [(NameOID.COMMON_NAME, common_name)])


def der_of(pem: str) -> bytes:
    """What a PEM text holds."""
    return base64.b64decode("".join(pem.strip().splitlines()[1:-1]))


def pem_of(der: bytes) -> str:
    """Any bytes as though they were a request."""
    text = base64.encodebytes(der).decode("ascii")
    return f"-----BEGIN CERTIFICATE REQUEST-----\n{text}-----END CERTIFICATE REQUEST-----\n"


def der(tag: int, *parts: bytes) -> bytes:
    """One DER element (X.690, 8.1)."""
    body = b"".join(parts)
    if len(body) < 128:
        return bytes([tag, len(body)]) + body
    length = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + body


def handmade_csr(spki: bytes, version: int = 0, algorithm: bytes = _ECDSA_SHA256) -> str:
    """A request with any public key and no good signature: nobody has to hold the private key."""
    info = der(0x30, der(0x02, bytes([version])), der(0x30), spki, der(0xA0))
    return pem_of(der(0x30, info, algorithm, der(0x03, bytes(65))))


def info_of(request: bytes) -> bytes:
    """The part of a request that is signed (CertificationRequestInfo), in DER."""
    return x509.load_der_x509_csr(request).tbs_certrequest_bytes


def signed_csr(info: bytes, key: ec.EllipticCurvePrivateKey) -> str:
    """A request whose signature is right, whatever it is that was signed."""
    signature = key.sign(info, ec.ECDSA(hashes.SHA256()))
    return pem_of(der(0x30, info, _ECDSA_SHA256, der(0x03, b"\0", signature)))


def rsa_spki(modulus_bits: int, exponent: int = 65_537) -> bytes:
    """An RSA SubjectPublicKeyInfo with an odd modulus of so many bits, whose key nobody knows."""
    numbers = rsa.RSAPublicNumbers(exponent, (1 << (modulus_bits - 1)) | 1)
    return numbers.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def spki_of(key: PrivateKey) -> bytes:
    """The key's SubjectPublicKeyInfo in DER."""
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
