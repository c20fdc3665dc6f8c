"""One transaction on the registry: its parts put together, and what concerns several of them."""

from typing import Final

import sqlalchemy as sa

from broker.adapters.registry import (
    audit,
    ca_rollovers,
    campaigns,
    certificates,
    claims,
    devices,
    events,
    groups,
    lock_outs,
    outbox,
    prepared,
    retained,
    rollout_parts,
    rollouts,
    updates,
)
from broker.adapters.registry.audit import Audit
from broker.adapters.registry.ca_rollovers import CaRollovers
from broker.adapters.registry.campaigns import Campaigns
from broker.adapters.registry.certificates import Certificates
from broker.adapters.registry.claims import Claims
from broker.adapters.registry.devices import Devices
from broker.adapters.registry.groups import Groups
from broker.adapters.registry.lock_outs import LockOuts
from broker.adapters.registry.outbox import Outbox
from broker.adapters.registry.prepared import PreparedAssignments
from broker.adapters.registry.retained import RetainedMessages
from broker.adapters.registry.rollouts import Rollouts
from broker.adapters.registry.session import Compiler, Session
from broker.adapters.registry.updates import Updates
from broker.core.claim_policy import ClaimContext
from broker.protocol.names import ClaimName, Fingerprint, SerialNumber

# What is referred to comes before what refers to it.
_SENDING_ORDER: Final = (
    devices.SAVE,
    certificates.SAVE,
    claims.SAVE_COUNT,
    groups.SAVE_COUNT,
    lock_outs.SAVE,
    ca_rollovers.SAVE,
    campaigns.SAVE,
    campaigns.SAVE_ROTATION,
    events.ADD,
    audit.SAVE,
    outbox.ADD,
    outbox.REMOVE,
    retained.SAVE,
    rollouts.SAVE,
    rollout_parts.SAVE,
    rollout_parts.SAVE_TALLY,
    prepared.SAVE,
    updates.SAVE_ASSIGNMENT,
    updates.ADD_REPORT,
    updates.SAVE_UPDATE,
)


class SqlTransaction(
    Claims,
    Groups,
    Devices,
    Certificates,
    LockOuts,
    CaRollovers,
    Campaigns,
    Audit,
    Outbox,
    RetainedMessages,
    Rollouts,
    PreparedAssignments,
    Updates,
):
    """A `WriteTransaction` on a connection that excludes other writers.

    On a connection that sees one moment and can't write, it's a `ReadTransaction`.
    """

    def claim_context(
        self, claim_name: ClaimName, serial: SerialNumber, key: Fingerprint
    ) -> ClaimContext:
        claim = self.claim_certificate(claim_name)
        group = self.group_listing(claim_name)
        enrolled, device = self.standing(group.name, serial) if group else (False, None)
        return ClaimContext(
            claim=claim,
            group=group,
            enrolled=enrolled,
            device=device,
            certificates=self.unrevoked(device.id) if device else (),
            key_certificate=self.newest_of_key(key),
        )


def transaction_on(connection: sa.Connection, compiler: Compiler) -> tuple[SqlTransaction, Session]:
    """A transaction on an open connection, and the session that holds what it wrote."""
    session = Session(connection, compiler, _SENDING_ORDER)
    return SqlTransaction(session), session
