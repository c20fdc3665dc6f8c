"""The certificates of brokers and of the service itself: made at first, and made anew in time."""

from collections.abc import Sequence
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding

from broker.adapters.ca.building import Signer, build_leaf
from broker.adapters.ca.files import replace_public
from broker.adapters.ca.home import MusterHome
from broker.adapters.ca.hosts import broker_hosts
from broker.adapters.ca.key_files import read_key
from broker.adapters.ca.loading import load_signer, read_certificates
from broker.adapters.ca.server_trust import read_server_trust
from broker.core.ca_rollover import FIRST_GENERATION
from broker.core.certificate_profile import Profile, validity
from broker.protocol.names import RESERVED_PREFIX
from broker.protocol.zones import Zone, service_name


def build_broker_certificate(
    issuer: Signer,
    zone: Zone,
    key: CertificatePublicKeyTypes,
    hosts: Sequence[str],
    now: datetime,
) -> x509.Certificate:
    """What the zone's broker serves with, under each of `hosts`."""
    valid = validity(Profile.BROKER_SERVER, now)
    names = [_general_name(host) for host in hosts]
    return build_leaf(issuer, Profile.BROKER_SERVER, broker_name(zone), key, valid, names)


def build_service_certificate(
    issuer: Signer, zone: Zone, key: CertificatePublicKeyTypes, now: datetime
) -> x509.Certificate:
    """What the service connects with to the zone's broker."""
    valid = validity(Profile.SERVICE_CLIENT, now)
    return build_leaf(issuer, Profile.SERVICE_CLIENT, service_name(zone), key, valid)


def broker_name(zone: Zone) -> str:
    """The certificate name of the zone's broker, whatever its hosts are called."""
    return f"{RESERVED_PREFIX}{zone}-broker"


def renew_infrastructure(
    home: MusterHome, *, hosts: Sequence[str], passphrase: bytes | None, now: datetime
) -> list[Path]:
    """Makes the brokers' and the service's certificates anew, for the keys that they have.

    Keys stay, so each certificate is replaced by one rename and always fits its key. What a broker
    was called stays too; `hosts` are added. Returns the files that were replaced: whoever uses
    them has to be restarted.

    Raises:
        AuthorityError: HOST_INVALID, or a file is missing, damaged or can't be written, or the
            passphrase is missing or wrong.
    """
    added = broker_hosts(hosts)
    renewed: dict[Path, x509.Certificate] = {}
    for zone in Zone:
        issuer = load_signer(home.infrastructure_of(issuing_for(home, zone)), passphrase)
        broker, service = home.broker(zone), home.service(zone)
        names = dict.fromkeys([*_hosts_of(read_certificates(broker.certificate)[0]), *added])
        renewed[broker.certificate] = build_broker_certificate(
            issuer, zone, read_key(broker.key).public_key(), list(names), now
        )
        renewed[service.certificate] = build_service_certificate(
            issuer, zone, read_key(service.key).public_key(), now
        )
    for path, certificate in renewed.items():
        replace_public(path, certificate.public_bytes(Encoding.PEM))
    return list(renewed)


def issuing_for(home: MusterHome, zone: Zone) -> int:
    """Which infrastructure authority makes the zone's certificates now.

    Raises:
        AuthorityError: the file that says so can't be read.
    """
    trust = read_server_trust(home)
    return FIRST_GENERATION if trust is None else trust.rollover.issuing(zone)


def _hosts_of(certificate: x509.Certificate) -> list[str]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [
        *names.get_values_for_type(x509.DNSName),
        *(str(address) for address in names.get_values_for_type(x509.IPAddress)),
    ]


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)
