"""The local server of a bench, in a process of its own: neither its memory nor time is counted."""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

from medix_eval.testing import Reply, ScriptedServer


class BenchServer:
    """Answers every request after the same time; tells how many there were, and when the first."""

    def __init__(self, *, service_s: float = 0.0) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, service_s), daemon=True)
        self.url = ""

    def __enter__(self) -> Self:
        self._process.start()
        self.url = self._ours.recv()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ours.send("stop")
        self._process.join(timeout=30)

    def count(self) -> tuple[int, float | None]:
        """Return the number of requests since the last count, and the time of the first."""
        self._ours.send("count")
        found: tuple[int, float | None] = self._ours.recv()
        return found


def _serve(pipe: Connection, service_s: float) -> None:
    arrived: list[float] = []

    def script(_: dict[str, Any]) -> Reply:
        arrived.append(time.time())
        return Reply(text="a lesion", delay_s=service_s)

    with ScriptedServer(script) as server:
        pipe.send(server.url)
        while pipe.recv() == "count":
            pipe.send((len(arrived), arrived[0] if arrived else None))
            arrived.clear()
            server.requests.clear()
