"""Reading CRLs (RFC 5280, 5) with Debian's python3-minimal and the program `openssl`.

The structure is read here, as far as it's needed, and the signature is left to OpenSSL. It is
checked over the bytes alone: for OpenSSL to parse a CRL of 100,000 entries takes ten times as long.
"""

import base64
import binascii
import calendar
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_CRL = re.compile(rb"-----BEGIN X509 CRL-----\s([^-]+)-----END X509 CRL-----\s*")
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----\s([^-]+)-----END CERTIFICATE-----")
_INTEGER, _BITS, _OCTETS, _OID, _SEQUENCE, _CONTEXT_0 = 0x02, 0x03, 0x04, 0x06, 0x30, 0xA0
_TIMES = {0x17: "%y%m%d%H%M%SZ", 0x18: "%Y%m%d%H%M%SZ"}
_CRL_NUMBER = b"\x55\x1d\x14"
_ED25519 = b"\x2b\x65\x70"
_WITH_SHA256 = {
    b"\x2a\x86\x48\xce\x3d\x04\x03\x02",  # ecdsa-with-SHA256
    b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b",  # sha256WithRSAEncryption
}
_PATIENCE_S = 30


class Refused(Exception):
    """What was read isn't to be relied on; it says why."""


class Anchor(NamedTuple):
    """An authority's name and key, as its certificate has them (DER)."""

    name: bytes
    key: bytes


class Crl(NamedTuple):
    """One CRL."""

    der: bytes
    issuer: bytes
    number: int
    """0 when it has none."""
    since: float
    """thisUpdate, in seconds since 1970."""
    until: float
    """nextUpdate; 0 when it has none."""

    @property
    def pem(self) -> bytes:
        """As Mosquitto reads it."""
        return _pem(b"X509 CRL", self.der)


class _Value(NamedTuple):
    """One value in DER."""

    tag: int
    content: bytes
    whole: bytes


def read_anchors(pem: bytes) -> list[Anchor]:
    """The authorities in a file of certificates.

    Raises:
        Refused: it isn't one.
    """
    return [_anchor(_decoded(block)) for block in _CERTIFICATE.findall(pem)]


def read_crls(pem: bytes, anchors: list[Anchor]) -> list[Crl]:
    """The CRLs that these authorities have signed. Others are left out: nobody can be admitted by
    who isn't an anchor, and in a change of authorities the CRL comes first and goes last.

    Raises:
        Refused: it isn't a sequence of whole CRLs, or a signature is wrong.
    """
    blocks = _CRL.findall(pem)
    if not blocks or _CRL.sub(b"", pem).strip():
        raise Refused("it isn't a sequence of whole PEM CRLs")
    keys = {anchor.name: anchor.key for anchor in anchors}
    found: dict[bytes, Crl] = {}
    for block in blocks:
        crl, signed, algorithm, signature = _crl(_decoded(block))
        if crl.issuer not in keys:
            continue
        if crl.issuer in found:
            raise Refused("it holds two CRLs of one authority")
        _verify(signed, algorithm, signature, keys[crl.issuer])
        found[crl.issuer] = crl
    return list(found.values())


def _decoded(block: bytes) -> bytes:
    try:
        return base64.b64decode(b"".join(block.split()), validate=True)
    except binascii.Error as error:
        raise Refused("its base64 is damaged") from error


def _crl(der: bytes) -> tuple[Crl, bytes, bytes, bytes]:
    """It, what is signed, the algorithm's identifier, and the signature."""
    try:
        whole, rest = _value(der)
        tbs, algorithm, signature = _values(whole, _SEQUENCE)
        fields = _values(tbs, _SEQUENCE)
        if fields[0].tag == _INTEGER:  # the version
            del fields[0]
        _, issuer, since, *others = fields
        until = _time(others[0]) if others and others[0].tag in _TIMES else 0.0
        number = next((_number(each) for each in others if each.tag == _CONTEXT_0), 0)
        oid = _values(algorithm, _SEQUENCE)[0]
        crl = Crl(der, issuer.whole, number, _time(since), until)
    except (ValueError, IndexError) as error:
        raise Refused("a CRL in it can't be parsed") from error
    if rest or oid.tag != _OID or signature.tag != _BITS:
        raise Refused("a CRL in it can't be parsed")
    return crl, tbs.whole, oid.content, signature.content[1:]


def _number(extensions: _Value) -> int:
    (listed,) = _values(extensions, _CONTEXT_0)
    for extension in _values(listed, _SEQUENCE):
        oid, *_, value = _values(extension, _SEQUENCE)
        if oid.content == _CRL_NUMBER and value.tag == _OCTETS:
            return int.from_bytes(_value(value.content)[0].content, "big", signed=True)
    return 0


def _anchor(der: bytes) -> Anchor:
    try:
        fields = _values(_values(_value(der)[0], _SEQUENCE)[0], _SEQUENCE)
        if fields[0].tag == _CONTEXT_0:  # the version
            del fields[0]
        return Anchor(name=fields[4].whole, key=fields[5].whole)
    except (ValueError, IndexError) as error:
        raise Refused("an anchor can't be parsed") from error


def _value(data: bytes) -> tuple[_Value, bytes]:
    """The first value in `data`, and what follows it."""
    begin, size = 2, data[1]
    if size >= 0x80:
        begin += size & 0x7F
        size = int.from_bytes(data[2:begin], "big")
    end = begin + size
    if len(data) < end:
        raise ValueError("a value is cut off")
    return _Value(data[0], data[begin:end], data[:end]), data[end:]


def _values(parent: _Value, tag: int) -> list[_Value]:
    if parent.tag != tag:
        raise ValueError("another kind of value")
    return list(_each(parent.content))


def _each(data: bytes) -> Iterator[_Value]:
    while data:
        value, data = _value(data)
        yield value


def _time(value: _Value) -> float:
    text = value.content.decode("ascii")
    return float(calendar.timegm(time.strptime(text, _TIMES.get(value.tag, "no time"))))


def _verify(signed: bytes, algorithm: bytes, signature: bytes, key: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        files = {"signed": signed, "signature": signature, "key": _pem(b"PUBLIC KEY", key)}
        paths = {name: str(Path(folder) / name) for name in files}
        for name, content in files.items():
            Path(paths[name]).write_bytes(content)
        if algorithm in _WITH_SHA256:
            how = ["dgst", "-sha256", "-verify", paths["key"], "-signature", paths["signature"]]
            how.append(paths["signed"])
        elif algorithm == _ED25519:
            how = ["pkeyutl", "-verify", "-pubin", "-inkey", paths["key"], "-rawin"]
            how += ["-in", paths["signed"], "-sigfile", paths["signature"]]
        else:
            raise Refused("it is signed by an algorithm that Muster doesn't use")
        _have_verified(how)


def _have_verified(how: list[str]) -> None:
    try:
        done = subprocess.run(["openssl", *how], capture_output=True, timeout=_PATIENCE_S)  # noqa: S607, PLW1510
    except FileNotFoundError as error:
        raise Refused("the program `openssl` isn't installed") from error
    except subprocess.TimeoutExpired as error:
        raise Refused("`openssl` doesn't come to an end") from error
    if done.returncode != 0:
        raise Refused("its signature isn't the authority's")


def _pem(label: bytes, der: bytes) -> bytes:
    text = binascii.b2a_base64(der, newline=False)
    lines = [text[begin : begin + 64] for begin in range(0, len(text), 64)]
    return b"\n".join(
        [b"-----BEGIN " + label + b"-----", *lines, b"-----END " + label + b"-----\n"]
    )
