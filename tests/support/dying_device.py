"""Claims in processes that are killed at every step: `python -m tests.support.dying_device FOLDER`.

For each step of a claim a child is killed just before it. A second child carries on and is killed
too, each time at another of its steps; the third must end as a member. Prints how many steps there
were; an assertion ends it otherwise.
"""

import os
import sys
from pathlib import Path

from broker.protocol.messages import EnrollAccepted
from tests.support import device_claims
from tests.support.device_claims import Service, assert_settled
from tests.support.dying_calls import die_before

STEPS = ("open", "write", "fsync", "rename", "replace", "symlink", "mkdir", "unlink", "rmdir")


class SharedService(Service):
    """One service for many processes: what it saw stands in a file."""

    def __init__(self, log: Path) -> None:
        super().__init__()
        self.log = log
        self._open, self._write, self._close = os.open, os.write, os.close

    def enroll(self, csr_pem: str) -> EnrollAccepted:
        """Answers; the key is noted before the answer is there."""
        answer = super().enroll(csr_pem)
        descriptor = self._open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._write(descriptor, f"{self.seen[-1]}\n".encode())
        self._close(descriptor)
        return answer

    def recall(self) -> None:
        """What all processes' requests held."""
        self.seen = self.log.read_text().split() if self.log.exists() else []


def killed_at(step: int, state: Path, service: Service) -> bool:
    """Whether a claim had so many steps; if so it died before that one."""
    child = os.fork()
    if child == 0:
        try:
            die_before(step, STEPS)
            device_claims.claim(state, service)
        finally:
            os._exit(0 if sys.exc_info()[0] is None else 1)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    assert os.waitstatus_to_exitcode(status) == 0, f"step {step} failed"
    return False


def main(folder: Path) -> int:
    """All steps; returns how many there were."""
    step = 0
    while True:
        step += 1
        state = folder / str(step) / "state"
        state.parent.mkdir()
        service = SharedService(state.parent / "seen")
        if not killed_at(step, state, service):
            return step - 1
        killed_at(1 + step * 7 % 40, state, service)
        service.recall()
        identity = device_claims.claim(state, service)
        assert_settled(state, service, identity)


if __name__ == "__main__":
    print(main(Path(sys.argv[1])))
