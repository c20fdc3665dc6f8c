"""The tests of `tests.integration.test_claims`, in containers."""

from tests.integration.test_claims import *  # noqa: F403
