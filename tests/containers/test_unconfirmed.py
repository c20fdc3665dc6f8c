"""The tests of `tests.integration.test_unconfirmed`, in containers."""

from tests.integration.test_unconfirmed import *  # noqa: F403
