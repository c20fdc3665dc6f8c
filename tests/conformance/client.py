"""The client under test for TUF's conformance suite (its CLIENT-CLI.md), over our verifier.

    client.py --metadata-dir DIR init TRUSTED_ROOT
    client.py --metadata-dir DIR --metadata-url URL refresh
    client.py --metadata-dir DIR --metadata-url URL --target-name PATH --target-base-url URL
              --target-dir DIR download

It ends with 0, or with 1 and one line that names the code. See README.md here.
"""

import argparse
import asyncio
import shutil
import sys
import urllib.error
import urllib.parse
import urllib.request
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from device_client.update.codes import UpdateCode, UpdateRefused
from device_client.update.metadata import TargetFile
from device_client.update.repository import Repository
from device_client.update.store import MetadataStore
from device_client.update.trusted import digest

TIMEOUT_S = 60


class WebSource:
    """The repository's files over plain HTTP."""

    def __init__(self, url: str) -> None:
        self._url = url if url.endswith("/") else f"{url}/"

    async def fetch(self, name: str, limit: int) -> bytes | None:
        """As `MetadataSource` says."""
        return await asyncio.to_thread(self._get, name, limit)

    def _get(self, name: str, limit: int) -> bytes | None:
        try:
            with urllib.request.urlopen(  # noqa: S310 - the suite gives the address
                self._url + name, timeout=TIMEOUT_S
            ) as answer:
                return bytes(answer.read(limit + 1))
        except urllib.error.HTTPError as error:
            with error:
                if error.code in (HTTPStatus.NOT_FOUND, HTTPStatus.FORBIDDEN):
                    return None
            raise


def targets_to_fetch(path: str, found: TargetFile, is_consistent: bool) -> str:
    """The name below the targets' address."""
    if not is_consistent:
        return urllib.parse.quote(path)
    folder, slash, name = path.rpartition("/")
    prefix = found.hashes.get("sha256") or next(iter(found.hashes.values()))
    return urllib.parse.quote(f"{folder}{slash}{prefix}.{name}")


def check(data: bytes, found: TargetFile) -> None:
    """Returns when these are the signed bytes."""
    if len(data) > found.length:
        raise UpdateRefused(UpdateCode.IMAGE_TOO_LONG, "The target is longer than signed.")
    hashes_fit = all(digest(name, data) == value for name, value in found.hashes.items())
    if len(data) != found.length or not hashes_fit:
        raise UpdateRefused(UpdateCode.IMAGE_WRONG, "The target isn't the one that was signed.")


def is_there(file: Path, found: TargetFile) -> bool:
    """Whether the target has been fetched before."""
    try:
        check(file.read_bytes(), found)
    except (OSError, UpdateRefused):
        return False
    return True


async def work(options: argparse.Namespace) -> None:
    """Refreshes, and downloads what is asked for."""
    store = MetadataStore(options.metadata_dir, None)
    repository = Repository(store, WebSource(options.metadata_url))
    now = datetime.now(UTC) + timedelta(days=options.days_in_future)
    trusted = await repository.refresh(now)
    for path in options.target_name if options.command == "download" else ():
        found = await repository.find(trusted, path)
        if found is None:
            raise UpdateRefused(UpdateCode.TARGET_UNKNOWN, f"Nobody signed {path}.")
        file = options.target_dir / urllib.parse.quote(path, safe="")
        if is_there(file, found):
            continue
        name = targets_to_fetch(path, found, bool(trusted.root.consistent_snapshot))
        source = WebSource(options.target_base_url)
        data = await source.fetch(name, found.length)
        if data is None:
            raise UpdateRefused(UpdateCode.IMAGE_UNAVAILABLE, f"There is no {name}.")
        check(data, found)
        file.write_bytes(data)


def parser() -> argparse.ArgumentParser:
    """The suite's command line; times are real unless it shifts them."""
    made = argparse.ArgumentParser()
    made.add_argument("--metadata-dir", type=Path, required=True)
    made.add_argument("--metadata-url")
    made.add_argument("--target-name", action="append", default=[])
    made.add_argument("--target-dir", type=Path)
    made.add_argument("--target-base-url")
    made.add_argument("--days-in-future", type=int, default=0)
    commands = made.add_subparsers(dest="command", required=True)
    commands.add_parser("init").add_argument("trusted_root", type=Path)
    commands.add_parser("refresh")
    commands.add_parser("download")
    return made


def main() -> int:
    """One command; the exit status is 0 or 1."""
    options = parser().parse_args()
    try:
        if options.command == "init":
            shutil.copyfile(options.trusted_root, options.metadata_dir / "root.json")
        else:
            asyncio.run(work(options))
    except (UpdateRefused, OSError) as error:
        code = error.stable_code if isinstance(error, UpdateRefused) else "failed"
        print(f"{code}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
