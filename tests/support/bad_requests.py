"""Enroll requests of the claim zone that must be refused, each for one reason."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from cryptography import x509
from cryptography.x509.oid import NameOID

from broker.protocol import limits
from broker.protocol.codes import Code
from tests.support.csrs import (
    csr_pem,
    der_of,
    fresh_key,
    handmade_csr,
    named_csr,
    pem_of,
    private_key,
    rsa_spki,
)

SERIAL: Final = "GOOD-1"
"""On the allow-list, so that it's never the serial number that is refused."""


@dataclass(frozen=True)
class Bad:
    """One request, and the code that the audit log and the metrics have for it."""

    name: str
    payload: Callable[[], bytes]
    code: Code
    wire: Code | None = None
    """The code that the device reads, where it's another."""

    @property
    def request_id(self) -> str:
        """What a request whose id can be read calls itself."""
        return f"bad-{self.name}"


def _with(name: str, **changes: Any) -> bytes:
    fields = {"request_id": f"bad-{name}", "serial": SERIAL, "csr": csr_pem(fresh_key())}
    fields = {field: value for field, value in {**fields, **changes}.items() if value is not ...}
    return json.dumps(fields).encode()


def _field(name: str, code: Code = Code.FIELD_INVALID, **changes: Any) -> Bad:
    return Bad(name, lambda: _with(name, **changes), code)


def _csr(name: str, code: Code, pem: Callable[[], str]) -> Bad:
    return Bad(name, lambda: _with(name, csr=pem()), code)


def _raw(name: str, code: Code, payload: bytes) -> Bad:
    return Bad(name, lambda: payload, code)


def _padded(size: int) -> bytes:
    # One CSR for both: signatures differ in length, and a byte too few would be no bad request.
    csr = csr_pem(fresh_key())
    empty = _with("huge", csr=csr, padding="")
    return _with("huge", csr=csr, padding="x" * (size - len(empty)))


def _tampered() -> str:
    """A request whose key was exchanged after it was signed."""
    der = bytearray(der_of(csr_pem(fresh_key())))
    der[-1] ^= 1
    return pem_of(bytes(der))


def _weak(kind: str) -> Bad:
    return _csr(f"key-{kind}", Code.KEY_NOT_ALLOWED, lambda: csr_pem(private_key(kind)))


def _wants_authority(extension: x509.ExtensionType) -> Callable[[], str]:
    return lambda: csr_pem(fresh_key(), extensions=[extension])


_SIGNING: Final = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
_SOMEBODY: Final = x509.SubjectAlternativeName([x509.DNSName("lamp-B2")])
_ADMIN: Final = [(NameOID.COMMON_NAME, "muster-service-fleet")]

PAYLOADS: Final = (
    _raw("empty", Code.PAYLOAD_MALFORMED, b""),
    _raw("garbage", Code.PAYLOAD_MALFORMED, bytes(range(256))),
    _raw("truncated", Code.PAYLOAD_MALFORMED, _with("truncated")[:-20]),
    _raw("not-utf-8", Code.PAYLOAD_MALFORMED, b'{"request_id":"\xff\xfe","serial":"A","csr":"x"}'),
    _raw("byte-order-mark", Code.PAYLOAD_MALFORMED, b"\xef\xbb\xbf" + _with("bom")),
    _raw("two-objects", Code.PAYLOAD_MALFORMED, _with("two") * 2),
    _raw("nested", Code.PAYLOAD_MALFORMED, b'{"x":' + b"[" * 10_000),
    _raw("too-large", Code.PAYLOAD_TOO_LARGE, _padded(limits.MAX_REQUEST + 1)),
    _raw("a-list", Code.FIELD_INVALID, b"[]"),
    _raw("a-null", Code.FIELD_INVALID, b"null"),
    _raw("an-empty-object", Code.FIELD_INVALID, b"{}"),
)
FIELDS: Final = (
    _field("request-id-missing", request_id=...),
    _field("request-id-number", request_id=7),
    _field("request-id-long", request_id="x" * 65),
    _field("serial-missing", serial=...),
    _field("serial-number", serial=7),
    _field("serial-null", serial=None),
    _field("serial-path", serial="../../etc/passwd"),
    _field("serial-newline", serial=f"{SERIAL}\n"),
    _field("serial-long", serial="x" * 65),
    _field("csr-missing", csr=...),
    _field("csr-list", csr=[]),
    _field("csr-long", csr="x" * (limits.MAX_CSR + 1)),
    _field("parameters-list", parameters=[]),
    _field("parameter-number", parameters={"room": 7}),
    _field("parameter-name", parameters={"Room!": "hall"}),
    _field("parameters-many", parameters={f"p{n}": "" for n in range(17)}),
)
REQUESTS: Final = (
    _csr("csr-text", Code.CSR_MALFORMED, lambda: "please"),
    _csr("csr-not-ascii", Code.CSR_MALFORMED, lambda: "péché"),
    _csr("csr-empty-pem", Code.CSR_MALFORMED, lambda: pem_of(b"")),
    _csr("csr-cut", Code.CSR_MALFORMED, lambda: pem_of(der_of(csr_pem(fresh_key()))[:-30])),
    _csr("signature", Code.CSR_SIGNATURE_INVALID, _tampered),
    _csr(
        "authority",
        Code.CSR_CA_REQUESTED,
        _wants_authority(x509.BasicConstraints(ca=True, path_length=None)),
    ),
    _csr("signing", Code.CSR_CA_REQUESTED, _wants_authority(_SIGNING)),
    _csr("name-of-another", Code.CSR_NAME_MISMATCH, lambda: named_csr(fresh_key(), "lamp-B2")),
    _csr("name-of-service", Code.CSR_NAME_MISMATCH, lambda: csr_pem(fresh_key(), _ADMIN)),
    _csr("other-name", Code.CSR_NAME_MISMATCH, _wants_authority(_SOMEBODY)),
    _csr("rsa-huge", Code.KEY_NOT_ALLOWED, lambda: handmade_csr(rsa_spki(16_384))),
    *map(_weak, ("rsa-2048", "p224", "p521", "secp256k1", "ed448", "dsa")),
)
SERIALS: Final = (
    Bad(
        "serial-unlisted",
        lambda: _with("serial-unlisted", serial="NOBODY"),
        Code.SERIAL_UNKNOWN,
        Code.SERIAL_REFUSED,
    ),
)
EVERYTHING_BAD: Final = (*PAYLOADS, *FIELDS, *REQUESTS, *SERIALS)
