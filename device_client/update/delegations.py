"""Which delegated role speaks for a path (TUF specification 1.0.34, 4.5)."""

import fnmatch
import hashlib
from collections.abc import Iterator

from device_client.update.metadata import Delegation, Targets


def speaking_for(path: str, targets: Targets) -> Iterator[Delegation]:
    """The roles to ask about `path`, in their order, up to the first that ends the search."""
    for role in targets.delegations.roles if targets.delegations else ():
        if _covers(role, path):
            yield role
            if role.terminating:
                return


def _covers(role: Delegation, path: str) -> bool:
    if role.path_hash_prefixes:
        return hashlib.sha256(path.encode()).hexdigest().startswith(role.path_hash_prefixes)
    return any(_matches(path, pattern) for pattern in role.paths or ())


def _matches(path: str, pattern: str) -> bool:
    """Level by level: a star stands for no slash."""
    parts, patterns = path.split("/"), pattern.split("/")
    return len(parts) == len(patterns) and all(map(fnmatch.fnmatchcase, parts, patterns))
