"""The client for TUF's conformance suite, against a repository of ours; the suite is outside."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.update_repository import MadeRepository
from tests.support.update_workshop import served

CLIENT = Path(__file__).parents[3] / "conformance" / "client.py"


@pytest.fixture
def made() -> MadeRepository:
    made = MadeRepository(now=datetime.now(UTC))
    made.add("meter/image", b"an image")
    made.publish()
    return made


def run(place: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    argv = [sys.executable, str(CLIENT), "--metadata-dir", str(place / "trusted"), *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)


def lay_out(place: Path, made: MadeRepository) -> None:
    for folder in ("trusted", "targets", "site/metadata", "site/targets/meter"):
        (place / folder).mkdir(parents=True)
    for name, data in made.files.items():
        (place / "site" / "metadata" / name).write_bytes(data)
    for path, content in made.images.items():
        sha256 = made.targets.targets[path].hashes["sha256"]
        folder, _, name = path.rpartition("/")
        (place / "site" / "targets" / folder / f"{sha256}.{name}").write_bytes(content)
    (place / "root.json").write_bytes(made.first_root)


def test_downloads_or_says_why_not(tmp_path: Path, made: MadeRepository) -> None:
    lay_out(tmp_path, made)
    assert run(tmp_path, "init", str(tmp_path / "root.json")).returncode == 0
    with served(tmp_path / "site") as base:
        where = ("--metadata-url", f"{base}/metadata", "--target-base-url", f"{base}/targets")
        what = ("--target-dir", str(tmp_path / "targets"), "--target-name", "meter/image")
        done = run(tmp_path, *where, *what, "--days-in-future", "0", "download")
        assert done.returncode == 0, done.stderr
        (found,) = (tmp_path / "targets").iterdir()
        assert found.read_bytes() == b"an image"
        frozen = run(tmp_path, *where, "--days-in-future", "40", "refresh")
    assert frozen.returncode == 1
    assert frozen.stderr.startswith("metadata_expired: ")
