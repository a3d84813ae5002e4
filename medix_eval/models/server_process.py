"""A server as a process of this run: its port, its log, its death and its end."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from medix_eval.errors import ConfigError, ServerError
from medix_eval.models import supervisor

HOST = "127.0.0.1"
_POLL_S = 0.1
_TAIL_LINES = 6
_TAIL_BYTES = 200_000
_LONGEST_LINE = 240
_FREE_WITHIN_S = 10.0
_NOISE = re.compile(
    r"(INFO|WARNING) \d\d-\d\d |^INFO: |Warning: |warnings\.warn"
    r"|^nanobind: |nanobind\.| - leaked| - \.\.\."
)
"""Lines that do not explain a crash: progress, and what libraries print at exit."""
_CAUSE = re.compile(r"\b\w+(Error|Exception)\b: \S|[Oo]ut of memory")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerProcess:
    """A server under a supervisor, which ends it whatever happens to this process."""

    what: str
    """Its name in messages, such as `the vLLM server of Qwen/Qwen3-14B`."""
    process: subprocess.Popen[bytes]
    port: int
    log: Path
    log_begins: int
    """Where this start begins in the log; an earlier run may have written before."""
    hints: Mapping[str, str]
    """What to do, by a pattern that may occur in the log of a dead server."""

    @property
    def is_dead(self) -> bool:
        """Whether the server has ended, with all its processes."""
        return self.process.poll() is not None

    async def dies_within(self, seconds: float) -> bool:
        """Wait briefly to see whether a server that failed a request has died."""
        deadline = time.monotonic() + seconds
        while not self.is_dead and time.monotonic() < deadline:  # noqa: ASYNC110 (no event tells)
            await asyncio.sleep(_POLL_S)
        return self.is_dead

    def failure(self, happened: str) -> ServerError:
        """Return an error that shows the last output of the server."""
        said = self._said()
        hint = next((hint for pattern, hint in self.hints.items() if re.search(pattern, said)), "")
        lines = [
            line.strip()[:_LONGEST_LINE]
            for line in said.splitlines()
            if line.strip(" ^~") and not _NOISE.search(line)
        ]
        tail = lines[-_TAIL_LINES:]
        # The last lines often only say that another process failed; its own words come first.
        cause = next((line for line in lines if _CAUSE.search(line) and line not in tail), None)
        shown = "".join(f"\n  {line}" for line in ([cause, "..."] if cause else []) + tail)
        return ServerError(
            f"{self.what} {happened}; its last output:{shown or ' nothing'}",
            hint=hint or f"see the full output in {self.log}",
        )

    def _said(self) -> str:
        """Return the end of what this start has written to the log."""
        with self.log.open("rb") as file:
            file.seek(max(self.log_begins, self.log.stat().st_size - _TAIL_BYTES))
            return file.read().decode(errors="replace")

    def death(self) -> ServerError:
        """Return the error for a server that ended by itself."""
        return self.failure(f"died (status {self.process.poll()})")

    async def stop(self) -> None:
        """End the server with all its processes, and see that its port is free again."""
        _close(self.process.stdin)
        await asyncio.to_thread(self.process.wait)
        deadline = time.monotonic() + _FREE_WITHIN_S
        while not is_free(self.port):
            if time.monotonic() > deadline:
                raise ServerError(f"port {self.port} is still taken after {self.what} has ended")
            await asyncio.sleep(_POLL_S)

    def keep(self) -> int:
        """Leave the server running; return the id of the process that stops it."""
        if self.process.stdin is not None:
            self.process.stdin.write(supervisor.KEEP)
        _close(self.process.stdin)
        self.process.returncode = 0  # nobody waits for it any more
        return self.process.pid


def start_server(
    command: Sequence[str],
    *,
    what: str,
    port: int,
    log: Path,
    env: Mapping[str, str],
    hints: Mapping[str, str],
) -> ServerProcess:
    """Start a server in its own session, under a supervisor; its output goes to the log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    # For the user alone: what a server says may quote a prompt.
    with open(log, "ab", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        file.write(f"\n{datetime.now(UTC):%F %T} {shlex.join(command)}\n".encode())
        file.flush()
        begins = file.tell()
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-P", "-m", supervisor.__name__, *command],
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=dict(env),
        )
    return ServerProcess(
        what=what, process=process, port=port, log=log, log_begins=begins, hints=hints
    )


def free_port(wanted: int | None) -> int:
    """Return the wanted port, or any free one. Raises `ConfigError`."""
    if wanted is not None and not is_free(wanted):
        raise ConfigError(f"port {wanted} is taken", hint="omit --port to use a free one")
    if wanted is not None:
        return wanted
    with socket.socket() as found:
        found.bind((HOST, 0))
        return int(found.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether a server could listen on this port now."""
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((HOST, port))
        except OSError:
            return False
    return True


def _close(pipe: IO[bytes] | None) -> None:
    with suppress(BrokenPipeError):
        if pipe is not None:
            pipe.close()
