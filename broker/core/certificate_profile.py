"""What each kind of certificate may do, and for how long: one table, and the rules that read it.

A certificate never outlives its issuer, and has exactly the powers of its row. The reasons for the
figures are in docs/adr/0005-certificate-profiles.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, StrEnum
from types import MappingProxyType
from typing import Final

BACKDATING: Final = timedelta(minutes=5)
"""How far behind a verifier's clock may be and still accept what was signed just now."""

OPERATIONAL_CRL_LIFETIME: Final = timedelta(days=7)
"""An expired CRL locks everybody out; signed anew each day, it outlasts a long weekend."""

_DAY = timedelta(days=1)
_YEAR = timedelta(days=365)


class Profile(StrEnum):
    """The kinds of certificate."""

    ROOT = "root"
    OPERATIONAL_CA = "operational-ca"
    CLAIM_CA = "claim-ca"
    INFRASTRUCTURE_CA = "infrastructure-ca"
    DEVICE = "device"
    CLAIM = "claim"
    BROKER_SERVER = "broker"
    SERVICE_CLIENT = "service"


class KeyUse(Enum):
    """A bit of the keyUsage extension (RFC 5280, 4.2.1.3)."""

    DIGITAL_SIGNATURE = "digital_signature"
    CERTIFICATE_SIGN = "key_cert_sign"
    CRL_SIGN = "crl_sign"


class ExtendedUse(Enum):
    """A purpose of the extendedKeyUsage extension (RFC 5280, 4.2.1.12)."""

    CLIENT = "clientAuth"
    SERVER = "serverAuth"


class AlternativeName(Enum):
    """What the subjectAltName extension holds (RFC 5280, 4.2.1.6)."""

    NONE = "none"
    """An authority is known by its subject alone."""
    URN = "urn"
    """`urn:muster:{profile}:{name}`; see `alternative_uri`."""
    HOSTS = "hosts"
    """The host names and addresses under which it is reached."""


@dataclass(frozen=True)
class CertificateProfile:
    """One row of the table."""

    issuer: Profile | None
    """Who signs it; none when it signs itself."""
    lifetime: timedelta
    """How long it lasts unless the caller says otherwise."""
    key_uses: frozenset[KeyUse]
    extended_uses: frozenset[ExtendedUse]
    """For what it may be used; empty means that it sets no limit."""
    path_length: int | None = None
    """For an authority: how many authorities may stand below it. None for a leaf."""
    alternative_name: AlternativeName = AlternativeName.NONE

    @property
    def is_authority(self) -> bool:
        """Whether it may sign certificates."""
        return self.path_length is not None


_AUTHORITY = frozenset({KeyUse.CERTIFICATE_SIGN, KeyUse.CRL_SIGN})
_LEAF = frozenset({KeyUse.DIGITAL_SIGNATURE})
_CLIENT = frozenset({ExtendedUse.CLIENT})
_SERVER = frozenset({ExtendedUse.SERVER})

PROFILES: Final[Mapping[Profile, CertificateProfile]] = MappingProxyType(
    {
        Profile.ROOT: CertificateProfile(None, 20 * _YEAR, _AUTHORITY, frozenset(), path_length=1),
        Profile.OPERATIONAL_CA: CertificateProfile(
            Profile.ROOT, 10 * _YEAR, _AUTHORITY, _CLIENT, path_length=0
        ),
        Profile.CLAIM_CA: CertificateProfile(None, 10 * _YEAR, _AUTHORITY, _CLIENT, path_length=0),
        Profile.INFRASTRUCTURE_CA: CertificateProfile(
            None, 10 * _YEAR, _AUTHORITY, _CLIENT | _SERVER, path_length=0
        ),
        Profile.DEVICE: CertificateProfile(
            Profile.OPERATIONAL_CA,
            90 * _DAY,
            _LEAF,
            _CLIENT,
            alternative_name=AlternativeName.URN,
        ),
        Profile.CLAIM: CertificateProfile(
            Profile.CLAIM_CA, 2 * _YEAR, _LEAF, _CLIENT, alternative_name=AlternativeName.URN
        ),
        Profile.BROKER_SERVER: CertificateProfile(
            Profile.INFRASTRUCTURE_CA,
            2 * _YEAR,
            _LEAF,
            _SERVER,
            alternative_name=AlternativeName.HOSTS,
        ),
        Profile.SERVICE_CLIENT: CertificateProfile(
            Profile.INFRASTRUCTURE_CA,
            2 * _YEAR,
            _LEAF,
            _CLIENT,
            alternative_name=AlternativeName.URN,
        ),
    }
)


@dataclass(frozen=True)
class Validity:
    """From when until when a certificate is valid: aware times in UTC, in whole seconds.

    Raises:
        ValueError: a time isn't aware, or the end isn't after the beginning.
    """

    not_before: datetime
    not_after: datetime

    def __post_init__(self) -> None:
        for name in ("not_before", "not_after"):
            moment: datetime = getattr(self, name)
            if moment.utcoffset() is None:
                raise ValueError(f"{name} has no time zone")
            # X.509 has no fractions; the record must say what the certificate says.
            object.__setattr__(self, name, moment.replace(microsecond=0))
        if self.not_after <= self.not_before:
            raise ValueError("the certificate would end before it begins")

    def within(self, issuer: "Validity") -> "Validity":
        """This, cut to the issuer's.

        Raises:
            ValueError: the two have no moment in common.
        """
        return Validity(
            max(self.not_before, issuer.not_before), min(self.not_after, issuer.not_after)
        )


def validity(profile: Profile, now: datetime, lifetime: timedelta | None = None) -> Validity:
    """From a little before `now` until `lifetime` (else the profile's) after it."""
    length = PROFILES[profile].lifetime if lifetime is None else lifetime
    return Validity(now - BACKDATING, now + length)


def alternative_uri(profile: Profile, name: str) -> str:
    """The URI by which a certificate says what it is and whose, e.g. `urn:muster:device:lamp_7`.

    A name may hold `_`, begin with `-` and be 64 long, so it is no DNS name (RFC 5280, 4.2.1.6;
    RFC 1034, 3.5); and were it one, a device called `localhost` would bear a host's name.
    """
    return f"urn:muster:{profile}:{name}"
