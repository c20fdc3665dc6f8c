"""What `muster doctor` finds about the passphrase: which keys it should protect, and doesn't."""

from collections.abc import Iterator
from pathlib import Path

from broker.adapters.audit_files import AuditFolder
from broker.adapters.ca.home import MusterHome
from broker.core.findings import Finding, Level


def examine_passphrase(home: MusterHome) -> Iterator[Finding]:
    """The keys that the passphrase could open, and that lie open without one. Blocks."""
    plain = [str(path.relative_to(home.path)) for path in _keys(home) if _is_plain(path)]
    if plain:
        yield Finding(
            Level.WARNING,
            "passphrase",
            plain[0],
            f"Keys that aren't encrypted: {', '.join(plain)}. A copy of the disk is a copy of the "
            "CA.",
            "Encrypt each of these with one passphrase ('openssl pkcs8 -topk8 -scrypt -in KEY -out "
            "NEW', then NEW in the place of KEY, with its owner and mode 0600), and start with "
            "--passphrase-file.",
        )


def needs_passphrase(home: MusterHome) -> bool:
    """Whether an authority's key here is encrypted: then the service is given a passphrase, though
    the one who asks may not have it. Blocks."""
    return any(_is_encrypted(path) for path in home.ca.glob("*.key"))


def _keys(home: MusterHome) -> list[Path]:
    authorities, updates = home.ca.glob("*.key"), home.updates.glob("keys/*.key")
    return [*sorted(authorities), AuditFolder(home.path).key, *sorted(updates)]


def _is_plain(path: Path) -> bool:
    return _is_encrypted(path) is False


def _is_encrypted(path: Path) -> bool | None:
    """None for what can't be read: the inspection of each key says so."""
    try:
        return b"ENCRYPTED" in path.read_bytes()  # RFC 7468, 11
    except OSError:
        return None
