"""The issuing authority whose key is a file."""

from collections.abc import Sequence
from datetime import datetime
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding

from broker.adapters.ca.building import (
    Signer,
    alternative_names,
    authority_key,
    common_name,
    constant_extensions,
    signature_hash,
    subject_key,
    within,
)
from broker.adapters.ca.crl import Entries, build_crl
from broker.adapters.ca.home import MusterHome
from broker.adapters.ca.loading import load_signer
from broker.core.ca_rollover import FIRST_GENERATION
from broker.core.certificate_profile import OPERATIONAL_CRL_LIFETIME, Profile, Validity
from broker.ports.authorities import IssuedCertificate, Revocation
from broker.protocol.names import CertificateSerial, DeviceId, Fingerprint


class FileAuthority:
    """Issues operational certificates; meets `broker.ports.authorities.IssuingAuthority`.

    Holds the key in memory, so that a device's certificate costs one signature and no file.
    """

    def __init__(self, signer: Signer, generation: int = FIRST_GENERATION) -> None:
        self.generation = generation
        """Which of the home's operational authorities it is."""
        self._signer = signer
        self._chain_pem = signer.certificate.public_bytes(Encoding.PEM).decode("ascii")
        # What every certificate has in common is made once; it's a third of the work.
        self._issuer_name = signer.certificate.subject
        self._constant = (*constant_extensions(Profile.DEVICE), authority_key(signer.certificate))
        self._hash = signature_hash(signer.key)
        self._entries = Entries()

    @classmethod
    def load(
        cls,
        home: MusterHome,
        passphrase: bytes | None = None,
        generation: int = FIRST_GENERATION,
    ) -> Self:
        """An operational authority of a home.

        Raises:
            AuthorityError: a file is missing, damaged or open to others, or the passphrase is
                missing or wrong.
        """
        signer = load_signer(home.operational_of(generation), passphrase)
        return cls(signer, generation)

    @property
    def signers(self) -> tuple[Signer, ...]:
        """The authorities whose certificates count, for answers about their status."""
        return (self._signer,)

    @property
    def chain_pem(self) -> str:
        """The operational authority's certificate; its issuer is the anchor, which isn't sent."""
        return self._chain_pem

    def chain_of(self, generation: int) -> str:
        """Its certificate, for those that it issued."""
        return self._chain_pem if generation == self.generation else ""

    def issue(
        self,
        name: DeviceId,
        key: CertificatePublicKeyTypes,
        not_before: datetime,
        not_after: datetime,
    ) -> IssuedCertificate:
        """A device's certificate, cut to the authority's validity.

        Raises:
            AuthorityError: VALIDITY_EMPTY when nothing of the validity is left.
        """
        valid = within(self._signer, Validity(not_before, not_after))
        certificate = x509.CertificateBuilder(
            issuer_name=self._issuer_name,
            subject_name=common_name(name),
            public_key=key,
            serial_number=x509.random_serial_number(),
            not_valid_before=valid.not_before,
            not_valid_after=valid.not_after,
            extensions=[
                *self._constant,
                subject_key(key),
                alternative_names(Profile.DEVICE, name),
            ],
        ).sign(self._signer.key, self._hash)
        return IssuedCertificate(
            pem=certificate.public_bytes(Encoding.PEM).decode("ascii"),
            serial=serial_of(certificate),
            certificate_sha256=Fingerprint(certificate.fingerprint(hashes.SHA256()).hex()),
            not_before=valid.not_before,
            not_after=valid.not_after,
            generation=self.generation,
        )

    def sign_crl(self, revoked: Sequence[Revocation], number: int, now: datetime) -> bytes:
        """Its CRL, with those in `revoked` that it issued; in force for a week. Takes 0.5 s for
        100,000 entries, the first time twice as long: not for the loop, and one at a time."""
        own = [line for line in revoked if line.generation == self.generation]
        until = now + OPERATIONAL_CRL_LIFETIME
        return build_crl(self._signer, own, number, now, until, self._entries)


def serial_of(certificate: x509.Certificate) -> CertificateSerial:
    """The certificate's serial number as the registry and the CRL write it."""
    return CertificateSerial(f"{certificate.serial_number:x}")
