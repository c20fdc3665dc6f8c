"""What stands between the CRL files and Mosquitto, which has no guard of its own: told to read a
damaged CRL, 2.0 goes on without any; an expired one makes it refuse everybody.

Mosquitto reads copies, in a folder that nobody else writes in. Each time that it is to read its
files, each CRL file is looked at first, and copied if it may be relied on; otherwise the last good
copy stays. So it is also safe to signal Mosquitto itself, or to start it, at any time.
"""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from crl_reading import Anchor, Crl, Refused, read_anchors, read_crls


class Guard:
    """The copies of the CRLs that one configuration names, and the configuration that names them.

    Files that it includes (`include_dir`) aren't looked at.

    Args:
        config: Mosquitto's, as the operator has it.
        folder: for the copies; made when it doesn't exist.
    """

    def __init__(self, config: Path, folder: Path) -> None:
        self.config = folder / "mosquitto.conf"
        """The configuration for Mosquitto."""
        self._original = config
        self._folder = folder
        self._kept: dict[Path, list[Crl]] = {}
        """What each copy holds."""
        self._wanted: list[Path] | None = None
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)

    def refresh(self) -> list[str]:
        """Copies what may be relied on. Returns what may not, `FILE: why` each."""
        complaints = []
        try:
            lines = self._original.read_text().splitlines()
        except (OSError, ValueError) as error:
            return [f"{self._original}: {_reason(error)}"]
        guarded = _guarded(lines)
        self._wanted = list(guarded)
        for crl_file, anchor_files in guarded.items():
            try:
                self._take(crl_file, anchor_files)
            except (Refused, OSError) as error:
                complaints.append(f"{crl_file}: {_reason(error)}")
        _put(self.config, "\n".join([*_redirected(lines, self._copy_of), ""]).encode())
        return complaints

    def is_ready(self) -> bool:
        """Whether there is a good copy of everything, so that Mosquitto may start."""
        return self._wanted is not None and all(self._kept.get(each) for each in self._wanted)

    def _take(self, crl_file: Path, anchor_files: list[Path]) -> None:
        anchors = [each for path in anchor_files for each in read_anchors(path.read_bytes())]
        copy = self._copy_of(crl_file)
        if crl_file not in self._kept:
            self._kept[crl_file] = _left_behind(copy, anchors)
        crls = read_crls(crl_file.read_bytes(), anchors)
        judge(crls, self._kept[crl_file], anchors, time.time())
        _put(copy, b"".join(crl.pem for crl in crls))
        self._kept[crl_file] = crls

    def _copy_of(self, crl_file: Path) -> Path:
        return self._folder / "-".join(crl_file.parts[-2:])


def judge(crls: list[Crl], last: list[Crl], anchors: list[Anchor], now: float) -> None:
    """Raises unless these CRLs, whose signatures are right, may take the place of the last.

    An older one has both an older thisUpdate and a lower number than the last: when the registry
    is restored from a backup the number goes back, when a clock is set back the time does.

    Raises:
        Refused: one has expired or doesn't hold yet, is older than the last, or is missing.
    """
    for crl in crls:
        if crl.since > now:
            raise Refused(f"it isn't valid before {_utc(crl.since)}")
        if crl.until <= now:
            raise Refused(f"it has expired at {_utc(crl.until)}")
    found = {crl.issuer: crl for crl in crls}
    if not found:
        raise Refused("none of its CRLs is of an authority in the anchors' file")
    names = {anchor.name for anchor in anchors}
    for former in last:
        if former.since > now or former.issuer not in names:
            continue  # of a clock that was wrong, or of an authority that doesn't count any more
        successor = found.get(former.issuer)
        if successor is None:
            raise Refused("the CRL of an authority that counts is missing")
        if successor.since < former.since and successor.number < former.number:
            raise Refused(f"it is older than the one of {_utc(former.since)} that was read")


def _left_behind(copy: Path, anchors: list[Anchor]) -> list[Crl]:
    """What a former run has kept; also when it has expired: it's better than none."""
    try:
        return read_crls(copy.read_bytes(), anchors)
    except (OSError, Refused):
        return []


def _guarded(lines: list[str]) -> dict[Path, list[Path]]:
    """Each CRL file, and the files with the anchors of the listeners that read it."""
    found: dict[Path, list[Path]] = {}
    for listener in _listeners(lines):
        if "crlfile" in listener and "cafile" in listener:
            found.setdefault(Path(listener["crlfile"]), []).append(Path(listener["cafile"]))
    return found


def _listeners(lines: list[str]) -> Iterator[dict[str, str]]:
    options: dict[str, str] = {}
    for line in lines:
        name, _, value = line.strip().partition(" ")
        if name == "listener":
            yield options
            options = {}
        options[name] = value.strip()
    yield options


def _redirected(lines: list[str], copy_of: Callable[[Path], Path]) -> Iterator[str]:
    """The same, but for what is read instead of the CRL files. Without the pid file: who signals
    Mosquitto itself has it read the same copies again, and would believe that it has read more."""
    guarded = _guarded(lines)
    for line in lines:
        name, _, value = line.strip().partition(" ")
        path = Path(value.strip())
        if name == "pid_file":
            continue
        yield f"crlfile {copy_of(path)}" if name == "crlfile" and path in guarded else line


def _put(path: Path, content: bytes) -> None:
    """In one step. Not made durable: what a power cut damages isn't used."""
    try:
        if path.read_bytes() == content:
            return
    except OSError:
        pass
    draft = path.with_name(f".{path.name}")
    draft.write_bytes(content)
    draft.chmod(0o644)
    os.replace(draft, path)  # noqa: PTH105


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)


def _utc(moment: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))
