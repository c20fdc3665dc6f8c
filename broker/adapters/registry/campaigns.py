"""Rotation campaigns and their devices in the registry."""

from collections.abc import Sequence
from itertools import islice
from typing import Final

import sqlalchemy as sa

from broker.adapters.registry.moments import loaded, loaded_or_none, stored, stored_or_none
from broker.adapters.registry.schema import CAMPAIGN, ROTATION
from broker.adapters.registry.session import Part, Row, Upsert
from broker.core.campaign import (
    Campaign,
    CampaignId,
    CampaignState,
    Rotation,
    RotationState,
    Selection,
    SelectionKind,
)
from broker.protocol.names import CertificateSerial, DeviceId

_C: Final = CAMPAIGN
_R: Final = ROTATION
_IDS_CHUNK: Final = 500

_AT_MOST: Final = sa.bindparam("at_most", type_=sa.BigInteger)
_ONE: Final = sa.select(_C).where(_C.c.id == sa.bindparam("wanted", type_=sa.BigInteger))
_NEWEST: Final = sa.select(_C).order_by(_C.c.id.desc()).limit(_AT_MOST)
# Few rows: one for each campaign that ever was.
_ACTIVE: Final = (
    sa.select(_C)
    .where(sa.or_(_C.c.state == CampaignState.RUNNING.value, _C.c.ordered > 0))
    .order_by(_C.c.id)
)
_IN_STATE: Final = (
    sa.select(_R)
    .where(
        _R.c.campaign_id == sa.bindparam("campaign", type_=sa.BigInteger),
        _R.c.state == sa.bindparam("wanted"),
        _R.c.device_id > sa.bindparam("after"),
    )
    .order_by(_R.c.device_id)
    .limit(_AT_MOST)
)

SAVE: Final = Upsert(_C, key=("id",))
SAVE_ROTATION: Final = Upsert(_R, key=("campaign_id", "device_id"))


class Campaigns(Part):
    """The port's methods about campaigns, on one transaction."""

    def campaign(self, campaign_id: CampaignId) -> Campaign | None:
        self._session.flush_for(("campaign", campaign_id))
        found = self._session.rows(_ONE, {"wanted": campaign_id})
        return _campaign(found[0]) if found else None

    def campaigns(self, limit: int) -> list[Campaign]:
        self._session.flush()
        return [_campaign(row) for row in self._session.rows(_NEWEST, {"at_most": limit})]

    def active_campaigns(self) -> list[Campaign]:
        self._session.flush()
        return [_campaign(row) for row in self._session.rows(_ACTIVE, {})]

    def rotations(
        self, campaign_id: CampaignId, state: RotationState, after: str, limit: int
    ) -> list[Rotation]:
        self._session.flush()
        wanted = {
            "campaign": campaign_id,
            "wanted": state.value,
            "after": after,
            "at_most": limit,
        }
        return [_rotation(row) for row in self._session.rows(_IN_STATE, wanted)]

    def last_orders(self, device_ids: Sequence[DeviceId]) -> dict[DeviceId, int]:
        wanted = iter(dict.fromkeys(device_ids))
        versions: dict[DeviceId, int] = {}
        while chunk := list(islice(wanted, _IDS_CHUNK)):
            query = (
                sa.select(_R.c.device_id, sa.func.max(_R.c.version))
                .where(_R.c.device_id.in_(chunk), _R.c.version.is_not(None))
                .group_by(_R.c.device_id)
            )
            for device_id, version in self._session.select(query):
                versions[DeviceId(device_id)] = int(version)
        return versions

    def save_campaign(self, campaign: Campaign) -> None:
        self._session.later(SAVE, campaign.id, _campaign_row(campaign), [("campaign", campaign.id)])

    def save_rotation(self, rotation: Rotation) -> None:
        key = (rotation.campaign, rotation.device_id)
        self._session.later(SAVE_ROTATION, key, _rotation_row(rotation))


def _campaign_row(campaign: Campaign) -> dict[str, object]:
    return {
        "id": campaign.id,
        "selected_by": campaign.selection.kind.value,
        "selected": campaign.selection.name,
        "per_minute": campaign.per_minute,
        "wave_size": campaign.wave_size,
        "created_at": stored(campaign.created_at),
        "fresh_from": stored(campaign.fresh_from),
        "paced_to": stored(campaign.paced_to),
        "reason": campaign.reason,
        "state": campaign.state.value,
        "ended_at": stored_or_none(campaign.ended_at),
        "listed_to": campaign.listed_to,
        "is_listed": int(campaign.is_listed),
        "waiting": campaign.waiting,
        "ordered": campaign.ordered,
        "done": campaign.done,
        "dropped": campaign.dropped,
        "withdrawn": campaign.withdrawn,
        "wave": campaign.wave,
        "wave_given": campaign.wave_given,
        "wave_settled": campaign.wave_settled,
        "wave_full_at": stored_or_none(campaign.wave_full_at),
    }


def _campaign(row: Row) -> Campaign:
    campaign_id, kind, selected, per_minute, wave_size, created_at, fresh_from, paced_to = row[:8]
    reason, state, ended_at, listed_to, is_listed = row[8:13]
    waiting, ordered, done, dropped, withdrawn = row[13:18]
    wave, wave_given, wave_settled, wave_full_at = row[18:]
    return Campaign(
        id=CampaignId(campaign_id),
        selection=Selection(SelectionKind(kind), selected),
        per_minute=per_minute,
        wave_size=wave_size,
        created_at=loaded(created_at),
        fresh_from=loaded(fresh_from),
        paced_to=loaded(paced_to),
        reason=reason,
        state=CampaignState(state),
        ended_at=loaded_or_none(ended_at),
        listed_to=None if listed_to is None else DeviceId(listed_to),
        is_listed=bool(is_listed),
        waiting=waiting,
        ordered=ordered,
        done=done,
        dropped=dropped,
        withdrawn=withdrawn,
        wave=wave,
        wave_given=wave_given,
        wave_settled=wave_settled,
        wave_full_at=loaded_or_none(wave_full_at),
    )


def _rotation_row(rotation: Rotation) -> dict[str, object]:
    return {
        "campaign_id": rotation.campaign,
        "device_id": rotation.device_id,
        "state": rotation.state.value,
        "wave": rotation.wave,
        "version": rotation.version,
        "newest_before": rotation.newest_before,
        "ordered_at": stored_or_none(rotation.ordered_at),
        "settled_at": stored_or_none(rotation.settled_at),
    }


def _rotation(row: Row) -> Rotation:
    campaign_id, device_id, state, wave, version, newest_before, ordered_at, settled_at = row
    return Rotation(
        campaign=CampaignId(campaign_id),
        device_id=DeviceId(device_id),
        state=RotationState(state),
        wave=wave,
        version=version,
        newest_before=None if newest_before is None else CertificateSerial(newest_before),
        ordered_at=loaded_or_none(ordered_at),
        settled_at=loaded_or_none(settled_at),
    )
