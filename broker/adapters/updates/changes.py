"""What staged metadata changes, in lines that a person reads before signing."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tuf.api.metadata import DelegatedRole, Root, TargetFile, Targets

from broker.adapters.updates.drafts import revoked_targets
from broker.adapters.updates.metadata import image_of
from broker.adapters.updates.online import director_of
from broker.adapters.updates.roles import Roles


@dataclass(frozen=True)
class Lines:
    """What a role's metadata says, in two heaps."""

    changed: tuple[str, ...]
    """Each begins with `+`, `-` or `!`."""
    unchanged: tuple[str, ...]


def changes_of(role: str, published: Roles, staged: Roles) -> Lines:
    """All that a staged role will say, out of the metadata that will be signed."""
    if role == "root" and staged.root is not None:
        old = None if published.root is None else published.root.signed
        return _in_heaps(_of_root(old, staged.root.signed))
    before = published.of_targets().get(role)
    new = staged.of_targets()[role].signed
    return _in_heaps(_of_targets(None if before is None else before.signed, new))


def _in_heaps(lines: Iterable[str]) -> Lines:
    all_lines = tuple(lines)
    unchanged = tuple(line for line in all_lines if line.startswith("="))
    return Lines(tuple(line for line in all_lines if not line.startswith("=")), unchanged)


def _of_root(old: Root | None, new: Root) -> Iterator[str]:
    for role in ("root", "targets", "snapshot", "timestamp", "director"):
        before = ((), 0) if old is None else _keys(old, role)
        yield from _of_keys(role, before, _keys(new, role))
    if new.consistent_snapshot is not True:
        yield "! consistent snapshots are off"


def _keys(root: Root, role: str) -> tuple[tuple[str, ...], int]:
    if role == "director":
        keyids, threshold = director_of(root)
        return tuple(keyids), threshold
    found = root.roles[role]
    return tuple(found.keyids), found.threshold


def _of_keys(
    role: str, before: tuple[tuple[str, ...], int], after: tuple[tuple[str, ...], int]
) -> Iterator[str]:
    for keyid in after[0]:
        yield f"{'=' if keyid in before[0] else '+'} {role} key {keyid}"
    yield from (f"- {role} key {keyid}" for keyid in before[0] if keyid not in after[0])
    is_same = (after[1], len(after[0])) == (before[1], len(before[0]))
    none_to_spare = role == "root" and after[1] == len(after[0])
    warning = "; when one is lost, no root can follow" if none_to_spare else ""
    yield f"{'=' if is_same else '!'} {role}: {after[1]} of {len(after[0])} keys{warning}"


def _of_targets(old: Targets | None, new: Targets) -> Iterator[str]:
    before = {} if old is None else old.targets
    for path, target in new.targets.items():
        if path not in before:
            yield f"+ {_described(target)}"
        elif before[path] == target:
            yield f"= {_described(target)}"
        else:
            yield f"! {_described(target)} (was sha256 {before[path].hashes.get('sha256')})"
    revoked = revoked_targets(new)
    for path in before:
        if path not in new.targets:
            reason = revoked.get(path, {}).get("reason", "")
            yield f"- {path}{f': {reason}' if reason else ''}"
    yield from _of_delegations(old, new)


def _of_delegations(old: Targets | None, new: Targets) -> Iterator[str]:
    before, after = _delegations(old), _delegations(new)
    for role, said in after.items():
        sign = "+" if role not in before else "=" if before[role] == said else "!"
        yield f"{sign} role {role} {said}"
    yield from (f"- role {role}" for role in before if role not in after)
    if new.delegations is not None and new.delegations.succinct_roles is not None:
        yield "! roles by the hash of a path, which Muster never makes: don't sign this"


def _delegations(targets: Targets | None) -> dict[str, str]:
    if targets is None or targets.delegations is None or targets.delegations.roles is None:
        return {}
    return {name: _delegation(role) for name, role in targets.delegations.roles.items()}


def _delegation(role: DelegatedRole) -> str:
    prefixes = [f"hash:{prefix}*" for prefix in role.path_hash_prefixes or []]
    paths = " ".join([*(role.paths or []), *prefixes])
    keys = ", ".join(keyid[:16] for keyid in role.keyids)
    ends = "" if role.terminating else ", and others after it"
    return f"for {paths}{ends}: {role.threshold} of the keys {keys}"


def _described(target: TargetFile) -> str:
    line = f"{target.path}  {target.length:,} bytes  sha256 {target.hashes.get('sha256')}"
    image = image_of(target)
    if image is None:
        return line
    facts = image.facts
    said = [f"{facts.component} {facts.version}", f"security counter {facts.security_counter}"]
    said.append(f"hardware {', '.join(facts.hw_revs) or 'all'}")
    if facts.min_source_version:
        said.append(f"from {facts.min_source_version}")
    said += [f"needs {component} {version}" for component, version in facts.depends.items()]
    if facts.support_until:
        said.append(f"supported until {facts.support_until:%Y-%m-%d}")
    said += [word for word in (facts.vulnerability_contact, facts.sbom) if word]
    if facts.notes:
        said.append(" ".join(facts.notes.split()))  # a line of its own could imitate another
    return f"{line}  ({'; '.join(said)})"
