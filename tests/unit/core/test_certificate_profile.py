"""The table of profiles, and the rules that read it."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.certificate_profile import (
    BACKDATING,
    PROFILES,
    AlternativeName,
    ExtendedUse,
    KeyUse,
    Profile,
    Validity,
    alternative_uri,
    validity,
)

NOW = datetime(2026, 5, 1, 12, 0, 0, 123_456, tzinfo=UTC)

authorities = [profile for profile in Profile if PROFILES[profile].is_authority]
leaves = [profile for profile in Profile if not PROFILES[profile].is_authority]
issued = [profile for profile in Profile if PROFILES[profile].issuer is not None]

moments = st.datetimes(
    min_value=datetime(2000, 1, 1),  # noqa: DTZ001 - hypothesis adds the zone
    max_value=datetime(2200, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)


@st.composite
def validities(draw: st.DrawFn) -> Validity:
    begin = draw(moments)
    length = draw(st.timedeltas(min_value=timedelta(seconds=2), max_value=timedelta(days=40_000)))
    return Validity(begin, begin + length)


def test_every_profile_has_its_row() -> None:
    assert set(PROFILES) == set(Profile)


def test_the_anchors_are_three() -> None:
    assert {profile for profile in Profile if PROFILES[profile].issuer is None} == {
        Profile.ROOT,
        Profile.CLAIM_CA,
        Profile.INFRASTRUCTURE_CA,
    }


@pytest.mark.parametrize("profile", authorities)
def test_an_authority_signs_and_does_nothing_else(profile: Profile) -> None:
    row = PROFILES[profile]
    assert row.key_uses == {KeyUse.CERTIFICATE_SIGN, KeyUse.CRL_SIGN}
    assert row.alternative_name is AlternativeName.NONE


@pytest.mark.parametrize("profile", leaves)
def test_a_leaf_has_one_purpose_and_signs_no_certificate(profile: Profile) -> None:
    row = PROFILES[profile]
    assert row.key_uses == {KeyUse.DIGITAL_SIGNATURE}
    assert len(row.extended_uses) == 1
    assert row.alternative_name is not AlternativeName.NONE


def test_only_brokers_are_servers() -> None:
    servers = [leaf for leaf in leaves if ExtendedUse.SERVER in PROFILES[leaf].extended_uses]
    assert servers == [Profile.BROKER_SERVER]


def test_only_the_infrastructure_authority_can_make_servers() -> None:
    able = {
        profile
        for profile in authorities
        if ExtendedUse.SERVER in PROFILES[profile].extended_uses
        or not PROFILES[profile].extended_uses
    }
    # The root sets no limit, but what stands below it does.
    assert able == {Profile.INFRASTRUCTURE_CA, Profile.ROOT}


@pytest.mark.parametrize("profile", issued)
def test_an_issuer_covers_what_it_issues(profile: Profile) -> None:
    row = PROFILES[profile]
    assert row.issuer is not None
    issuer = PROFILES[row.issuer]
    assert issuer.path_length is not None
    assert issuer.path_length > (-1 if row.path_length is None else row.path_length)
    assert not issuer.extended_uses or row.extended_uses <= issuer.extended_uses
    assert row.lifetime <= issuer.lifetime


@given(now=moments, profile=st.sampled_from(Profile))
def test_a_validity_begins_a_little_earlier_and_lasts_the_profiles_time(
    now: datetime, profile: Profile
) -> None:
    valid = validity(profile, now)
    whole = now.replace(microsecond=0)
    assert whole - BACKDATING - timedelta(seconds=1) <= valid.not_before <= now - BACKDATING
    assert valid.not_after == whole + PROFILES[profile].lifetime


def test_the_caller_may_choose_the_lifetime() -> None:
    hour = timedelta(hours=1)
    assert validity(Profile.DEVICE, NOW, hour).not_after == NOW.replace(microsecond=0) + hour


@given(certificate=validities(), issuer=validities())
def test_nothing_outlives_or_precedes_its_issuer(certificate: Validity, issuer: Validity) -> None:
    overlap = (
        certificate.not_before < issuer.not_after and issuer.not_before < certificate.not_after
    )
    if not overlap:
        with pytest.raises(ValueError, match="end before it begins"):
            certificate.within(issuer)
        return
    cut = certificate.within(issuer)
    assert max(certificate.not_before, issuer.not_before) == cut.not_before
    assert min(certificate.not_after, issuer.not_after) == cut.not_after
    assert cut.within(issuer) == cut


def test_a_time_without_zone_is_refused() -> None:
    naive = datetime(2026, 5, 1)  # noqa: DTZ001 - what is refused
    with pytest.raises(ValueError, match="not_before has no time zone"):
        Validity(naive, NOW)
    with pytest.raises(ValueError, match="not_after has no time zone"):
        Validity(NOW, naive)


def test_an_empty_validity_is_refused() -> None:
    with pytest.raises(ValueError, match="end before it begins"):
        Validity(NOW, NOW + timedelta(microseconds=1))


def test_zones_are_compared_by_their_moment() -> None:
    east = timezone(timedelta(hours=5))
    with pytest.raises(ValueError, match="end before it begins"):
        Validity(NOW, (NOW + timedelta(hours=2)).replace(tzinfo=east))


def test_the_uri_tells_kind_and_name() -> None:
    assert alternative_uri(Profile.DEVICE, "lamp_7") == "urn:muster:device:lamp_7"
    assert alternative_uri(Profile.CLAIM, "-a") == "urn:muster:claim:-a"
    assert (
        alternative_uri(Profile.SERVICE_CLIENT, "muster-service-fleet")
        == "urn:muster:service:muster-service-fleet"
    )
