"""Stand-ins for tests: a scripted OpenAI-compatible server, and a finished run of given samples.

with ScriptedServer(lambda request: "The answer is B.") as server:
    ...  # medix-eval --model openai:scripted --base-url {server.url}
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
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
    body: str | None = None
    """Sent as it is, in place of a completion: an error, HTML, half a JSON."""
    delay_s: float = 0.0
    drop: bool = False
    """Close the connection without an answer."""


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
        app = web.Application(client_max_size=256 * 1024**2)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._complete)
        self._serving = serving(app)
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
            said = self._script(body)
            reply = said if isinstance(said, Reply) else Reply(text=said)
            await asyncio.sleep(reply.delay_s)
        finally:
            self._in_flight -= 1
        if reply.drop:
            assert request.transport is not None  # noqa: S101 (the request is being served)
            request.transport.close()
            return web.Response()
        if reply.body is not None or reply.status != 200:  # noqa: PLR2004
            text = reply.body or json.dumps(_error(reply.text or "scripted"))
            kind = "text/html" if text.lstrip().startswith("<") else "application/json"
            return web.Response(
                text=text, status=reply.status, headers=dict(reply.headers), content_type=kind
            )
        return web.json_response(_completion(body, reply), headers=dict(reply.headers))


@contextmanager
def serving(app: web.Application) -> Iterator[int]:
    """Serve an application in a thread of its own, on the port that this yields."""
    loop = asyncio.new_event_loop()
    port: Future[int] = Future()

    def serve() -> None:
        asyncio.set_event_loop(loop)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        loop.run_until_complete(runner.setup())
        loop.run_until_complete(web.TCPSite(runner, "127.0.0.1", 0).start())
        port.set_result(runner.addresses[0][1])
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
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
