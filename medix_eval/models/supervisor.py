"""Start and supervise one command: `python -m medix_eval.models.supervisor COMMAND ...`.

This process stands between the harness and a managed server. Its stdin is a pipe from the harness:
when that closes, because the run is done, failed, or was killed
(SIGKILL), the command is ended with everything it has started. So no server outlives its run,
unless the harness says `keep` first; then a SIGTERM to this process ends it.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

KEEP = b"keep"
"""What the harness writes to leave the command running when the pipe closes."""
POLITE_S = 5.0
"""How long the command has to end by itself after a SIGTERM."""
_LAST_RESORT_S = 30.0
_POLL_S = 0.2
_PR_SET_CHILD_SUBREAPER = 36


def main(command: list[str]) -> int:
    """Run the command until it ends or is no longer wanted; return its status."""
    if sys.platform == "linux":  # adopt what a dead server leaves behind
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    asked_to_stop: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, _: asked_to_stop.append(received))
    leader = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)  # noqa: S603
    is_kept = False
    while leader.poll() is None and not asked_to_stop:
        if is_kept:
            time.sleep(_POLL_S)
            continue
        said = _hear(wait_s=_POLL_S)
        if said == b"":
            break
        is_kept = said == KEEP
    _end(leader)
    return leader.returncode or 0


def _hear(*, wait_s: float) -> bytes | None:
    """Return what the harness says; nothing at all (`b""`) means that it is gone."""
    with suppress(InterruptedError):
        ready, _, _ = select.select([0], [], [], wait_s)
        if ready:
            return os.read(0, len(KEEP))
    return None


def _end(leader: subprocess.Popen[bytes]) -> None:
    """End the command's group, politely if it still runs, and all that it has started."""
    started = time.monotonic()
    patience_s = 0.0
    if leader.poll() is None:
        patience_s = POLITE_S
        _signal_group(leader, signal.SIGTERM)
    while _has_children(leader):
        waited_s = time.monotonic() - started
        if waited_s > _LAST_RESORT_S:  # stuck in the kernel: nothing can end it
            return
        if waited_s >= patience_s:
            _signal_group(leader, signal.SIGKILL)
            for stray in _children():  # those that left the group
                with suppress(ProcessLookupError):
                    os.kill(stray, signal.SIGKILL)
        time.sleep(_POLL_S / 4)


def _signal_group(leader: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader.pid, number)


def _has_children(leader: subprocess.Popen[bytes]) -> bool:
    """Reap exited children; return True if any remain."""
    if leader.poll() is None:
        return True
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if pid == 0:
            return True


def _children() -> list[int]:
    with suppress(OSError):
        listed = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii")
        return [int(pid) for pid in listed.split()]
    return []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
