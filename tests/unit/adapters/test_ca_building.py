"""Certificates say what their row of the table says, and nothing else."""

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from broker.adapters.ca.building import build_leaf
from broker.adapters.ca.claim_authority import issue_claim_certificate
from broker.adapters.ca.errors import AuthorityCode, AuthorityError
from broker.adapters.ca.file_authority import FileAuthority
from broker.adapters.ca.home import MusterHome
from broker.adapters.ca.key_files import generate_key
from broker.adapters.ca.loading import load_signer
from broker.core.certificate_profile import (
    PROFILES,
    AlternativeName,
    ExtendedUse,
    Profile,
    Validity,
    validity,
)
from broker.protocol.names import ClaimName, DeviceId
from broker.protocol.zones import Zone
from tests.unit.adapters.ca_homes import NOW, certificate_in, make_home

DAY = timedelta(days=1)
PURPOSES = {
    ExtendedUse.CLIENT: ExtendedKeyUsageOID.CLIENT_AUTH,
    ExtendedUse.SERVER: ExtendedKeyUsageOID.SERVER_AUTH,
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> MusterHome:
    return make_home(tmp_path_factory.mktemp("building"))


@pytest.fixture(scope="module")
def one_of_each(home: MusterHome) -> dict[Profile, x509.Certificate]:
    device = FileAuthority.load(home).issue(
        DeviceId("lamp"), generate_key().public_key(), NOW, NOW + DAY
    )
    claim = issue_claim_certificate(home, ClaimName("batch"), NOW + DAY, NOW, None)
    return {
        Profile.ROOT: certificate_in(home.root.certificate),
        Profile.OPERATIONAL_CA: certificate_in(home.operational.certificate),
        Profile.CLAIM_CA: certificate_in(home.claim.certificate),
        Profile.INFRASTRUCTURE_CA: certificate_in(home.infrastructure.certificate),
        Profile.DEVICE: x509.load_pem_x509_certificate(device.pem.encode()),
        Profile.CLAIM: x509.load_pem_x509_certificate(claim.certificate_pem.encode()),
        Profile.BROKER_SERVER: certificate_in(home.broker(Zone.FLEET).certificate),
        Profile.SERVICE_CLIENT: certificate_in(home.service(Zone.FLEET).certificate),
    }


every_profile = pytest.mark.parametrize("profile", Profile)


@every_profile
def test_its_powers(one_of_each: dict[Profile, x509.Certificate], profile: Profile) -> None:
    row, extensions = PROFILES[profile], one_of_each[profile].extensions
    constraints = extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(row.is_authority, row.path_length)
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert {
        bit
        for bit in (
            *("digital_signature", "content_commitment", "key_encipherment"),
            *("data_encipherment", "key_agreement", "key_cert_sign", "crl_sign"),
        )
        if getattr(usage.value, bit)
    } == {use.value for use in row.key_uses}


@every_profile
def test_its_purposes(one_of_each: dict[Profile, x509.Certificate], profile: Profile) -> None:
    row, extensions = PROFILES[profile], one_of_each[profile].extensions
    if not row.extended_uses:
        with pytest.raises(x509.ExtensionNotFound):
            extensions.get_extension_for_class(x509.ExtendedKeyUsage)
        return
    found = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(found) == {PURPOSES[use] for use in row.extended_uses}


@every_profile
def test_it_holds_no_extension_that_was_not_meant(
    one_of_each: dict[Profile, x509.Certificate], profile: Profile
) -> None:
    row = PROFILES[profile]
    meant = {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
    }
    if row.extended_uses:
        meant.add(ExtensionOID.EXTENDED_KEY_USAGE)
    if row.issuer is not None:
        meant.add(ExtensionOID.AUTHORITY_KEY_IDENTIFIER)
    if row.alternative_name is not AlternativeName.NONE:
        meant.add(ExtensionOID.SUBJECT_ALTERNATIVE_NAME)
    assert {extension.oid for extension in one_of_each[profile].extensions} == meant


@every_profile
def test_its_issuer(one_of_each: dict[Profile, x509.Certificate], profile: Profile) -> None:
    certificate = one_of_each[profile]
    issuer = one_of_each[PROFILES[profile].issuer or profile]
    certificate.verify_directly_issued_by(issuer)
    assert certificate.not_valid_after_utc <= issuer.not_valid_after_utc


@every_profile
def test_its_serial_is_long_and_positive(
    one_of_each: dict[Profile, x509.Certificate], profile: Profile
) -> None:
    serial = one_of_each[profile].serial_number
    assert 0 < serial < 2**159
    # Shorter by chance once in 2^63.
    assert serial.bit_length() > 96


@every_profile
def test_its_subject_is_one_name(
    one_of_each: dict[Profile, x509.Certificate], profile: Profile
) -> None:
    (attribute,) = one_of_each[profile].subject
    assert attribute.oid == x509.NameOID.COMMON_NAME


def test_a_leaf_is_cut_to_its_issuer(home: MusterHome) -> None:
    signer = load_signer(home.claim, None)
    wide = Validity(NOW - 999 * DAY, NOW + 99_999 * DAY)
    leaf = build_leaf(signer, Profile.CLAIM, "a", generate_key().public_key(), wide)
    assert leaf.not_valid_before_utc == signer.certificate.not_valid_before_utc
    assert leaf.not_valid_after_utc == signer.certificate.not_valid_after_utc


def test_an_expired_authority_issues_nothing(home: MusterHome) -> None:
    signer = load_signer(home.claim, None)
    late = validity(Profile.CLAIM, signer.certificate.not_valid_after_utc + DAY)
    with pytest.raises(AuthorityError) as caught:
        build_leaf(signer, Profile.CLAIM, "a", generate_key().public_key(), late)
    assert caught.value.code is AuthorityCode.VALIDITY_EMPTY
    assert "clock" in caught.value.remedy


def test_a_key_of_another_certificate_is_noticed(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    home.operational.key.write_bytes(home.root.key.read_bytes())
    with pytest.raises(AuthorityError) as caught:
        FileAuthority.load(home)
    assert caught.value.code is AuthorityCode.KEY_MISMATCH
