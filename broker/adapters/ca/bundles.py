"""Putting a claim bundle together from a claim certificate and the home's anchors."""

from broker.adapters.ca.claim_authority import IssuedClaimCertificate
from broker.adapters.ca.files import read_file
from broker.adapters.ca.home import MusterHome
from broker.adapters.ca.server_trust import FIRST_VERSION, read_server_trust
from broker.protocol.bundle import ClaimBundle
from broker.protocol.messages import Endpoint, TrustBundle


def read_trust_bundle(home: MusterHome) -> TrustBundle:
    """The anchors by which devices authenticate brokers, with the root that signs successors.

    Raises:
        AuthorityError: a file can't be read.
    """
    signed = read_server_trust(home)
    if signed is not None:
        return signed.contents
    return TrustBundle(
        version=FIRST_VERSION,
        anchors=read_file(home.server_anchors).decode("ascii"),
        root=read_file(home.root.certificate).decode("ascii"),
    )


def make_bundle(
    issued: IssuedClaimCertificate, claim: Endpoint, trust_bundle: TrustBundle
) -> ClaimBundle:
    """What a maker flashes on a batch. Keep it 0600: `files.write_secret` does."""
    return ClaimBundle(
        claim_name=issued.name,
        certificate=issued.certificate_pem,
        private_key=issued.key_pem,
        claim=claim,
        trust_bundle=trust_bundle,
    )
