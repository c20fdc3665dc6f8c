"""The roles that offline keys sign, published or staged: root, targets and one for each model."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from tuf.api.metadata import Metadata, Root, Targets

from broker.adapters.ca.files import replace_public, sync_folder
from broker.adapters.updates.metadata import (
    MODEL_PREFIX,
    damaged,
    encode_metadata,
    read_metadata,
)


@dataclass(frozen=True)
class Roles:
    """Some of them or all."""

    root: Metadata[Root] | None = None
    targets: Metadata[Targets] | None = None
    models: Mapping[str, Metadata[Targets]] = field(default_factory=dict)
    """By the role's name."""

    def __bool__(self) -> bool:
        return bool(self.root or self.targets or self.models)

    def named(self) -> dict[str, Metadata[Root] | Metadata[Targets]]:
        """Those that are there by name, root first and models last."""
        found: dict[str, Metadata[Root] | Metadata[Targets]] = {}
        if self.root is not None:
            found["root"] = self.root
        if self.targets is not None:
            found["targets"] = self.targets
        return found | dict(sorted(self.models.items()))

    def of_targets(self) -> dict[str, Metadata[Targets]]:
        """As `named`, without root."""
        top = {} if self.targets is None else {"targets": self.targets}
        return top | dict(sorted(self.models.items()))

    def followed_by(self, next_: "Roles") -> "Roles":
        """Those that are in force when `next_` has been published."""
        return Roles(
            next_.root or self.root,
            next_.targets or self.targets,
            {**self.models, **next_.models},
        )

    def with_model(self, role: str, metadata: Metadata[Targets]) -> "Roles":
        """The same with another model's role."""
        return replace(self, models={**self.models, role: metadata})


def load_roles(folder: Path) -> Roles:
    """The roles whose metadata lies in a folder as `<role>.json`.

    Raises:
        UpdateError: REPOSITORY_DAMAGED.
        AuthorityError: a file can't be read.
    """
    names = {path.stem: path for path in sorted(folder.glob("*.json"))}
    root = names.pop("root", None)
    targets = names.pop("targets", None)
    for name, path in names.items():
        if not name.startswith(MODEL_PREFIX):
            raise damaged(f"{path} is the metadata of no role that Muster makes")
    return Roles(
        None if root is None else read_metadata(root, Root),
        None if targets is None else read_metadata(targets, Targets),
        {name: read_metadata(path, Targets) for name, path in names.items()},
    )


def save_roles(folder: Path, roles: Roles) -> None:
    """Writes each, models first: a role that nobody delegates to yet does no harm.

    Raises:
        UpdateError: METADATA_TOO_LARGE; then nothing was written.
        AuthorityError: FILE_UNWRITABLE.
    """
    contents = {name: encode_metadata(found) for name, found in roles.named().items()}
    folder.mkdir(parents=True, exist_ok=True)
    sync_folder(folder.parent)
    for name, content in reversed(contents.items()):
        replace_public(folder / f"{name}.json", content)
