"""The local server of a bench, in a process of its own: neither its memory nor time is counted.

It reads a request and answers the same words after the same time, and does nothing else, so that
the limit that is measured is the client's.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import time
import zlib
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Self

from aiohttp import web

ANSWER = "a lesion"
VERDICT = '{"score": 1}'


def completion(text: str) -> bytes:
    """Return a reply as it goes over the wire."""
    message = {"role": "assistant", "content": text}
    return json.dumps(
        {
            "id": "bench",
            "object": "chat.completion",
            "created": 0,
            "model": "scripted",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 8, "completion_tokens": 2, "total_tokens": 10},
        }
    ).encode()


class BenchServer:
    """`with BenchServer(service_s=0.2) as server`; counts requests and notes the first.

    Of more than `slots` requests at once it serves so many and lets the others wait. Of several
    replies the prompt decides which it is given.
    """

    def __init__(
        self, *, service_s: float = 0.0, says: str | tuple[str, ...] = ANSWER, slots: int = 4096
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        replies = (says,) if isinstance(says, str) else says
        args = (theirs, service_s, replies, slots)
        self._process = context.Process(target=_serve, args=args, daemon=True)
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

    def count(self) -> tuple[int, float, float]:
        """Return the requests since the last count, and when the first and the last came."""
        self._ours.send("count")
        found: tuple[int, float, float] = self._ours.recv()
        return found


def _serve(pipe: Connection, service_s: float, says: tuple[str, ...], slots: int) -> None:
    asyncio.run(_answer(pipe, service_s, [completion(text) for text in says], slots))


async def _answer(pipe: Connection, service_s: float, replies: list[bytes], slots: int) -> None:
    arrived: list[float] = []
    free = asyncio.Semaphore(slots)

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "scripted"}]})

    async def complete(request: web.Request) -> web.Response:
        body = await request.read()
        arrived.append(time.time())
        if service_s:
            async with free:
                await asyncio.sleep(service_s)
        reply = replies[0]
        if len(replies) > 1:
            prompt = json.loads(body)["messages"][-1]["content"]
            reply = replies[zlib.crc32(prompt.encode()) % len(replies)]
        return web.Response(body=reply, content_type="application/json")

    app = web.Application(client_max_size=256 * 1024**2)
    app.router.add_get("/v1/models", models)
    app.router.add_post("/v1/chat/completions", complete)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    pipe.send(f"http://127.0.0.1:{runner.addresses[0][1]}/v1")
    while await asyncio.to_thread(pipe.recv) == "count":
        pipe.send((len(arrived), arrived[0] if arrived else 0.0, arrived[-1] if arrived else 0.0))
        arrived.clear()
    await runner.cleanup()
