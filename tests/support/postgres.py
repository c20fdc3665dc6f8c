"""A PostgreSQL server of our own: temporary, reachable by its socket file only, durable as a real
one. Each process that asks has its own, so that tests may run side by side."""

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import sql

from broker.adapters.registry.migrate import migrate

_DEADLINE_S: Final = 60.0
_PAUSE_S: Final = 0.02
_OWNER: Final = "muster"
_SETTINGS: Final = {
    "listen_addresses": "",
    "fsync": "on",
    "synchronous_commit": "on",
    "shared_buffers": "64MB",
    "max_connections": "50",
}
_TABLES: Final = (
    b"SELECT tablename FROM pg_tables"
    b" WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
)
_RESTART: Final = (
    b"SELECT setval(format('%I.%I', schemaname, sequencename)::regclass, start_value, false)"
    b" FROM pg_sequences WHERE schemaname = 'public'"
)


def postgres_programs() -> Path:
    """The directory that holds `initdb` and `postgres`.

    Raises:
        RuntimeError: PostgreSQL isn't installed.
    """
    on_path = [Path(part) for part in os.environ.get("PATH", "").split(os.pathsep) if part]
    links = [Path(found).resolve().parent for found in [shutil.which("initdb")] if found]
    distribution = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for directory in [*on_path, *links, *distribution]:
        if (directory / "initdb").exists() and (directory / "postgres").exists():
            return directory
    raise RuntimeError(
        "The tests need PostgreSQL's initdb and postgres: install the package postgresql."
    )


@dataclass
class PostgresCluster:
    """A server and its databases; `home` holds everything it writes."""

    home: Path
    password: str
    _server: subprocess.Popen[bytes] | None = None
    _databases: int = 0
    _template: str | None = None

    def start(self) -> None:
        """Starts the server and waits until it answers."""
        settings = {**_SETTINGS, "unix_socket_directories": str(self.home)}
        arguments = [f"-c{name}={value}" for name, value in settings.items()]
        with (self.home / "server.log").open("ab") as log:
            self._server = subprocess.Popen(
                [postgres_programs() / "postgres", "-D", self.home / "data", *arguments],
                stdout=log,
                stderr=log,
                **_as_postgres(),
            )
        self._wait_until_it_answers()

    def stop(self) -> None:
        """Ends every connection and the server; what was committed is on the disk."""
        if self._server is None:
            return
        self._server.send_signal(signal.SIGINT)
        try:
            self._server.wait(_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._server.send_signal(signal.SIGQUIT)
            self._server.wait(_DEADLINE_S)
        self._server = None

    def restart(self) -> None:
        """Stops and starts."""
        self.stop()
        self.start()

    def discard(self) -> None:
        """Ends the server at once; its data are of no more use."""
        if self._server is not None:
            self._server.send_signal(signal.SIGQUIT)
            self._server.wait(_DEADLINE_S)
            self._server = None

    def new_database(self) -> str:
        """The URL of a fresh, empty database that a common user owns."""
        self._databases += 1
        name = f"registry_{self._databases}"
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name} OWNER {_OWNER}".encode())
        return self.url(name)

    def new_registry(self) -> str:
        """The URL of a fresh database with the newest schema; quicker than migrating each."""
        if self._template is None:
            self._template = self.new_database()
            migrate(self._template)
        self._databases += 1
        name, template = f"registry_{self._databases}", _name(self._template)
        with self.connect() as connection:
            made = f"CREATE DATABASE {name} OWNER {_OWNER} TEMPLATE {template}"
            connection.execute(made.encode())
        return self.url(name)

    def without_rows(self, url: str) -> str:
        """The registry of `url`, empty again; much quicker than a new one."""
        with self.connect(_name(url)) as connection:
            # Foreign keys ask for an order that nothing but this would have to know.
            connection.execute(b"SET session_replication_role = replica")
            for (table,) in connection.execute(_TABLES).fetchall():
                connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table)))
            connection.execute(_RESTART)
        return url

    def emptied(self, url: str) -> str:
        """The database of `url`, empty again; much quicker than a new one."""
        with self.connect(_name(url)) as connection:
            connection.execute(b"DROP SCHEMA public CASCADE")
            connection.execute(f"CREATE SCHEMA public AUTHORIZATION {_OWNER}".encode())
        return url

    def url(self, database: str, password: str | None = None) -> str:
        """How the common user reaches the database."""
        return f"postgresql://{_OWNER}:{password or self.password}@/{database}?host={self.home}"

    def connect(self, database: str = "postgres") -> psycopg.Connection[Any]:
        """A connection as the superuser, without a transaction around each statement."""
        return psycopg.connect(
            host=str(self.home),
            user="postgres",
            password=self.password,
            dbname=database,
            autocommit=True,
        )

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + _DEADLINE_S
        while True:
            try:
                self.connect().close()
            except psycopg.OperationalError:
                gone = self._server is None or self._server.poll() is not None
                if gone or time.monotonic() > deadline:
                    log = (self.home / "server.log").read_text(errors="replace")
                    raise RuntimeError(f"PostgreSQL didn't start: {log[-2000:]}") from None
                time.sleep(_PAUSE_S)
            else:
                return


@contextmanager
def postgres_cluster() -> Iterator[PostgresCluster]:
    """A running server; it and its files are gone afterwards.

    Raises:
        RuntimeError: PostgreSQL isn't installed or doesn't start.
    """
    # Not below pytest's directory: a socket's path may have 107 bytes only.
    home = Path(tempfile.mkdtemp(prefix="muster-pg-"))
    try:
        cluster = PostgresCluster(home, secrets.token_urlsafe(16))
        _initialise(cluster)
        try:
            cluster.start()
            with cluster.connect() as connection:
                # DDL takes no parameters; the password is of URL-safe characters.
                login = f"CREATE ROLE {_OWNER} LOGIN PASSWORD '{cluster.password}'"
                connection.execute(login.encode())
            yield cluster
        finally:
            # Not stopped: writing back what is deleted next takes a slow disk a minute.
            cluster.discard()
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _name(url: str) -> str:
    """The database that a URL names."""
    return str(psycopg.conninfo.conninfo_to_dict(url)["dbname"])


def _initialise(cluster: PostgresCluster) -> None:
    secret = cluster.home / "password"
    secret.write_text(cluster.password)
    if os.geteuid() == 0:
        shutil.chown(secret, "postgres")
        shutil.chown(cluster.home, "postgres", "postgres")
    made = subprocess.run(
        [
            postgres_programs() / "initdb",
            f"--pgdata={cluster.home / 'data'}",
            "--username=postgres",
            "--auth=scram-sha-256",
            f"--pwfile={secret}",
            "--encoding=UTF8",
            "--no-locale",
        ],
        capture_output=True,
        text=True,
        **_as_postgres(),
    )
    if made.returncode:
        raise RuntimeError(f"initdb failed: {made.stderr}")
    secret.unlink()


def _as_postgres() -> dict[str, Any]:
    # The server refuses to run as root.
    if os.geteuid() != 0:
        return {}
    return {"user": "postgres", "group": "postgres", "extra_groups": [], "cwd": "/"}
