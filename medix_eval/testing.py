"""Stand-ins for tests: scripted OpenAI-compatible servers, and a finished run of given samples.

with ScriptedServer(lambda request: "The answer is B.") as server:
    ...  # medix-eval --model openai:scripted --base-url {server.url}

with FaultyServer(lambda request: "B", faults=["503", "reset", "gzip bomb"], seed=7) as server:
    ...  # your own client; `FAULTS` says what each fault does, `server.given` counts them
    server.outage(20)  # connections are refused for so long
"""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from functools import cache
from itertools import chain, repeat
from pathlib import Path
from typing import Any, Self

from aiohttp import web

from medix_eval.data.tasks import Catalogue
from medix_eval.evaluation.evaluation import write_scores
from medix_eval.records import CompletionRecord, VerdictRecord
from medix_eval.results.store import JudgingManifest, RunManifest, TaskEntry, open_judging, open_run
from medix_eval.storage.digests import digest
from medix_eval.storage.version import __version__


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A complete answer; a plain string means `Reply(text=...)`."""

    text: str | None = None
    finish_reason: str = "stop"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | bytes | None = None
    """Sent as it is, in place of a completion: an error, HTML, half a JSON."""
    delay_s: float = 0.0
    drop: bool = False
    """Close the connection without an answer."""
    reset: bool = False
    """Reset it, without an answer or behind `raw`."""
    raw: Iterable[bytes | float] = ()
    """Written to the connection in place of HTTP, with seconds of silence; then it is closed."""


Script = Callable[[dict[str, Any]], str | Reply | None]


class ScriptedServer:
    """A server in a thread of its own; it keeps every request body it was sent."""

    def __init__(
        self, script: Script, *, model: str = "scripted", models_status: int = 200
    ) -> None:
        self.requests: list[dict[str, Any]] = []
        self.most_in_flight = 0
        self._script = script
        self._model = model
        self._models_status = models_status
        self._in_flight = 0
        self._app = web.Application(client_max_size=256 * 1024**2)
        self._app.router.add_get("/v1/models", self._models)
        self._app.router.add_post("/v1/chat/completions", self._complete)
        self._serving = serving(self._app)
        self._port = 0

    @property
    def url(self) -> str:
        """The value for `--base-url`."""
        return f"http://127.0.0.1:{self._port}/v1"

    def __enter__(self) -> Self:
        self._port = self._serving.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._serving.__exit__(None, None, None)

    async def _models(self, request: web.Request) -> web.Response:
        del request
        if self._models_status != 200:  # noqa: PLR2004
            return web.json_response(_error("scripted"), status=self._models_status)
        return web.json_response({"object": "list", "data": [_listed(self._model)]})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        self.requests.append(body)
        self._in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self._in_flight)
        try:
            reply = self._reply(body, request.headers.get("Authorization", ""))
            await asyncio.sleep(reply.delay_s)
        finally:
            self._in_flight -= 1
        if reply.drop or reply.reset or reply.raw:
            await _write_raw(request, reply)
            return web.Response()
        if reply.body is not None or reply.status != 200:  # noqa: PLR2004
            said = json.dumps(_error(reply.text or "scripted"))
            sent = said if reply.body is None else reply.body
            sent = sent.encode() if isinstance(sent, str) else sent
            kind = "text/html" if sent.lstrip().startswith(b"<") else "application/json"
            headers = {"Content-Type": f"{kind}; charset=utf-8", **reply.headers}
            return web.Response(body=sent, status=reply.status, headers=headers)
        return web.json_response(_completion(body, reply), headers=dict(reply.headers))

    def _reply(self, body: dict[str, Any], authorization: str) -> Reply:
        said = self._script(body)
        return said if isinstance(said, Reply) else Reply(text=said)


async def _write_raw(request: web.Request, reply: Reply) -> None:
    transport = request.transport
    if transport is None:
        return  # the client has gone
    for piece in reply.raw:
        if isinstance(piece, bytes) and not transport.is_closing():
            transport.write(piece)
        await asyncio.sleep(0.0 if isinstance(piece, bytes) else piece)
        while transport.get_write_buffer_size() > _MIB:  # noqa: ASYNC110 (a transport tells nobody)
            await asyncio.sleep(0.002)
    if reply.reset:
        lingers = struct.pack("ii", 1, 0)  # for no time: what is closed so is reset
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, lingers)
    transport.close()


_MIB = 1024**2


def _json(body: bytes = b"", size: int = 0, length: str = "Content-Length: {size}") -> bytes:
    head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + length + "\r\n\r\n"
    return head.format(size=size or len(body)).encode() + body


_bomb = cache(lambda: gzip.compress(b" " * 300 * _MIB, 1))
_GZIP = {"Content-Encoding": "gzip"}
_PAGE = "<html><body><h1>Gateway</h1><p>{says}</p></body></html>"
_EVENTS = 'data: {"object": "chat.completion.chunk", "choices": []}\n\ndata: [DONE]\n\n'
_WAITS = {
    "number": "1", "zero": "0", "negative": "-5", "fraction": "0.5", "year": "31536000",
    "date": "{ahead}", "past": "Wed, 21 Oct 2015 07:28:00 GMT", "garbage": "soon",
}  # fmt: skip
_FAULTS: dict[str, tuple[str, Reply | Callable[[bytes, float], Reply]]] = {
    "latency": ("lags", lambda good, dice: Reply(body=good, delay_s=min(0.05 / (1 - dice), 5.0))),
    "out of order": ("is passed", lambda good, dice: Reply(body=good, delay_s=0.1 + dice / 2)),
    "slow drip": ("answers byte by byte", lambda good, _: Reply(raw=chain(
        [_json(size=len(good))], *((bytes([one]), 0.001) for one in good)))),
    "duplicate": ("answers twice at once", lambda good, _: Reply(raw=(_json(good) * 2, 1.0))),
    "gzip": ("packs its answer", lambda good, _: Reply(body=gzip.compress(good), headers=_GZIP)),
    "gzip cut": ("cuts it", lambda good, _: Reply(body=gzip.compress(good)[:-40], headers=_GZIP)),
    "gzip bomb": ("packs 300 MiB of blanks", lambda *_: Reply(body=_bomb(), headers=_GZIP)),
    "huge body": ("sends 200 MiB: blanks, then a good answer", lambda good, _: Reply(raw=chain(
        [_json(size=200 * _MIB + len(good))], repeat(b" " * _MIB, 200), [good]))),
    **{str(one): (f"answers {one}", Reply(status=one)) for one in (401, 404, 429, 500, 502, 503)},
    **{f"429 {kind}": (f"is busy, Retry-After: {value}",
        Reply(status=429, headers={"Retry-After": value})) for kind, value in _WAITS.items()},
    "503 page": ("answers 503 with a page in HTML", Reply(status=503, body=_PAGE)),
    "reset": ("resets the connection before an answer", Reply(reset=True)),
    "reset in body": ("resets it within the body", lambda good, dice: Reply(
        reset=True, raw=(_json(good[: int(dice * len(good))], len(good)), 0.01))),
    "closed in body": ("closes it within the body", lambda good, dice: Reply(
        raw=(_json(good[: int(dice * len(good))], len(good)),))),
    "cut chunk": ("closes it within a chunk of the body", lambda good, _: Reply(raw=(
        _json(b"%x\r\n%b" % (len(good), good[:-20]), length="Transfer-Encoding: chunked"),))),
    "page": ("answers 200 with a page in HTML", Reply(body=_PAGE)),
    "cut json": ("answers 200 with half a JSON", lambda good, _: Reply(body=good[:-20])),
    "trailing bytes": ("has more behind the JSON", lambda good, _: Reply(body=good + b" {")),
    "deep json": ("answers 100,000 nested lists", Reply(body="[" * 100_000 + "]" * 100_000)),
    "json list": ("answers a list", Reply(body="[1, 2]")),
    "json number": ("answers a number", Reply(body="42")),
    "empty": ("answers 200 with nothing", Reply(body="")),
    "null content": ("answers null", lambda *_: Reply()),
    "bad utf-8": ("answers no text", lambda good, _: Reply(body=good.replace(b': "', b': "\xff'))),
    "events": ("streams", Reply(body=_EVENTS, headers={"Content-Type": "text/event-stream"})),
    "redirect": ("redirects", Reply(status=307, headers={"Location": "{elsewhere}"})),
    "other model": ("is another",
        lambda good, _: Reply(body=good.replace(b'"model": "', b'"model": "other-'))),
}  # fmt: skip
FAULTS: Mapping[str, str] = {name: does for name, (does, _) in _FAULTS.items()}
"""Every fault of a `FaultyServer`, and what the server then does."""


@dataclass(eq=False)
class FaultyServer(ScriptedServer):
    """A scripted server; a share of its requests meets a fault, at most `times` for one prompt.

    Seed, prompt and how often it came decide, never the order of arrival. `{authorization}` in
    `says`, the words of errors, and in the script's texts is that header of the request.
    """

    script: Script
    faults: Collection[str] = tuple(FAULTS)
    seed: int = 0
    share: float = 0.2
    times: float = 2
    says: str = "scripted"
    elsewhere: str = "/elsewhere"  # where `redirect` leads
    given: Counter[str] = field(default_factory=Counter, init=False)
    """How many of each fault were sent; under `followed`, who came elsewhere by a redirect."""

    def __post_init__(self) -> None:
        super().__init__(self.script)
        self._came, self._failed = Counter[str](), Counter[str]()
        self._app.router.add_route("*", "/elsewhere{rest:.*}", self._follow)

    def outage(self, seconds: float) -> None:
        """Drop all connections and refuse new ones for so long; returns at once."""
        asyncio.run_coroutine_threadsafe(self._rest(seconds), self._app[_SERVED][0])

    async def _rest(self, seconds: float) -> None:
        loop, runner, listener = served = self._app[_SERVED]
        loop.remove_reader(listener)  # who was accepted while it closes would hang
        await asyncio.sleep(0.01)
        for site in runner.sites:
            await site.stop()
        await runner.server.shutdown(0.01)
        served[2] = listener = socket.socket()  # holds the port, and does not listen yet
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self._port))
        await asyncio.sleep(seconds)
        await web.SockSite(runner, listener).start()

    def _reply(self, body: dict[str, Any], authorization: str) -> Reply:
        def filled(text: Any) -> Any:
            for place, value in places.items():
                text = text.replace(place, value) if isinstance(text, str) else text
            return text

        places = {
            "{says}": self.says,
            "{authorization}": authorization,
            "{elsewhere}": self.elsewhere,
            "{ahead}": formatdate(time.time() + 2, usegmt=True),
        }
        reply = super()._reply(body, authorization)
        reply = replace(reply, text=filled(reply.text))
        prompt = json.dumps(body["messages"])
        draw = random.Random(f"{self.seed} {self._came[prompt]} {prompt}")  # noqa: S311
        self._came[prompt] += 1
        if self._failed[prompt] >= self.times or draw.random() >= self.share:
            return reply
        self._failed[prompt] += 1
        name = draw.choice([*self.faults])
        self.given[name] += 1
        made = _FAULTS[name][1]
        if not isinstance(made, Reply):
            return made(json.dumps(_completion(body, reply)).encode(), draw.random())
        headers = {name: filled(value) for name, value in made.headers.items()}
        return replace(made, text=filled("{says}"), body=filled(made.body), headers=headers)

    async def _follow(self, _: web.Request) -> web.Response:
        self.given["followed"] += 1
        return web.Response()


_SERVED = web.AppKey("served", list[Any])  # the loop, its runner, and the socket that listens


@contextmanager
def serving(app: web.Application) -> Iterator[int]:
    """Serve an application in a thread of its own, on the port that this yields."""
    loop = asyncio.new_event_loop()
    port: Future[int] = Future()

    def serve() -> None:
        asyncio.set_event_loop(loop)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        app[_SERVED] = [loop, runner, socket.create_server(("127.0.0.1", 0))]
        loop.run_until_complete(runner.setup())
        loop.run_until_complete(web.SockSite(runner, app[_SERVED][2]).start())
        port.set_result(runner.addresses[0][1])
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        app[_SERVED][2].close()
        loop.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield port.result(timeout=30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=30)


def prompt_text(body: Mapping[str, Any]) -> str:
    """Return the text of a request's user turn, images left out."""
    content = body["messages"][-1]["content"]
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if part["type"] == "text")


def _listed(model: str) -> dict[str, Any]:
    return {"id": model, "object": "model", "created": 0, "owned_by": "scripted"}


def _error(said: str) -> dict[str, Any]:
    return {"error": {"message": said, "type": "scripted", "param": None, "code": None}}


def _completion(body: Mapping[str, Any], reply: Reply) -> dict[str, Any]:
    words = len((reply.text or "").split())
    asked = len(prompt_text(body).split())
    return {
        "id": "scripted",
        "object": "chat.completion",
        "created": 0,
        "model": body["model"],
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": reply.text},
                "finish_reason": reply.finish_reason,
            }
        ],
        "usage": {
            "prompt_tokens": asked,
            "completion_tokens": words,
            "total_tokens": asked + words,
        },
    }


def write_run(
    out: Path,
    samples: Iterable[tuple[CompletionRecord, VerdictRecord]],
    *,
    model: str = "scripted",
    groups: Mapping[str, tuple[str, ...]] | None = None,
    judging: Mapping[str, Any] | None = None,
    **entry: Any,
) -> Path:
    """Write a finished run of these samples, without asking any model; return its judging folder.

    `entry` sets fields of every task's `TaskEntry`, such as `data_class="dua"`.
    """
    listed = list(samples)
    sizes = Counter(completion.task for completion, _ in listed)
    kinds = {completion.task: completion.kind for completion, _ in listed}
    manifest = RunManifest(
        model=model,
        generation_digest=digest([model]),
        generation={"model": {"kind": "scripted"}, "generation": {"max_tokens": 2048}},
        tasks={
            key.partition("@")[0]: TaskEntry.model_validate(
                {
                    "version": key.partition("@")[2],
                    "digest": digest(key),
                    "source": {"path": "ORG/NAME", "revision": None},
                    "synthetic": False,
                    "num_rows": size,
                    "data_class": "public",
                    "modality": "text",
                    "kind": kinds[key],
                    "limit": None,
                    "seed": 0,
                    "rows": None,
                    **entry,
                }
            )
            for key, size in sizes.items()
        },
        limits={},
        versions={"medix-eval": __version__},
        hardware={},
        started="2026-01-01T00:00:00+00:00",
    )
    names = {vote.judge for _, verdict in listed for vote in verdict.votes}
    judging_manifest = JudgingManifest(
        protocol={"name": "medix" if names else "rules", "digest": digest("protocol")},
        judges=[{"id": name, "revision": None, "digest": digest(name)} for name in sorted(names)],
        judging_digest=digest(sorted(names)),
        judging={"judges": sorted(names), **(judging or {})},
        tasks=list(manifest.tasks),
    )
    with open_run(out, manifest) as run, open_judging(run, judging_manifest) as opened:
        for completion, verdict in listed:
            run.append(completion)
            opened.append(verdict)
    catalogue = Catalogue(tasks={}, groups=groups or {})
    write_scores(run.path, opened.path, catalogue)
    return opened.path
