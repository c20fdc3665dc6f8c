"""Opening an installation's registry, without what else a running service needs."""

from broker.adapters.ca.home import MusterHome
from broker.adapters.doorbell import ring
from broker.adapters.registry import SqlRegistry
from broker.settings import Settings


def open_registry(home: MusterHome, settings: Settings, *, rings: bool = False) -> SqlRegistry:
    """The installation's registry, not started yet; a relative SQLite path is the home's.

    With `rings` the running service is told of each change at once."""
    url = settings.registry.url.get_secret_value()
    prefix = "sqlite:///"
    if url.startswith(prefix):
        url = f"{prefix}{home.path / url.removeprefix(prefix)}"
    if not rings:
        return SqlRegistry(url)
    return SqlRegistry(url, on_written=lambda: ring(home.doorbell))
