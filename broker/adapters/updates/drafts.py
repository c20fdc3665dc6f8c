"""The next version of each role, as it is changed before anybody signs it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar

from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Key,
    Metadata,
    Root,
    TargetFile,
    Targets,
)

from broker.adapters.updates.failures import missing
from broker.adapters.updates.metadata import REVOKED_FIELD, copy_signed, damaged, model_role
from broker.adapters.updates.roles import Roles
from broker.core.metadata_lifetime import Lifetimes

SignedT = TypeVar("SignedT", Root, Targets)


@dataclass(frozen=True)
class Drafting:
    """What is published, what is staged on top of it, and the time of the change."""

    published: Roles
    staged: Roles
    lifetimes: Lifetimes
    now: datetime

    def model(self, model: str) -> Metadata[Targets]:
        """The draft of a model's role; an empty one for a new model."""
        role = model_role(model)
        staged, published = self.staged.models.get(role), self.published.models.get(role)
        if staged is None and published is None:
            return Metadata(Targets(1, None, self.now + self.lifetimes.targets))
        return self._next(staged, published)

    def targets(self) -> Metadata[Targets]:
        """The draft of targets."""
        return self._next(self.staged.targets, self.published.targets)

    def root(self) -> Metadata[Root]:
        """The draft of root."""
        draft = self._next(self.staged.root, self.published.root)
        draft.signed.expires = self.now + self.lifetimes.root
        return draft

    def current_root(self) -> Root:
        """The root that will be in force."""
        root = self.staged.root or self.published.root
        if root is None:
            raise missing()
        return root.signed

    def _next(
        self, staged: Metadata[SignedT] | None, published: Metadata[SignedT] | None
    ) -> Metadata[SignedT]:
        base = staged or published
        if base is None:
            raise missing()
        signed = copy_signed(base.signed)
        signed.version = 1 if published is None else published.signed.version + 1
        if isinstance(signed, Targets):
            signed.expires = self.now + self.lifetimes.targets
        # What is changed has been signed by nobody.
        return Metadata(signed)


def stage_model(drafting: Drafting, model: str, draft: Metadata[Targets]) -> Roles:
    """The staged roles with the model's, and a delegation to it in targets when it's new."""
    role = model_role(model)
    after = drafting.published.followed_by(drafting.staged)
    staged = drafting.staged.with_model(role, draft)
    if after.targets is None:
        raise missing()
    delegations = after.targets.signed.delegations
    if delegations is not None and delegations.roles and role in delegations.roles:
        return staged
    targets = drafting.targets()
    delegate(targets.signed, drafting.current_root(), [*_delegated(targets.signed), role])
    return replace(staged, targets=targets)


def delegate(targets: Targets, root: Root, roles: Iterable[str]) -> None:
    """Delegates to the models' roles, by the keys and the threshold of root's targets role.

    Each role signs its own model's paths and nothing else, and ends the search for them. `*` in a
    pattern doesn't cross a slash (TUF 1.0, 4.5), so both depths are named.
    """
    signers = root.roles["targets"]
    keys: dict[str, Key] = {keyid: root.keys[keyid] for keyid in signers.keyids}
    delegated = {}
    for role in roles:
        model = role.removeprefix("model-")
        paths = [f"{model}/*/*", f"{model}/*/*/*"]
        delegated[role] = DelegatedRole(
            role, list(signers.keyids), signers.threshold, terminating=True, paths=paths
        )
    targets.delegations = Delegations(keys, delegated)


def redelegate(drafting: Drafting, root: Root) -> Roles:
    """Targets and every model's role once more, for the keys that `root` names.

    Nothing in them changes but the delegations; all have to be signed by those keys.
    """
    targets = drafting.targets()
    names = _delegated(targets.signed)
    delegate(targets.signed, root, names)
    models = {role: drafting.model(role.removeprefix("model-")) for role in names}
    return replace(drafting.staged, targets=targets, models=models)


def revoke_target(draft: Targets, path: str, reason: str, now: datetime) -> TargetFile:
    """Takes a target out, and remembers it in the signed metadata. Returns what it was."""
    target = draft.targets.pop(path)
    noted = {"sha256": target.hashes["sha256"], "at": f"{now:%Y-%m-%dT%H:%M:%SZ}"}
    if reason:
        noted["reason"] = reason
    revoked = revoked_targets(draft)
    draft.unrecognized_fields[REVOKED_FIELD] = {**revoked, path: noted}
    return target


def revoked_targets(role: Targets) -> Mapping[str, Mapping[str, str]]:
    """The targets that were taken out of a role, by path.

    Raises:
        UpdateError: REPOSITORY_DAMAGED.
    """
    found = role.unrecognized_fields.get(REVOKED_FIELD, {})
    if not isinstance(found, dict):
        raise damaged(f"{REVOKED_FIELD} isn't an object")
    return found


def _delegated(targets: Targets) -> list[str]:
    if targets.delegations is None or targets.delegations.roles is None:
        return []
    return list(targets.delegations.roles)
