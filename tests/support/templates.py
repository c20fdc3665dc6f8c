"""What is made once in a process and copied for each test: a home's authorities, and a schema.

Making either takes longer than most tests. Homes that are copied have the same authorities; a test
that needs strangers makes a home of its own.
"""

import atexit
import shutil
import tempfile
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from broker.adapters.ca.home import MusterHome
from broker.adapters.ca.init import create_home
from broker.adapters.registry.engine import parsed
from broker.adapters.registry.migrate import migrate


def copied_home(path: Path) -> MusterHome:
    """A home whose brokers are on `localhost`; its keys aren't encrypted."""
    shutil.copytree(_home(), path, symlinks=True)
    return MusterHome(path)


def with_schema(path: Path) -> str:
    """The URL of a new SQLite registry, empty and of the newest schema."""
    path.touch(0o600, exist_ok=False)
    path.write_bytes(_empty_registry())
    return f"sqlite:///{path}"


def prepare(url: str) -> None:
    """Gives a database the newest schema, whether or not it has one."""
    where = parsed(url)
    if where.drivername == "sqlite" and not Path(where.database or "").exists():
        with_schema(Path(where.database or ""))
    else:
        migrate(url)


@cache
def _home() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="muster-home-"))
    atexit.register(shutil.rmtree, folder)
    home = MusterHome(folder / "home")
    create_home(home, hosts=["localhost"], passphrase=None, now=datetime.now(UTC))
    return home.path


@cache
def _empty_registry() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "registry.db"
        migrate(f"sqlite:///{path}")
        return path.read_bytes()
