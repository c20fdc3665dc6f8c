"""What is staged: changed by commands, carried to the offline keys and back."""

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
from tuf.api.metadata import TargetFile

from broker.adapters.updates.drafts import Drafting, revoke_target, revoked_targets, stage_model
from broker.adapters.updates.images import measure, stage_image
from broker.adapters.updates.layout import UpdateFolders
from broker.adapters.updates.metadata import image_of, model_role, target_of
from broker.adapters.updates.roles import Roles, load_roles, save_roles
from broker.adapters.updates.signatures import merge
from broker.core.image_policy import Image, ImageRefused, Objection, admit
from broker.ports.updates import UpdateCode, UpdateError
from broker.protocol.updates import ImageFacts, TargetPath

_CODES = {
    Objection.INVALID: UpdateCode.IMAGE_INVALID,
    Objection.EXISTS: UpdateCode.IMAGE_EXISTS,
    Objection.COUNTER_TOO_LOW: UpdateCode.COUNTER_TOO_LOW,
}
_REMEDIES = {
    Objection.INVALID: "correct what is said of the image",
    Objection.EXISTS: "give the image a version of its own",
    Objection.COUNTER_TOO_LOW: "raise it, or say --allow-lower-counter if no device ran the former",
}
_STAGE_AGAIN = "run 'muster update discard', and stage it again"
_ONLY_STAGED = (
    "it is staged, not published: if it was added wrongly, run 'muster update discard', which "
    "forgets all that is staged, and add it again; else give this one a version of its own"
)
_NAME_RULE = "is made of 1 to 64 letters, digits, '-' and '_'"
_VERSION_RULE = "is one to four numbers and perhaps a pre-release, such as 1.4, 2026.06 or 2.0-rc.1"
_RULES = {
    "$.model": f"a model {_NAME_RULE}",
    "$.component": f"a component {_NAME_RULE}",
    "$.hw_revs[0]": f"a hardware revision {_NAME_RULE}",
    "$.version": f"a version {_VERSION_RULE}",
    "$.min_source_version": f"the oldest source version {_VERSION_RULE}",
    "$.depends[...]": f"a version that it depends on {_VERSION_RULE}",
    "$.security_counter": "a security counter is a number from 0 to 2,147,483,648",
}


@dataclass(frozen=True)
class NewImage:
    """An image to be added. Its target path is made up unless it is given."""

    file: Path
    facts: ImageFacts
    path: str | None = None
    sbom: Path | None = None
    allow_lower_counter: bool = False


def load_staged(folders: UpdateFolders, published: Roles) -> Roles:
    """The staged roles, without those that a killed publication has put in force already.

    Raises:
        UpdateError: STAGING_IN_THE_WAY when it is damaged, or something else has been published
            meanwhile.
        AuthorityError: a file can't be read.
    """
    try:
        staged = load_roles(folders.staged_metadata)
    except UpdateError as error:
        # No reason to go back to a backup: what is published is whole.
        raise UpdateError(UpdateCode.STAGING_IN_THE_WAY, str(error), _STAGE_AGAIN) from error
    known = published.named()
    left = {
        role: metadata
        for role, metadata in staged.named().items()
        if role not in known or metadata.signed_bytes != known[role].signed_bytes
    }
    stale = [
        role
        for role, metadata in left.items()
        if role in known and metadata.signed.version <= known[role].signed.version
    ]
    if stale:
        raise UpdateError(
            UpdateCode.STAGING_IN_THE_WAY,
            f"what is staged of {', '.join(stale)} is older than what is published",
            _STAGE_AGAIN,
        )
    return Roles(
        staged.root if "root" in left else None,
        staged.targets if "targets" in left else None,
        {role: metadata for role, metadata in staged.models.items() if role in left},
    )


def add_image(drafting: Drafting, folders: UpdateFolders, new: NewImage) -> Roles:
    """The staged roles with the image, whose file is in the staging on return. Adding exactly the
    same once more changes nothing but the time.

    Raises:
        UpdateError: IMAGE_INVALID, IMAGE_EXISTS, COUNTER_TOO_LOW, FILE_UNREADABLE.
        OSError: the file can't be copied.
    """
    facts = _checked(new.facts)
    content = measure(new.file)
    path = _checked_path(new.path or _default_path(facts, new.file.name), facts.model)
    if new.sbom is not None:
        sbom = _checked_path(f"{path.rpartition('/')[0]}/{new.sbom.name}", facts.model)
        facts = replace(facts, sbom=sbom)
    image = Image(path, content.sha256, facts)
    draft = drafting.model(facts.model)
    published = drafting.published.models.get(model_role(facts.model))
    in_force = {} if published is None else published.signed.targets
    _admit(image, draft.signed.targets, in_force, new.allow_lower_counter)
    if path in revoked_targets(draft.signed):
        raise _refused(Objection.EXISTS, f"{path} was revoked")
    content = stage_image(folders, new.file, path)
    draft.signed.targets[path] = target_of(path, content.sha256, content.length, facts)
    if new.sbom is not None and facts.sbom is not None:
        bill = stage_image(folders, new.sbom, facts.sbom)
        draft.signed.targets[facts.sbom] = target_of(facts.sbom, bill.sha256, bill.length, None)
    return stage_model(drafting, facts.model, draft)


def revoke_image(drafting: Drafting, named: str, reason: str) -> tuple[Roles, list[str]]:
    """The staged roles without the targets that are named by path or by hash, and their paths.

    Raises:
        UpdateError: IMAGE_UNKNOWN.
    """
    after = drafting.published.followed_by(drafting.staged)
    for role in after.models:
        model = role.removeprefix("model-")
        draft = drafting.model(model)
        paths = [
            path
            for path, target in draft.signed.targets.items()
            if named in (path, target.hashes["sha256"])
        ]
        if not paths:
            continue
        for path in paths:
            target = revoke_target(draft.signed, path, reason, drafting.now)
            _drop_bill(draft.signed.targets, image_of(target))
        return stage_model(drafting, model, draft), paths
    raise UpdateError(
        UpdateCode.IMAGE_UNKNOWN,
        f"no target is named '{named}'",
        "give its path or its SHA-256; 'muster update status' lists them",
    )


def renew_roles(drafting: Drafting) -> Roles:
    """The staged roles with targets and every model's role for another lifetime."""
    after = drafting.published.followed_by(drafting.staged)
    models = {role: drafting.model(role.removeprefix("model-")) for role in after.models}
    return Roles(drafting.staged.root, drafting.targets(), models)


def export_staging(folder: Path, published: Roles, staged: Roles) -> None:
    """Writes what offline keys sign, and what is published for comparison, into a new folder.

    Raises:
        OSError, AuthorityError: it can't be written, or isn't new.
    """
    if folder.exists():
        raise UpdateError(
            UpdateCode.FILE_UNWRITABLE, f"'{folder}' exists", "name a folder that doesn't exist yet"
        )
    folder.mkdir()
    save_roles(folder / "metadata", staged)
    save_roles(folder / "published", published)


def load_exported(folder: Path) -> tuple[Roles, Roles]:
    """What was published and what is staged, of a folder that `export_staging` made.

    Raises:
        UpdateError: NOTHING_STAGED.
    """
    staged = load_roles(folder / "metadata")
    if not staged:
        raise UpdateError(
            UpdateCode.NOTHING_STAGED,
            f"'{folder}' holds nothing to sign",
            "name a folder that 'muster update export-staging' made",
        )
    return load_roles(folder / "published"), staged


def save_exported(folder: Path, staged: Roles) -> None:
    """Writes back what was signed."""
    save_roles(folder / "metadata", staged)


def import_signatures(folder: Path, published: Roles, staged: Roles) -> list[tuple[str, str]]:
    """Adds to `staged` the signatures that were made in an exported folder; see `merge`."""
    _, signed = load_exported(folder)
    return merge(staged, signed, published)


def discard_staging(folders: UpdateFolders) -> None:
    """Forgets everything that is staged."""
    if folders.staging.exists():
        shutil.rmtree(folders.staging)


def _checked(facts: ImageFacts) -> ImageFacts:
    """As every device will read them."""
    try:
        plain = msgspec.json.encode(facts)
        return msgspec.json.decode(plain, type=ImageFacts)
    except msgspec.ValidationError as error:
        raise _refused(Objection.INVALID, _in_words(str(error))) from error


def _in_words(said: str) -> str:
    """What the operator can do something with, where a pattern says it to programs."""
    field = re.sub(r"\[\d+\]", "[0]", said.rpartition("`$")[2].rstrip("`"))
    return _RULES.get(f"${field}", said) if "length" not in said else said


def _default_path(facts: ImageFacts, name: str) -> str:
    if facts.component == "main":
        return f"{facts.model}/{facts.version}/{name}"
    return f"{facts.model}/{facts.component}/{facts.version}/{name}"


def _checked_path(path: str, model: str) -> str:
    try:
        msgspec.convert(path, TargetPath)
    except msgspec.ValidationError as error:
        message = (
            f"{path!r} can't be a target's path: it is folders and a file's name of letters, "
            "digits and '_.+-', none beginning with '.', '+' or '-'"
        )
        raise _refused(Objection.INVALID, message) from error
    parts = path.split("/")
    if parts[0] != model or len(parts) not in (3, 4):
        raise _refused(
            Objection.INVALID, f"{path!r} isn't {model}/VERSION/FILE or {model}/PART/VERSION/FILE"
        )
    return path


def _admit(
    image: Image,
    targets: Mapping[str, TargetFile],
    published: Mapping[str, TargetFile],
    allow_lower_counter: bool,
) -> None:
    try:
        admit(image, _images(targets), allow_lower_counter=allow_lower_counter)
    except ImageRefused as error:
        if error.objection is Objection.EXISTS and _is_admitted(image, published):
            raise UpdateError(UpdateCode.IMAGE_EXISTS, str(error), _ONLY_STAGED) from error
        raise _refused(error.objection, str(error)) from error


def _is_admitted(image: Image, published: Mapping[str, TargetFile]) -> bool:
    """Whether what is published alone would bear the image."""
    try:
        admit(image, _images(published), allow_lower_counter=True)
    except ImageRefused:
        return False
    return True


def _images(targets: Mapping[str, TargetFile]) -> list[Image]:
    return [image for target in targets.values() if (image := image_of(target)) is not None]


def _drop_bill(targets: dict[str, TargetFile], image: Image | None) -> None:
    """Takes out a revoked image's bill of materials, unless another image has the same."""
    if image is None or image.facts.sbom is None:
        return
    others = (image_of(target) for target in targets.values())
    if not any(other is not None and other.facts.sbom == image.facts.sbom for other in others):
        targets.pop(image.facts.sbom, None)


def _refused(objection: Objection, message: str) -> UpdateError:
    return UpdateError(_CODES[objection], message, _REMEDIES[objection])
