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
from broker.core.records import EnrollmentGroup, Reprovision, RotationKey, Serials
from broker.protocol import names
from broker.protocol.names import ClaimName, GroupName, is_name
from broker.services.problems import Problem, ProblemCode

MAX_GROUP_FILE = 4_194_304
"""Bytes; more than any fleet's groups need, and parsed in a moment."""

MAX_LIFETIME = timedelta(days=3650)
"""As long as the authority that signs them lives."""

MAX_GRACE = timedelta(days=30)
"""A grace is for what is under way; who means longer wants no rotation."""

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
    rotation_key: RotationKey = RotationKey.NEW
    rotation_grace: str = "1h"
    recover_within: str = "30d"


def read_group_file(text: bytes) -> list[EnrollmentGroup]:
    """The groups that the file describes, in its order; a claim certificate is in one at most.

    Raises:
        Problem: GROUP_FILE_INVALID; the message names the group and the field.
    """
    if len(text) > MAX_GROUP_FILE:
        _reject(f"The file has {len(text):,} bytes where {MAX_GROUP_FILE:,} are allowed.")
    groups = [_group(name, table) for name, table in _tables(text).items()]
    _refuse_shared_claims(groups)
    return groups


def _tables(text: bytes) -> dict[str, object]:
    """What stands under `groups`, by name."""
    try:
        tables = tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        _reject(f"The file isn't TOML in UTF-8: {error}.")
    groups = tables.pop("groups", None)
    if tables:
        _reject(f"There is no field {next(iter(tables))!r}; everything stands under groups.")
    if not isinstance(groups, dict) or not groups:
        _reject("The file has no table [groups.NAME].")
    return groups


def _group(name: str, table: object) -> EnrollmentGroup:
    if not is_name(name):
        _reject(f"groups.{name[:80]}: a name has 1 to 64 letters, digits, '_' or '-'.")
    try:
        described = msgspec.convert(table, _Group, strict=True)
    except msgspec.ValidationError as error:
        _reject(_explain(f"groups.{name}", str(error)))
    return EnrollmentGroup(
        name=GroupName(name),
        claim_certificates=frozenset(ClaimName(claim) for claim in described.claim_certificates),
        device_name=_template(name, described.device_name),
        allowed_keys=described.allowed_keys,
        certificate_lifetime=_duration(
            f"groups.{name}.certificate_lifetime", described.certificate_lifetime, MAX_LIFETIME
        ),
        quota=described.quota,
        serials=described.serials,
        reprovision=described.reprovision,
        rotation_key=described.rotation_key,
        rotation_grace=_none_or_duration(
            f"groups.{name}.rotation_grace", described.rotation_grace, MAX_GRACE
        ),
        recover_within=_none_or_duration(
            f"groups.{name}.recover_within", described.recover_within, MAX_LIFETIME
        ),
    )


def _template(group: str, text: str) -> str:
    try:
        parse_template(text)
    except ValueError as error:
        _reject(f"groups.{group}.device_name: {error}.")
    return text


def _duration(field: str, text: str, longest: timedelta) -> timedelta:
    try:
        duration = parse_duration(text)
    except ValueError as error:
        _reject(f"{field}: {error}.")
    if duration > longest:
        _reject(f"{field}: at most {longest.days}d.")
    return duration


def _none_or_duration(field: str, text: str, longest: timedelta) -> timedelta:
    return timedelta() if text in ("0", "0s") else _duration(field, text, longest)


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
_PLACE = re.compile(r" - at `\$(?P<place>\.[a-z_]*)?[^`]*`\Z")


def _explain(group: str, error: str) -> str:
    """The validator's words as a sentence that says where, and what may have been meant."""
    unknown = _UNKNOWN.search(error)
    if unknown is None:
        place = _PLACE.search(error)
        where = place["place"] or "" if place else ""
        return f"{group}{where}: {_PLACE.sub('', error)}."
    known = _Group.__struct_fields__
    close = difflib.get_close_matches(unknown["field"], known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"the fields are {', '.join(known)}."
    return f"{group}: there is no field {unknown['field']!r}; {hint}"


def _reject(message: str) -> NoReturn:
    raise Problem(ProblemCode.GROUP_FILE_INVALID, message, REMEDY)
