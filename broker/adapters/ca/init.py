"""Making a Muster home: three anchors, what they sign, and the files that brokers read."""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from broker.adapters.ca.building import Signer, build_anchor, build_authority
from broker.adapters.ca.crl import build_crl, build_lasting_crl
from broker.adapters.ca.errors import AuthorityCode, AuthorityError
from broker.adapters.ca.files import sync_folder, write_public
from broker.adapters.ca.home import MusterHome, PairPaths
from broker.adapters.ca.hosts import broker_hosts
from broker.adapters.ca.infrastructure import (
    build_broker_certificate,
    build_service_certificate,
)
from broker.adapters.ca.key_files import SigningKey, generate_key, write_key
from broker.core.certificate_profile import OPERATIONAL_CRL_LIFETIME, Profile, validity
from broker.protocol.zones import Zone

_OPEN: Final = 0o755
_CLOSED: Final = 0o700


@dataclass(frozen=True)
class _Authorities:
    root: Signer
    operational: Signer
    claim: Signer
    infrastructure: Signer


def create_home(
    home: MusterHome, *, hosts: Sequence[str], passphrase: bytes | None, now: datetime
) -> None:
    """Makes the whole home, or nothing: it appears under its name complete and durable.

    It is made beside its place, in a hidden folder that a killed process may leave behind and that
    nothing uses. The settings and the registry aren't part of it.

    Args:
        hosts: names and addresses under which the brokers are reached, besides this machine's.
        passphrase: encrypts the authorities' keys. The brokers' and the service's own never are:
            nobody is there to type it when they start.

    Raises:
        AuthorityError: HOME_EXISTS, HOME_UNWRITABLE, FILE_UNWRITABLE, HOST_INVALID,
            PASSPHRASE_EMPTY.
    """
    names = broker_hosts(hosts)
    place = home.path.resolve()
    _refuse_occupied(place)
    try:
        draft = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
    except OSError as error:
        raise _unwritable(place, error) from error
    try:
        _fill(MusterHome(draft), names, passphrase, now)
        _move(draft, place)
    except OSError as error:
        raise _unwritable(place, error) from error
    finally:
        # Gone already when it went where it belongs.
        shutil.rmtree(draft, ignore_errors=True)


def _fill(home: MusterHome, hosts: Sequence[str], passphrase: bytes | None, now: datetime) -> None:
    for folder in (home.ca, home.tls, home.trust, home.crl, home.run):
        folder.mkdir()
    authorities = _make_authorities(now)
    _write_authorities(home, authorities, passphrase)
    for zone in Zone:
        _write_broker(home, authorities.infrastructure, zone, hosts, now)
        _write_service(home, authorities.infrastructure, zone, now)
    _write_trust(home, authorities)
    _write_crls(home, authorities, now)
    # Brokers run as users of their own and read these; the rest is the service's.
    for folder in (home.path, home.tls, home.trust, home.crl):
        folder.chmod(_OPEN)
    for folder in (home.ca, home.run):
        folder.chmod(_CLOSED)
    for folder in (home.ca, home.tls, home.trust, home.crl, home.run, home.path):
        sync_folder(folder)


def _make_authorities(now: datetime) -> _Authorities:
    root = _anchor(Profile.ROOT, "Muster root", now)
    return _Authorities(
        root,
        build_authority(
            root,
            Profile.OPERATIONAL_CA,
            "Muster operational CA",
            generate_key(),
            validity(Profile.OPERATIONAL_CA, now),
        ),
        _anchor(Profile.CLAIM_CA, "Muster claim CA", now),
        _anchor(Profile.INFRASTRUCTURE_CA, "Muster infrastructure CA", now),
    )


def _anchor(profile: Profile, title: str, now: datetime) -> Signer:
    return build_anchor(profile, title, generate_key(), validity(profile, now))


def _write_authorities(
    home: MusterHome, authorities: _Authorities, passphrase: bytes | None
) -> None:
    for pair, signer in (
        (home.root, authorities.root),
        (home.operational, authorities.operational),
        (home.claim, authorities.claim),
        (home.infrastructure, authorities.infrastructure),
    ):
        _write_pair(pair, signer.certificate, signer.key, passphrase)


def _write_broker(
    home: MusterHome, issuer: Signer, zone: Zone, hosts: Sequence[str], now: datetime
) -> None:
    key = generate_key()
    certificate = build_broker_certificate(issuer, zone, key.public_key(), hosts, now)
    _write_pair(home.broker(zone), certificate, key, None)


def _write_service(home: MusterHome, issuer: Signer, zone: Zone, now: datetime) -> None:
    key = generate_key()
    certificate = build_service_certificate(issuer, zone, key.public_key(), now)
    _write_pair(home.service(zone), certificate, key, None)


def _write_pair(
    pair: PairPaths, certificate: x509.Certificate, key: SigningKey, passphrase: bytes | None
) -> None:
    write_key(pair.key, key, passphrase)
    write_public(pair.certificate, certificate.public_bytes(Encoding.PEM))


def _write_trust(home: MusterHome, authorities: _Authorities) -> None:
    """Who trusts whom; the reasons are in docs/adr/0005-certificate-profiles.md."""
    write_public(home.client_anchors(Zone.CLAIM), _pem(authorities.claim))
    fleet = _pem(authorities.root, authorities.operational)
    write_public(home.client_anchors(Zone.FLEET), fleet)
    write_public(home.server_anchors, _pem(authorities.infrastructure))


def _write_crls(home: MusterHome, authorities: _Authorities, now: datetime) -> None:
    infrastructure = build_lasting_crl(authorities.infrastructure, (), 0, now)
    claim = build_lasting_crl(authorities.claim, (), 0, now)
    next_update = now + OPERATIONAL_CRL_LIFETIME
    operational = build_crl(authorities.operational, (), 0, now, next_update)
    write_public(home.infrastructure_crl, infrastructure)
    write_public(home.crl_file(Zone.CLAIM), claim)
    write_public(home.crl_file(Zone.FLEET), operational)


def _pem(*signers: Signer) -> bytes:
    return b"".join(signer.certificate.public_bytes(Encoding.PEM) for signer in signers)


def _refuse_occupied(place: Path) -> None:
    """An early answer; the rename decides."""
    if place.is_dir() and not any(place.iterdir()):
        return
    if place.exists():
        raise _occupied(place)


def _move(draft: Path, place: Path) -> None:
    try:
        # Replaces an empty folder and nothing else, in one step.
        draft.rename(place)
    except (FileExistsError, NotADirectoryError) as error:
        raise _occupied(place) from error
    except OSError as error:
        if place.is_dir() and any(place.iterdir()):
            raise _occupied(place) from error
        raise _unwritable(place, error) from error
    sync_folder(place.parent)


def _occupied(place: Path) -> AuthorityError:
    return AuthorityError(
        AuthorityCode.HOME_EXISTS,
        f"{place} exists and isn't an empty folder",
        "name another folder, or move this one away if you want to start over",
    )


def _unwritable(place: Path, error: OSError) -> AuthorityError:
    return AuthorityError(
        AuthorityCode.HOME_UNWRITABLE,
        f"{place} can't be made: {error.strerror}",
        "name a folder inside one that exists and that you may write to; where the folder is a "
        "mounted volume, name one inside it",
    )
