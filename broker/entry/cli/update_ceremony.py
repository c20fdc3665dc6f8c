"""`muster update init`, `renew` and `rotate-root`: who may sign, and for how long."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from broker.core.durations import parse_duration
from broker.core.metadata_lifetime import Lifetimes
from broker.entry.cli.output import note, say
from broker.entry.cli.update_keys import (
    Algorithm,
    AlgorithmOption,
    KeyPassphraseOption,
    NoPassphraseOption,
    new_passphrases,
)
from broker.entry.cli.update_options import update_desk_of
from broker.entry.cli.update_shown import announce_published, show_staged
from broker.operating.updating import Key, KeyReference, KeySet, RootChange, new_key, public_key
from broker.services.problems import Problem, ProblemCode

_PRIVATE = 0o700


class OnlineRole(StrEnum):
    """Whose keys lie in the home."""

    SNAPSHOT = "snapshot"
    TIMESTAMP = "timestamp"
    DIRECTOR = "director"


PublicKeys = Annotated[list[Path] | None, typer.Option(help="A public key's file (.pub).")]


@dataclass(frozen=True)
class _Keys:
    """Public keys, and the private ones that were made just now."""

    public: list[Key]
    private: list[KeyReference]


def init(
    context: typer.Context,
    keys: Annotated[
        Path | None, typer.Option(help="A folder for new root and targets keys; not in the home.")
    ] = None,
    root_keys: Annotated[int, typer.Option(min=1, max=16, help="How many root keys.")] = 3,
    root_threshold: Annotated[int, typer.Option(min=1, help="How many must sign root.")] = 2,
    targets_keys: Annotated[int, typer.Option(min=1, max=16, help="How many targets keys.")] = 2,
    targets_threshold: Annotated[int, typer.Option(min=1, help="How many must sign images.")] = 1,
    root_key_dir: Annotated[
        list[Path] | None,
        typer.Option(help="Folders for the root keys, one medium each; repeated in turn."),
    ] = None,
    root_key: PublicKeys = None,
    targets_key: PublicKeys = None,
    root_expires: str = "365d",
    targets_expires: str = "365d",
    snapshot_expires: str = "14d",
    timestamp_expires: str = "3d",
    algorithm: AlgorithmOption = Algorithm.ED25519,
    key_passphrase_file: KeyPassphraseOption = None,
    no_passphrase: NoPassphraseOption = False,
) -> None:
    """Make the update repository, in a ceremony: new keys for root and targets, or those of people
    who made theirs with 'muster update key new' and gave you the .pub files."""
    desk = update_desk_of(context)
    lifetimes = Lifetimes(
        root=_lifetime(root_expires, "--root-expires"),
        targets=_lifetime(targets_expires, "--targets-expires"),
        snapshot=_lifetime(snapshot_expires, "--snapshot-expires"),
        timestamp=_lifetime(timestamp_expires, "--timestamp-expires"),
    )
    desk.require_none()
    folders = root_key_dir or ([keys] if keys else [])
    _check_threshold("root", root_threshold, len(root_key or ()) or root_keys)
    _check_threshold("targets", targets_threshold, len(targets_key or ()) or targets_keys)
    makes = (0 if root_key else root_keys) + (0 if targets_key else targets_keys)
    _check_folders([*folders, *([keys] if keys else [])], desk.home.path)
    phrases = new_passphrases(
        makes, key_passphrase_file or (), no_passphrase=no_passphrase or not makes
    )
    root = _keys("root", root_key, folders, root_keys, algorithm, phrases)
    rest = phrases[len(root.private) :]
    targets = _keys("targets", targets_key, [keys] if keys else [], targets_keys, algorithm, rest)
    desk.create(
        KeySet(root.public, root_threshold),
        KeySet(targets.public, targets_threshold),
        lifetimes,
        algorithm.value,
    )
    made = [*root.private, *targets.private]
    if made:
        desk.sign(made, desk.staged())
    staged = desk.staged()
    if not all(role.is_complete for role in staged):
        show_staged(staged)
        return
    announce_published(desk.publish())
    _say_next([Path(key.reference) for key in made])


def renew(context: typer.Context) -> None:
    """Stage targets and every model's role for another lifetime; then sign and publish."""
    show_staged(update_desk_of(context).renew())


def rotate_root(
    context: typer.Context,
    add_root_key: PublicKeys = None,
    remove_root_key: Annotated[
        list[str] | None, typer.Option(help="A root key's id, or how it begins.")
    ] = None,
    root_threshold: Annotated[int | None, typer.Option(min=1)] = None,
    add_targets_key: PublicKeys = None,
    remove_targets_key: Annotated[
        list[str] | None, typer.Option(help="A targets key's id, or how it begins.")
    ] = None,
    targets_threshold: Annotated[int | None, typer.Option(min=1)] = None,
    new_online: Annotated[
        list[OnlineRole] | None, typer.Option(help="Make a new key for it, and drop the old one.")
    ] = None,
    algorithm: AlgorithmOption = Algorithm.ED25519,
) -> None:
    """Stage the next root: other keys, other thresholds, or the same for another lifetime. It is
    signed by the old root keys and by the new ones."""
    change = RootChange(
        [public_key(path) for path in add_root_key or ()],
        remove_root_key or (),
        root_threshold,
        [public_key(path) for path in add_targets_key or ()],
        remove_targets_key or (),
        targets_threshold,
        [role.value for role in new_online or ()],
    )
    show_staged(update_desk_of(context).rotate_root(change, algorithm.value))


def _keys(
    role: str,
    given: Sequence[Path] | None,
    folders: Sequence[Path],
    count: int,
    algorithm: Algorithm,
    passphrases: Sequence[bytes | None],
) -> _Keys:
    if given:
        return _Keys([public_key(path) for path in given], [])
    if not folders:
        raise Problem(
            ProblemCode.VALUE_INVALID,
            f"Nothing says where the {role} keys are.",
            f"Name a folder for new ones with --keys DIR, or their .pub files with --{role}-key.",
        )
    public, private = [], []
    for index in range(count):
        path = folders[index % len(folders)] / f"{role}-{index + 1}.key"
        public.append(new_key(path, algorithm.value, passphrases[index]))
        private.append(KeyReference(str(path), passphrases[index]))
    return _Keys(public, private)


def _check_threshold(role: str, threshold: int, keys: int) -> None:
    """Before keys are made that would be of no use."""
    if threshold > keys:
        raise typer.BadParameter(
            f"{threshold} of {keys} keys can't sign", param_hint=f"--{role}-threshold"
        )


def _check_folders(folders: Sequence[Path], home: Path) -> None:
    for folder in folders:
        if folder.resolve().is_relative_to(home.resolve()):
            raise Problem(
                ProblemCode.VALUE_INVALID,
                f"{folder} is in the home: whoever steals this machine would have the keys.",
                "Name a folder on a medium that you take away.",
            )
        folder.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)


def _lifetime(text: str, option: str) -> timedelta:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error


def _say_next(made: Sequence[Path]) -> None:
    for path in made:
        say(str(path))
    note("Take these keys away from this machine, each to its own place, with a copy of each.")
    note("'muster claim-cert create' puts the first root into bundles from now on.")
    note("Next: 'muster update add IMAGE --model MODEL --version 1.0.0 --security-counter 1'.")
