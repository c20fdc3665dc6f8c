"""The pytest plugin: `muster_stack`, a running Muster for the tests of any project."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.testing.stack import MusterStack, containers_stack, embedded_stack


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of `muster_stack`."""
    group = parser.getgroup("muster", "a running Muster for tests")
    group.addoption(
        "--muster-compose",
        type=Path,
        metavar="FILE",
        help="run muster_stack in containers, by the compose.yaml of a Muster checkout",
    )


@pytest.fixture(scope="session")
def muster_stack(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MusterStack]:
    """A running Muster that nobody else uses, with a claim certificate in hand.

    One for the whole run: give each test's devices serial numbers of their own.
    """
    folder = tmp_path_factory.mktemp("muster")
    compose_file: Path | None = request.config.getoption("--muster-compose")
    if compose_file is None:
        with embedded_stack(folder) as stack:
            yield stack
    else:
        with containers_stack(folder, compose_file.resolve()) as stack:
            yield stack
