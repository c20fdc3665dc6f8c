"""How often a certificate and a client may ask; checked before anything of a request is read."""

from broker.core.putting_off import OncePerWait, PutOff
from broker.core.rate_limit import TokenBuckets
from broker.ports.clock import Clock
from broker.protocol.names import ClaimName
from broker.protocol.topics import ClaimOrigin, Origin


class Admission:
    """Rate limits per certificate, and per client of a claim certificate."""

    def __init__(
        self, clock: Clock, per_certificate: TokenBuckets, per_client: TokenBuckets
    ) -> None:
        self._clock = clock
        self._per_certificate = per_certificate
        self._per_client = per_client
        self._limited: set[ClaimName] = set()
        self._told = OncePerWait()

    def admit(self, origin: Origin) -> None:
        """Counts one request.

        Raises:
            PutOff: with the time to wait; the client is told once in that time.
        """
        now = self._clock.monotonic()
        if isinstance(origin, ClaimOrigin):
            certificate, client = (
                f"c/{origin.claim_name}",
                f"c/{origin.claim_name}/{origin.client_id}",
            )
        else:
            certificate = client = f"d/{origin.device_id}"
        # The client's own bucket first: one that hammers must not use up its batch's allowance.
        wait = self._per_client.take(client, now)
        if not wait and (wait := self._per_certificate.take(certificate, now)):
            self._note(origin)
        if wait:
            raise PutOff(wait, is_told=self._told.is_due(client, wait, now))

    def take_limited(self) -> set[ClaimName]:
        """The claim certificates that asked too often, all their clients together, since the last
        call. One client that hammers is no reason to think that the certificate has leaked."""
        taken, self._limited = self._limited, set()
        return taken

    def give_back(self, limited: set[ClaimName]) -> None:
        """Undoes `take_limited`."""
        self._limited |= limited

    def _note(self, origin: Origin) -> None:
        # Bounded by the buckets of certificates that a broker has admitted.
        if isinstance(origin, ClaimOrigin):
            self._limited.add(origin.claim_name)
