"""Our verifier against python-tuf's: the same metadata, the same verdict.

Where the metadata is of the right types, both must agree at each step. Where it isn't, ours may be
the stricter one, by METADATA_MALFORMED alone, and never the laxer. Left out is what is ours alone:
a key whose id isn't its hash, or of a kind that isn't known, counts for nothing, where python-tuf
counts the one and refuses all the metadata for the other.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from securesystemslib.formats import encode_canonical
from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import RepositoryError
from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet
from tuf.ngclient.config import EnvelopeType

from device_client.update import canonical
from device_client.update.codes import UpdateCode, UpdateRefused
from device_client.update.trusted import Trusted
from tests.support.update_repository import NOW, MadeRepository

Files = dict[str, Any]
CHAIN = ("2.root.json", "timestamp.json", "1.snapshot.json", "1.targets.json", "1.meters.json")
UPWARDS = {
    "1.meters.json": "1.snapshot.json",
    "1.targets.json": "1.snapshot.json",
    "1.snapshot.json": "timestamp.json",
}


def made_repository() -> tuple[MadeRepository, list[CryptoSigner]]:
    """A repository in its second root, and the signers of the first."""
    made = MadeRepository(threshold=2)
    before = made.signers["root"]
    made.rotate("root", "timestamp")
    role = made.delegate("meters", ["meter/*/image"])
    made.add("meter/2/image", b"an image", to=role)
    made.add("other", b"another")
    made.targets.version = made.snapshot.version = made.timestamp.version = 0
    role.version = 1
    made.publish()
    return made, before


MADE, FIRST_SIGNERS = made_repository()


@dataclass(frozen=True)
class Verdict:
    """How many files were accepted, and the code of the refusal that ended it."""

    accepted: int
    code: UpdateCode | None = None


def steps(files: dict[str, bytes], verifier: Any) -> list[Callable[[], object]]:
    return [
        lambda: verifier.update_root(files[CHAIN[0]]),
        lambda: verifier.update_timestamp(files[CHAIN[1]]),
        lambda: verifier.update_snapshot(files[CHAIN[2]]),
    ]


def ours(files: dict[str, bytes], now: datetime) -> Verdict:
    trusted = Trusted(MADE.first_root, now)
    following: list[Callable[[], object]] = [
        *steps(files, trusted),
        lambda: trusted.update_targets("targets", "root", files[CHAIN[3]]),
        lambda: trusted.update_targets("meters", "targets", files[CHAIN[4]]),
    ]
    following.insert(1, trusted.check_root)
    for number, step in enumerate(following):
        try:
            step()
        except UpdateRefused as error:
            return Verdict(number - (number > 1) if number else 0, error.why)
    return Verdict(len(CHAIN))


def theirs(files: dict[str, bytes], now: datetime) -> Verdict:
    trusted = TrustedMetadataSet(MADE.first_root, EnvelopeType.METADATA)
    trusted.reference_time = now
    following: list[Callable[[], object]] = [
        *steps(files, trusted),
        lambda: trusted.update_delegated_targets(files[CHAIN[3]], "targets", "root"),
        lambda: trusted.update_delegated_targets(files[CHAIN[4]], "meters", "targets"),
    ]
    for number, step in enumerate(following):
        try:
            step()
        # ValueError: a delegation that isn't there any more (it tells its caller so).
        except (RepositoryError, ValueError):
            return Verdict(number)
    return Verdict(len(CHAIN))


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """All paths to values inside."""
    found = [path] if path else []
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            found += places(item, (*path, key))
    return found


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def sign_again(files: Files, name: str, *, link: bool) -> None:
    """Makes the file genuine again, and with `link` all that name it, too."""
    kind = name.split(".")[-2]
    signers = MADE.signers[kind]
    if kind == "root":
        signers = [*signers, *FIRST_SIGNERS]
    text = encode_canonical(files[name]["signed"])
    assert text is not None
    files[name]["signatures"] = [
        {"keyid": signature.keyid, "sig": signature.signature}
        for signature in (signer.sign(text.encode()) for signer in signers)
    ]
    if link and name in UPWARDS:
        upper = files[UPWARDS[name]]
        data = as_bytes(files[name])
        meta = upper["signed"]["meta"][f"{kind}.json"]
        meta["length"], meta["hashes"] = len(data), {"sha256": sha256(data).hexdigest()}
        sign_again(files, UPWARDS[name], link=True)


def as_bytes(value: Any) -> bytes:
    return json.dumps(value).encode()


def published() -> Files:
    files = {name: json.loads(MADE.files[name]) for name in CHAIN}
    for name in reversed(CHAIN):
        sign_again(files, name, link=True)
    return files


CLOCKS = st.sampled_from([0, 3, 7, 8, 31, 400]).map(lambda days: NOW + timedelta(days=days))
VALUES: st.SearchStrategy[Any] = st.sampled_from(
    [None, 0, 1, 2, 3, -1, "", "x", "0", [], {}, 1.5, NOW.strftime("%Y-%m-%dT%H:%M:%SZ")]
)
"""No booleans in the place of numbers: python-tuf takes `true` for 1."""


def shifted(value: Any, by: int) -> Any:
    """A value of the same type and form that means something else."""
    match value:
        case bool():
            return not value
        case int():
            return value + by
        case str() if value.endswith("Z") and value[:2] == "20":
            moment = datetime.fromisoformat(value) + timedelta(days=200 * by)
            return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
        case str() if len(value) >= 64 and value.isalnum():
            return ("0" if value[0] != "0" else "1") + value[1:]
        case _:
            return value


@given(data=st.data(), now=CLOCKS)
@settings(max_examples=200)
def test_same_verdict_on_typed_changes(data: st.DataObject, now: datetime) -> None:
    files = published()
    for _ in range(data.draw(st.integers(0, 3), "changes")):
        name = data.draw(st.sampled_from(CHAIN), "file")
        part = data.draw(st.sampled_from(["signed", "signed", "signatures"]), "part")
        spots = [path for path in places(files[name][part]) if is_fair(part, path)]
        if not spots:
            continue
        path = data.draw(st.sampled_from(spots), "place")
        holder = at(files[name][part], path[:-1])
        holder[path[-1]] = shifted(holder[path[-1]], data.draw(st.sampled_from([-1, 1, 2]), "by"))
        if isinstance(holder, list) and data.draw(st.booleans(), "less"):
            holder.pop()
        if part == "signed" and data.draw(st.booleans(), "genuine"):
            sign_again(files, name, link=data.draw(st.booleans(), "linked"))
    raw = {name: as_bytes(value) for name, value in files.items()}
    found = ours(raw, now)
    assert found.accepted == theirs(raw, now).accepted, found


@given(data=st.data(), now=CLOCKS)
@settings(max_examples=200)
def test_never_laxer_on_wild_changes(data: st.DataObject, now: datetime) -> None:
    files = published()
    name = data.draw(st.sampled_from(CHAIN), "file")
    path = data.draw(st.sampled_from(places(files[name])), "place")
    holder = at(files[name], path[:-1])
    if data.draw(st.booleans(), "gone"):
        del holder[path[-1]]
    else:
        holder[path[-1]] = data.draw(VALUES, "value")
    if data.draw(st.booleans(), "genuine") and is_encodable(files[name]):
        sign_again(files, name, link=data.draw(st.booleans(), "linked"))
    raw = {each: as_bytes(value) for each, value in files.items()}
    found, expected = ours(raw, now), theirs(raw, now)
    if changes_key(path):
        return
    if found.code is not UpdateCode.METADATA_MALFORMED:
        assert found.accepted == expected.accepted, (found, expected)
    assert found.accepted <= expected.accepted, (found, expected)


@given(text=st.text(max_size=8), numbers=st.lists(st.integers()), flag=st.booleans())
def test_same_canonical_form(text: str, numbers: list[int], flag: bool) -> None:
    value = {text: numbers, "b": [None, flag, {text: text}], "a": {}}
    expected = encode_canonical(value)
    assert expected is not None
    assert canonical.encode(value) == expected.encode()


def is_fair(part: str, path: tuple[Any, ...]) -> bool:
    """Not inside a key, whose id would lie."""
    return not changes_key((part, *path)) and not (part == "signatures" and path[-1] == "keyid")


def changes_key(path: tuple[Any, ...]) -> bool:
    return "keys" in path


def is_encodable(value: Any) -> bool:
    return "signed" in value and "1.5" not in json.dumps(value)
