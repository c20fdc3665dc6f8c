"""Carrying campaigns out: devices are listed, ordered, and looked at until they have followed.

All that has to be known stands in the registry; each step is one transaction over one page. A
service that is killed between two of them, or within one, goes on where the last one ended.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from broker.core.campaign import (
    Campaign,
    CampaignId,
    CampaignInput,
    CampaignState,
    Rotation,
    RotationState,
    counted,
)
from broker.core.campaign_pace import given, orders_due, renew_by, was_set_back
from broker.core.lifecycle import MEMBERS
from broker.core.records import Certificate, Device, Event, EventKind
from broker.core.rotation_policy import HELD, after_order, at_its_turn, next_version
from broker.ports.clock import Clock
from broker.ports.registry import ReadTransaction, Registry, WriteTransaction
from broker.protocol import codec
from broker.protocol.messages import RotationOrder
from broker.protocol.names import CertificateSerial, DeviceId
from broker.protocol.topics import Desired, desired_topic
from broker.services.campaigns import known, steer, wanted_devices

_LISTED_A_PAGE = 1000
_PAGES_A_RUN = 10
_PAGE = 500
"""Devices that are ordered, or looked at, in one step of a campaign."""
_FURTHER = 100
"""Devices that are looked at together where some of the first ones needed no order."""


class CampaignRunner:
    """Advances every campaign by a step; to be called twice a second."""

    def __init__(self, registry: Registry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock
        self._looked_to: dict[CampaignId, str] = {}
        self._turned_to: dict[CampaignId, str] = {}

    async def advance(self) -> bool:
        """Lists, looks, orders and takes back, as far as each campaign's turn has come; whether
        there is any whose turn may come.

        Raises:
            RegistryError: the registry failed; the next call goes on.
        """
        active = await self._registry.read(lambda tx: tx.active_campaigns())
        for campaign in active:
            await self._advance(campaign)
        return bool(active)

    async def _advance(self, campaign: Campaign) -> None:
        if campaign.state is CampaignState.CANCELLED:
            await self._registry.write(lambda tx: self._withdraw(tx, campaign.id))
            return
        await self._look(campaign)
        if campaign.state is CampaignState.RUNNING:
            await self._list(campaign)
            await self._order(campaign.id)

    async def _list(self, campaign: Campaign) -> None:
        seen: Campaign | None = campaign
        for _ in range(_PAGES_A_RUN):
            if seen is None or seen.is_listed:
                return
            seen = await self._list_page(seen)

    async def _list_page(self, seen: Campaign) -> Campaign | None:
        page = await self._registry.read(lambda tx: _next_devices(tx, seen))
        return await self._registry.write(lambda tx: _keep_listed(tx, seen, page))

    async def _look(self, campaign: Campaign) -> None:
        """Looks at one page of those who have orders; the next call at the next one."""
        if campaign.ordered == 0:
            return
        after = self._looked_to.get(campaign.id, "")
        looked_at = await self._registry.read(lambda tx: _stand(tx, campaign.id, after))
        if any(state is not RotationState.ORDERED for _, state, _ in looked_at):
            await self._registry.write(lambda tx: self._settle(tx, campaign.id, after))
        is_last = len(looked_at) < _PAGE
        self._looked_to[campaign.id] = "" if is_last else looked_at[-1][0].device_id

    def _settle(self, tx: WriteTransaction, campaign_id: CampaignId, after: str) -> None:
        now = self._clock.now()
        campaign = known(tx, campaign_id)
        for row, state, _ in _stand(tx, campaign_id, after):
            if state is not RotationState.ORDERED:
                campaign = _move(tx, campaign, row, replace(row, state=state, settled_at=now))
                # Also what was followed: a device that begins anew would take it for a new one.
                _take_back(tx, row)
        tx.save_campaign(campaign)

    async def _order(self, campaign_id: CampaignId) -> None:
        now, after = self._clock.now(), self._turned_to.get(campaign_id, "")

        def look(view: ReadTransaction) -> tuple[bool, str]:
            campaign = known(view, campaign_id)
            turns = _turns(view, campaign, now, after)
            is_due = campaign.may_finish or was_set_back(campaign, now)
            return is_due or bool(turns.taken), turns.go_on_after

        is_due, go_on_after = await self._registry.read(look)
        if is_due:
            write = self._registry.write
            go_on_after = await write(lambda tx: _give_orders(tx, campaign_id, now, after))
        # Those who are held stay in front: the next step begins behind them, and comes back.
        self._turned_to[campaign_id] = go_on_after

    def _withdraw(self, tx: WriteTransaction, campaign_id: CampaignId) -> None:
        now = self._clock.now()
        campaign = known(tx, campaign_id)
        for row, state, device in _stand(tx, campaign_id, ""):
            settled = RotationState.WITHDRAWN if state is RotationState.ORDERED else state
            campaign = _move(tx, campaign, row, replace(row, state=settled, settled_at=now))
            _take_back(tx, row)
            if settled is RotationState.WITHDRAWN and device is not None:
                tx.add_event(_event(device, EventKind.ROTATION_WITHDRAWN, row, now))
        tx.save_campaign(campaign)


def _next_devices(view: ReadTransaction, campaign: Campaign) -> list[Device]:
    wanted = wanted_devices(campaign.selection)
    after = campaign.listed_to or DeviceId("")
    return view.devices(replace(wanted, after=after, limit=_LISTED_A_PAGE))


def _keep_listed(tx: WriteTransaction, seen: Campaign, page: Sequence[Device]) -> Campaign | None:
    """The campaign with this page listed; none when it has changed since it was read."""
    campaign = known(tx, seen.id)
    if campaign.listed_to != seen.listed_to or campaign.state is not CampaignState.RUNNING:
        return None
    for device in page:
        if device.state in (*MEMBERS, *HELD):
            row = Rotation(campaign.id, device.id)
            campaign = counted(campaign, None, row)
            tx.save_rotation(row)
    campaign = replace(
        campaign,
        listed_to=page[-1].id if page else campaign.listed_to,
        is_listed=len(page) < _LISTED_A_PAGE,
    )
    tx.save_campaign(campaign)
    return campaign


def _stand(
    view: ReadTransaction, campaign_id: CampaignId, after: str
) -> list[tuple[Rotation, RotationState, Device | None]]:
    """A page of those who have orders, with what has become of each."""
    rows = view.rotations(campaign_id, RotationState.ORDERED, after, _PAGE)
    certificates = _certificates(view, rows)
    found = []
    for row in rows:
        device = view.device(row.device_id)
        found.append((row, after_order(row, device, certificates[row.device_id]), device))
    return found


def _give_orders(tx: WriteTransaction, campaign_id: CampaignId, now: datetime, after: str) -> str:
    """Behind which device the next step is to begin."""
    campaign = known(tx, campaign_id)
    turns = _turns(tx, campaign, now, after)
    ordered = []
    for turn in turns.taken:
        if turn.state is RotationState.ORDERED and turn.device is not None:
            ordered.append((turn.row, turn.device, turn.newest))
        else:
            settled = replace(turn.row, state=turn.state, settled_at=now)
            campaign = _move(tx, campaign, turn.row, settled)
    campaign = given(campaign, len(ordered), now)
    campaign = _order_each(tx, campaign, ordered, now)
    tx.save_campaign(campaign)
    if campaign.may_finish:
        steer(tx, campaign, CampaignInput.FINISH, now)
    return turns.go_on_after


@dataclass(frozen=True)
class _Turn:
    """A device that was waiting, and what becomes of it."""

    row: Rotation
    state: RotationState
    device: Device | None
    newest: CertificateSerial | None


@dataclass(frozen=True)
class _Turns:
    """Whose turn it is, and behind which device the next step begins; empty for the first."""

    taken: list[_Turn]
    go_on_after: str


def _turns(view: ReadTransaction, campaign: Campaign, now: datetime, after: str) -> _Turns:
    """Waiting devices in their order: so many that need an order, and those among them that don't,
    which use up no pace. Those that are held are passed over."""
    due = min(orders_due(campaign, now), _PAGE) if campaign.waiting else 0
    taken: list[_Turn] = []
    looked_at, size = 0, due
    while due and looked_at < _PAGE:
        rows = view.rotations(campaign.id, RotationState.WAITING, after, size)
        for turn in _turns_of(view, campaign, rows):
            if turn.state is RotationState.ORDERED and due == 0:
                return _Turns(taken, after)
            due -= int(turn.state is RotationState.ORDERED)
            after = turn.row.device_id
            if turn.state is not RotationState.WAITING:
                taken.append(turn)
        if len(rows) < size:
            return _Turns(taken, "")
        looked_at, size = looked_at + len(rows), _FURTHER
    return _Turns(taken, after)


def _turns_of(
    view: ReadTransaction, campaign: Campaign, rows: Sequence[Rotation]
) -> Iterator[_Turn]:
    certificates = _certificates(view, rows)
    for row in rows:
        device, held = view.device(row.device_id), certificates[row.device_id]
        yield _Turn(row, at_its_turn(campaign, device, held), device, _newest(held))


def _order_each(
    tx: WriteTransaction,
    campaign: Campaign,
    rows: Sequence[tuple[Rotation, Device, CertificateSerial | None]],
    now: datetime,
) -> Campaign:
    last = tx.last_orders([row.device_id for row, _, _ in rows])
    follow_by = renew_by(campaign, now)
    messages: dict[str, bytes] = {}
    for row, device, newest in rows:
        version = next_version(last.get(row.device_id), now)
        ordered = replace(
            row,
            state=RotationState.ORDERED,
            wave=campaign.wave,
            version=version,
            newest_before=newest,
            ordered_at=now,
        )
        campaign = _move(tx, campaign, row, ordered)
        order = RotationOrder(version=version, renew_by=follow_by, ordered_at=now)
        messages[desired_topic(row.device_id, Desired.ROTATION)] = codec.encode(order)
        tx.add_event(_event(device, EventKind.ROTATION_ORDERED, ordered, now))
    tx.retain(messages)
    return campaign


def _move(tx: WriteTransaction, campaign: Campaign, before: Rotation, after: Rotation) -> Campaign:
    tx.save_rotation(after)
    return counted(campaign, before, after)


def _take_back(tx: WriteTransaction, row: Rotation) -> None:
    """Clears the order, unless a later campaign has put its own in its place."""
    topic = desired_topic(row.device_id, Desired.ROTATION)
    kept = tx.retained(topic)
    if kept is None or not kept.payload:
        return
    order = codec.decode(kept.payload, RotationOrder, len(kept.payload))
    if order.version == row.version:
        tx.retain({topic: b""})


def _certificates(
    view: ReadTransaction, rows: Sequence[Rotation]
) -> dict[DeviceId, list[Certificate]]:
    found: dict[DeviceId, list[Certificate]] = {row.device_id: [] for row in rows}
    for certificate in view.certificates_of(list(found)) if found else []:
        found[certificate.device_id].append(certificate)
    return found


def _newest(certificates: Sequence[Certificate]) -> CertificateSerial | None:
    return certificates[-1].serial if certificates else None


def _event(device: Device, kind: EventKind, row: Rotation, now: datetime) -> Event:
    return Event(
        at=now,
        kind=kind,
        device_id=device.id,
        serial_number=device.serial,
        group=device.group,
        detail=f"campaign {row.campaign}, order {row.version}",
    )
