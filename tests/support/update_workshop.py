"""An update repository with its offline keys at hand, and a client that nobody of us wrote."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from tuf.ngclient import Updater

from broker.adapters.ca.home import MusterHome
from broker.adapters.updates.keys import new_key_file, read_public
from broker.core.metadata_lifetime import Lifetimes
from broker.operating.updating import KeyReference, KeySet, NewImage, UpdateDesk, update_repository
from broker.protocol.updates import ImageFacts

MODEL = "meter"


@dataclass
class SetClock:
    """A clock that shows the machine's time until it is set."""

    at: datetime | None = None

    def now(self) -> datetime:
        return self.at or datetime.now(UTC)

    def monotonic(self) -> float:
        return 0.0


@dataclass(frozen=True)
class Workshop:
    """A home's update repository; keys are files without a passphrase, 2 of 3 for root."""

    home: MusterHome
    keys: Path
    clock: SetClock = field(default_factory=SetClock)

    @property
    def desk(self) -> UpdateDesk:
        return UpdateDesk(self.home, None, self.clock)

    @property
    def repository(self) -> Path:
        return self.desk.folders.repository

    def new_key(self, name: str, algorithm: str = "ed25519") -> None:
        new_key_file(self.keys / name, algorithm, None)

    def key(self, name: str) -> KeyReference:
        return KeyReference(str(self.keys / name))

    def keyid(self, name: str) -> str:
        return read_public(self.keys / f"{name}.pub").keyid

    def key_set(self, names: list[str], threshold: int) -> KeySet:
        return KeySet([read_public(self.keys / f"{name}.pub") for name in names], threshold)

    def create(self, *, targets_threshold: int, algorithm: str, lifetimes: Lifetimes) -> None:
        """Makes the repository, with nothing signed."""
        root, targets = ["root-1", "root-2", "root-3"], ["targets-1", "targets-2"]
        for name in (*root, *targets):
            self.new_key(name, algorithm)
        self.desk.create(
            self.key_set(root, 2), self.key_set(targets, targets_threshold), lifetimes, algorithm
        )

    def sign(self, *names: str) -> None:
        self.desk.sign([self.key(name) for name in names], self.desk.staged())

    def add(self, version: str = "1.0.0", content: bytes = b"image", **facts: object) -> str:
        """Stages an image; its target path."""
        file = self.keys / f"firmware-{version}.bin"
        file.write_bytes(content)
        said: dict[str, object] = {"model": MODEL, "version": version, "security_counter": 1}
        said |= facts
        self.desk.add(NewImage(file, ImageFacts(**said)))  # type: ignore[arg-type]
        return f"{said['model']}/{version}/{file.name}"

    def publish_image(self, version: str = "1.0.0", content: bytes = b"image") -> str:
        """Adds, signs and publishes; the target's path."""
        path = self.add(version, content)
        self.sign("targets-1", "targets-2")
        self.desk.publish()
        return path

    def first_root(self) -> bytes:
        return update_repository(self.home, None).files()["1.root.json"]


def make_workshop(
    folder: Path,
    *,
    targets_threshold: int = 1,
    algorithm: str = "ed25519",
    lifetimes: Lifetimes | None = None,
    publish: bool = True,
) -> Workshop:
    """A repository in a new home below `folder`, published with no image in it."""
    home, keys = folder / "home", folder / "keys"
    home.mkdir(parents=True)
    keys.mkdir()
    workshop = Workshop(MusterHome(home), keys)
    workshop.create(
        targets_threshold=targets_threshold,
        algorithm=algorithm,
        lifetimes=lifetimes or Lifetimes(),
    )
    if publish:
        workshop.sign("root-1", "root-2", "targets-1", "targets-2")
        assert workshop.desk.publish().roles
    return workshop


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """A plain HTTP server on a folder; its base URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def tuf_client(folder: Path, base: str, bootstrap: bytes | None) -> Updater:
    """python-tuf's own client, unmodified, with its state in `folder`."""
    for name in ("metadata", "targets"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return Updater(
        str(folder / "metadata"),
        f"{base}/metadata/",
        str(folder / "targets"),
        f"{base}/targets/",
        bootstrap=bootstrap,
    )
