"""Reading a state as a device does that was made on the first day, by python-tuf's own client."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from tuf.api.exceptions import DownloadError, DownloadHTTPError, RepositoryError
from tuf.api.metadata import TargetFile
from tuf.ngclient import FetcherInterface, Updater

from broker.adapters.updates.published import Published
from broker.ports.updates import UpdateCode, UpdateError

_BASE: Final = "https://muster.invalid/"
_NOT_FOUND: Final = 404


class FolderFetcher(FetcherInterface):
    """Fetches from a folder what a client asks for below `_BASE`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = self._folder / unquote(url.removeprefix(_BASE))
        if not path.is_file():
            raise DownloadHTTPError(f"{path.name} isn't there", _NOT_FOUND)
        return iter([path.read_bytes()])


def verify_state(folder: Path, state: Published) -> None:
    """Returns when a client that has nothing but the first root reads every target of `state`
    from `folder`. By this machine's clock.

    Raises:
        UpdateError: VERIFICATION_FAILED.
    """
    with tempfile.TemporaryDirectory() as cache:
        updater = Updater(
            cache, _BASE, fetcher=FolderFetcher(folder), bootstrap=state.files["1.root.json"]
        )
        try:
            updater.refresh()
            for role in (state.targets, *state.models.values()):
                for path, target in role.signed.targets.items():
                    _expect(updater.get_targetinfo(path), target)
        except (RepositoryError, DownloadError, ValueError) as error:
            raise _refused(str(error)) from error


def _expect(found: TargetFile | None, target: TargetFile) -> None:
    if found != target:
        raise _refused(f"{target.path} is found with other contents, or not at all")


def _refused(reason: str) -> UpdateError:
    return UpdateError(
        UpdateCode.VERIFICATION_FAILED,
        f"a client would refuse this, so it wasn't published: {reason}",
        "see 'muster update status'; if its clock is right, discard the staging and start over",
    )
