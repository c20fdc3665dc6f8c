"""Ending the connections of revoked certificates: a CRL is looked at in handshakes only."""

from collections.abc import Sequence
from datetime import datetime

from broker.core.lifecycle import CertificateState
from broker.ports import BrokerControl, ReadTransaction, Registry, Revocation
from broker.protocol.names import CertificateSerial, DeviceId


class LockOut:
    """Ends what connections revoked certificates may have left, each once in the service's life.

    A service that was killed half-way does it again: a device that is a member by another
    certificate is left alone, because its newer connection has taken the older one's place.
    """

    def __init__(self, registry: Registry, control: BrokerControl) -> None:
        self._registry = registry
        self._control = control
        self._ended: set[CertificateSerial] = set()

    async def enforce(self, revoked: Sequence[Revocation]) -> None:
        """Returns when no certificate in `revoked`, which the CRL in force holds, is connected.

        Raises:
            Exception: what the broker raised; calling again goes on where it stopped.
        """
        self._ended &= {line.serial for line in revoked}
        fresh = [line for line in revoked if line.serial not in self._ended]
        if not fresh:
            return
        names = list({line.device_id for line in fresh if line.device_id is not None})
        confirmed = await self._registry.read(lambda tx: _last_confirmed(tx, names))
        for line in sorted(fresh, key=lambda line: line.revoked_at, reverse=True):
            name = line.device_id
            taken_over = name in confirmed and confirmed[name] >= line.revoked_at
            if name is not None and not taken_over:
                await self._control.disconnect(name)
            self._ended.add(line.serial)


def _last_confirmed(tx: ReadTransaction, names: Sequence[DeviceId]) -> dict[DeviceId, datetime]:
    """When each device proved the certificate that it is a member by; no entry without one."""
    return {
        certificate.device_id: certificate.confirmed_at
        for certificate in tx.certificates_of(names)
        if certificate.state is not CertificateState.REVOKED
        and certificate.confirmed_at is not None
    }
