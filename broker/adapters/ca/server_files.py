"""What follows from which infrastructure authorities count: anchors, CRLs and certificates.

Written in an order in which every part that a kill leaves behind still works: who comes has its CRL
before it is an anchor, who goes is no anchor before its CRL goes.
"""

import re
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509

from broker.adapters.ca.crl import build_lasting_crl
from broker.adapters.ca.files import read_file, replace_public
from broker.adapters.ca.home import MusterHome
from broker.adapters.ca.infrastructure import renew_infrastructure
from broker.adapters.ca.loading import load_signer, read_certificates
from broker.core.infrastructure_rollover import ServerPhase, ServerRollover
from broker.protocol.zones import Zone

_CRL: Final = re.compile(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----\n", re.DOTALL)


def put_in_place(
    home: MusterHome, rollover: ServerRollover, passphrase: bytes | None, now: datetime
) -> None:
    """Writes what isn't as it should be. Blocks.

    Raises:
        AuthorityError: a key isn't here or can't be opened, or a file can't be written.
    """
    if rollover.phase is ServerPhase.INTRODUCED:
        _put_crls(home, rollover, passphrase, now)
        _put_anchors(home, rollover)
    else:
        _put_anchors(home, rollover)
        if rollover.is_over:
            _put_crls(home, rollover, passphrase, now)
        if not _are_certificates_current(home, rollover):
            renew_infrastructure(home, hosts=[], passphrase=passphrase, now=now)


def _put_crls(
    home: MusterHome, rollover: ServerRollover, passphrase: bytes | None, now: datetime
) -> None:
    """The lists of those that count, one after the other."""
    known = {
        x509.load_pem_x509_crl(block).issuer: block
        for block in _CRL.findall(read_file(home.infrastructure_crl))
    }
    lists = []
    for generation in rollover.trusted:
        pair = home.infrastructure_of(generation)
        issuer = read_certificates(pair.certificate)[0].subject
        if issuer not in known:
            known[issuer] = build_lasting_crl(load_signer(pair, passphrase), (), 0, now)
        lists.append(known[issuer])
    _put(home.infrastructure_crl, b"".join(lists))


def _put(path: Path, content: bytes) -> None:
    if read_file(path) != content:
        replace_public(path, content)


def _put_anchors(home: MusterHome, rollover: ServerRollover) -> None:
    trusted = [home.infrastructure_of(generation).certificate for generation in rollover.trusted]
    _put(home.server_anchors, b"".join(read_file(certificate) for certificate in trusted))


def _are_certificates_current(home: MusterHome, rollover: ServerRollover) -> bool:
    for zone in Zone:
        issuer = read_certificates(home.infrastructure_of(rollover.issuing(zone)).certificate)[0]
        for pair in (home.broker(zone), home.service(zone)):
            if read_certificates(pair.certificate)[0].issuer != issuer.subject:
                return False
    return True
