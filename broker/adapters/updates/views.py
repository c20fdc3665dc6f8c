"""The repository as an operator is shown it."""

from collections.abc import Iterator
from datetime import datetime

from broker.adapters.updates.changes import changes_of
from broker.adapters.updates.metadata import image_of
from broker.adapters.updates.online import DIRECTOR, director_of
from broker.adapters.updates.published import Published
from broker.adapters.updates.roles import Roles
from broker.adapters.updates.signatures import digest_of, needs_of
from broker.core.metadata_lifetime import Lifetimes, is_lapsing, support_state
from broker.core.update_views import RepositoryView, RoleView, StagedRole, TargetView


def staged_view(published: Roles, staged: Roles) -> tuple[StagedRole, ...]:
    """Every staged role, with what it changes and whose signatures it needs."""
    found = []
    for role, metadata in staged.named().items():
        signed = metadata.signed
        lines = changes_of(role, published, staged)
        needs = needs_of(role, published, staged)
        found.append(
            StagedRole(
                role,
                signed.version,
                signed.expires,
                needs,
                lines.changed,
                lines.unchanged,
                digest_of(metadata),
            )
        )
    return tuple(found)


def repository_view(
    state: Published | None, staged: Roles, lifetimes: Lifetimes, now: datetime
) -> RepositoryView:
    """The whole of it."""
    published = Roles() if state is None else state.roles
    return RepositoryView(
        () if state is None else tuple(_roles(state, lifetimes, now)),
        staged_view(published, staged),
        () if state is None else tuple(_targets(state, now)),
    )


def _roles(state: Published, lifetimes: Lifetimes, now: datetime) -> Iterator[RoleView]:
    root = state.root.signed
    delegations = state.targets.signed.delegations
    delegated = {} if delegations is None else delegations.roles or {}
    online = {"snapshot": state.snapshot.signed, "timestamp": state.timestamp.signed}
    offline = {role: found.signed for role, found in state.roles.named().items()}
    for role, signed in (offline | online).items():
        by = root.roles.get(role) or delegated[role]
        keys = (tuple(by.keyids), by.threshold)
        ends = (is_lapsing(signed.expires, lifetimes.of(role), now), signed.expires <= now)
        yield RoleView(role, signed.version, signed.expires, *keys, *ends)
    directors, threshold = director_of(root)
    ends = (is_lapsing(root.expires, lifetimes.root, now), root.expires <= now)
    yield RoleView(DIRECTOR, root.version, root.expires, tuple(directors), threshold, *ends)


def _targets(state: Published, now: datetime) -> Iterator[TargetView]:
    for role in state.models.values():
        for path, target in sorted(role.signed.targets.items()):
            image = image_of(target)
            if image is not None:
                support = support_state(image.facts, now)
                yield TargetView(path, image.sha256, target.length, image.facts, support)
