"""The operator's group file: TOML with a table `[groups.NAME]` for each enrollment group."""

import difflib
import re
import tomllib
from datetime import timedelta
from typing import Annotated, NoReturn

import msgspec

from broker.core.durations import parse_duration
from broker.core.keys import KeyType
from broker.core.naming import parse_template
from broker.core.records import EnrollmentGroup, Reprovision, Serials
from broker.protocol import names
from broker.protocol.names import ClaimName, GroupName
from broker.services.problems import Problem, ProblemCode

MAX_GROUP_FILE = 4_194_304
"""Bytes; more than any fleet's groups need, and parsed in a moment."""

MAX_LIFETIME = timedelta(days=3650)
"""As long as the authority that signs them lives."""

DEFAULT_KEYS = frozenset({KeyType.P256, KeyType.P384, KeyType.ED25519})
REMEDY = "Correct the file and run the same command again; nothing was changed."

_Name = Annotated[str, msgspec.Meta(pattern=names.NAME_PATTERN)]


class _Group(msgspec.Struct, forbid_unknown_fields=True):
    device_name: str
    quota: Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000)]
    claim_certificates: frozenset[_Name] = frozenset()
    allowed_keys: Annotated[frozenset[KeyType], msgspec.Meta(min_length=1)] = DEFAULT_KEYS
    certificate_lifetime: str = "90d"
    serials: Serials = Serials.LISTED
    reprovision: Reprovision = Reprovision.REFUSE


class _File(msgspec.Struct, forbid_unknown_fields=True):
    groups: Annotated[dict[_Name, _Group], msgspec.Meta(min_length=1)]


def read_group_file(text: bytes) -> list[EnrollmentGroup]:
    """The groups that the file describes, in its order; a claim certificate is in one at most.

    Raises:
        Problem: GROUP_FILE_INVALID; the message names the group and the field.
    """
    if len(text) > MAX_GROUP_FILE:
        _reject(f"The file has {len(text):,} bytes where {MAX_GROUP_FILE:,} are allowed.")
    try:
        tables = tomllib.loads(text.decode())
        described = msgspec.convert(tables, _File, strict=True)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Problem(
            ProblemCode.GROUP_FILE_INVALID, f"The file isn't TOML in UTF-8: {error}.", REMEDY
        ) from error
    except msgspec.ValidationError as error:
        raise Problem(ProblemCode.GROUP_FILE_INVALID, _explain(str(error)), REMEDY) from error
    groups = [_group(GroupName(name), group) for name, group in described.groups.items()]
    _refuse_shared_claims(groups)
    return groups


def _group(name: GroupName, described: _Group) -> EnrollmentGroup:
    return EnrollmentGroup(
        name=name,
        claim_certificates=frozenset(ClaimName(claim) for claim in described.claim_certificates),
        device_name=_template(name, described.device_name),
        allowed_keys=described.allowed_keys,
        certificate_lifetime=_lifetime(name, described.certificate_lifetime),
        quota=described.quota,
        serials=described.serials,
        reprovision=described.reprovision,
    )


def _template(group: GroupName, text: str) -> str:
    try:
        parse_template(text)
    except ValueError as error:
        _reject(f"Group {group}, field device_name: {error}.")
    return text


def _lifetime(group: GroupName, text: str) -> timedelta:
    try:
        lifetime = parse_duration(text)
    except ValueError as error:
        _reject(f"Group {group}, field certificate_lifetime: {error}.")
    if lifetime > MAX_LIFETIME:
        _reject(f"Group {group}, field certificate_lifetime: at most {MAX_LIFETIME.days}d.")
    return lifetime


def _refuse_shared_claims(groups: list[EnrollmentGroup]) -> None:
    seen: dict[ClaimName, GroupName] = {}
    for group in groups:
        for claim in sorted(group.claim_certificates):
            if claim in seen:
                _reject(
                    f"Claim certificate {claim} is listed in groups {seen[claim]} and "
                    f"{group.name}; a claim certificate belongs to one group."
                )
            seen[claim] = group.name


_UNKNOWN = re.compile(r"Object contains unknown field `(?P<field>[^`]*)`")
_PLACE = re.compile(r" - at `\$\.?(?P<place>[^`]*)`\Z")


def _explain(error: str) -> str:
    """The validator's words as a sentence that says where, and what may have been meant."""
    place = _PLACE.search(error)
    where = f"At {place['place']}: " if place and place["place"] else ""
    unknown = _UNKNOWN.search(error)
    if unknown is None:
        return f"{where}{_PLACE.sub('', error)}."
    known = _Group.__struct_fields__ if where else _File.__struct_fields__
    close = difflib.get_close_matches(unknown["field"], known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"the fields are {', '.join(known)}."
    return f"{where}there is no field {unknown['field']!r}; {hint}"


def _reject(message: str) -> NoReturn:
    raise Problem(ProblemCode.GROUP_FILE_INVALID, message, REMEDY)
