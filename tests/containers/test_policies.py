"""The tests of `tests.integration.test_policies`, in containers."""

import asyncio

from broker.protocol.zones import Zone
from tests.containers.site import Site
from tests.integration.test_policies import *  # noqa: F403
from tests.support.knocking import Answer, knock
from tests.support.stack import Stack
from tests.support.waiting import eventually


# In the place of the one that writes the CRL itself, which only works beside the installation.
async def test_a_revoked_claim_certificate(  # type: ignore[no-redef]
    site: Site, stack: Stack
) -> None:
    """The operator's command signs the CRL where the installation is: in the service."""
    await stack.installation.standard(["A1"])
    client, port = stack.claim_client(), stack.ports[Zone.CLAIM]
    assert await knock(port, client, "outside") is Answer.ADMITTED
    await asyncio.to_thread(site.project.muster, "claim-cert", "revoke", "batch-7")

    async def is_refused() -> bool:
        return await knock(port, client, "outside") is Answer.REFUSED

    await eventually(is_refused)
