"""The schema of a registry: bringing it to this release's, and refusing what this doesn't know."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from broker.adapters.registry.engine import parsed, reading_engine, writing_engine
from broker.adapters.registry.errors import DATABASE_ERRORS, RegistryCode, translated
from broker.ports.registry import RegistryError

_MIGRATIONS: Final = Path(__file__).parent / "migrations"


def migrate(url: str) -> None:
    """Brings the registry to this release's schema, all or nothing; makes it when it's new.

    Blocks; waits while another writer holds the registry. Running it again changes nothing.

    Raises:
        RegistryError: `schema_newer` when a newer release has migrated it, or the cause.
    """
    with _disposed(writing_engine(url)) as engine, engine.begin() as connection:
        _refuse_newer(connection)
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def check(url: str) -> None:
    """Returns when the registry has exactly this release's schema. Blocks; changes nothing.

    Raises:
        RegistryError: `schema_newer`, `schema_older`, or the cause.
    """
    where = parsed(url)
    if where.drivername == "sqlite" and not Path(where.database or "").exists():
        raise RegistryError(
            RegistryCode.UNAVAILABLE,
            f"There is no registry at {where.database}.",
            "Restore it from your backup, mount the disk that it lies on, or correct its URL.",
        )
    with _disposed(reading_engine(url, 1)) as engine, engine.begin() as connection:
        current = _refuse_newer(connection)
    if current is None:
        raise RegistryError(
            RegistryCode.SCHEMA_OLDER,
            "The registry's database is empty.",
            "Restore it from your backup, correct its URL, or prepare a new one: 'muster migrate'.",
        )
    if current != _known_revisions()[-1]:
        raise RegistryError(
            RegistryCode.SCHEMA_OLDER,
            "The registry's schema is older than this release of Muster.",
            "Make a backup, stop the service and migrate the registry.",
        )


def _refuse_newer(connection: sa.Connection) -> str | None:
    """The revision of the database's schema; none when it has no schema yet."""
    current = MigrationContext.configure(connection).get_current_revision()
    if current is not None and current not in _known_revisions():
        raise RegistryError(
            RegistryCode.SCHEMA_NEWER,
            "The registry's schema is newer than this release of Muster; nothing was changed.",
            "Install the release that migrated it, or a newer one; or restore the backup that"
            " was made before.",
        )
    return current


@cache
def _known_revisions() -> tuple[str, ...]:
    """This release's, the newest last. To read them is to run each migration's file, so: once."""
    scripts = ScriptDirectory.from_config(_config())
    return tuple(script.revision for script in scripts.walk_revisions())[::-1]


def _config() -> Config:
    config = Config()
    # Alembic reads a percent sign in an option as the start of a substitution.
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return config


@contextmanager
def _disposed(engine: sa.Engine) -> Iterator[sa.Engine]:
    try:
        yield engine
    except DATABASE_ERRORS as error:
        raise translated(error) from error
    finally:
        engine.dispose()
