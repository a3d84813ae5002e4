"""Any OpenAI-compatible server, over one pooled HTTP session.

The wire format is posted directly instead of through the `openai` client: at 256 requests in
flight that client reaches half of what one session can, at five times the CPU.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic_core import to_json

from medix_eval.errors import (
    ConfigError,
    ReplyUnusable,
    RequestFailed,
    RequestRejected,
    ServerError,
    Unreachable,
)
from medix_eval.models.chat import ChatModel, Completion, Prompt, Sampling
from medix_eval.records import IMAGE_MARK
from medix_eval.storage.images import data_url, in_8_bits
from medix_eval.storage.jsonl import parsed

if TYPE_CHECKING:
    import aiohttp
    from openai.types.chat import ChatCompletionContentPartParam, ChatCompletionMessageParam
    from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming

_CONNECT_TIMEOUT_S = 10.0
_JSON = {"Content-Type": "application/json"}
_PLACE = f"image-{secrets.token_hex(16)}-"
"""Where an image goes in an encoded request; no prompt can hold it."""
_RETRYABLE = frozenset({408, 409, 425, 429})
_STOPS = {
    401: "check the key in {key_env}",
    402: "the account behind {key_env} has no credit",
    403: "the key in {key_env} may not use this model",
    404: "check the model name and {where}",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAIServer:
    """A model behind `POST {base_url}/chat/completions`."""

    model: str
    base_url: str
    key_env: str = "OPENAI_API_KEY"
    concurrency: int = 256
    adapts: bool = True
    """Whether the number in flight is tuned, up to `concurrency`; else it is fixed."""
    request_timeout_s: float = 600.0
    role: str = "model"
    """Its name in messages: `model` or `judge`."""

    @property
    def name(self) -> str:
        """The name as given on the command line."""
        return f"openai:{self.model}"

    @property
    def where(self) -> str:
        """The address and who gave it, for messages."""
        flag = "--judge-base-url" if self.role == "judge" else "--base-url"
        return f"{flag}={self.base_url} (it usually ends in /v1)"

    @property
    def hosts(self) -> tuple[str, ...]:
        """The server's host."""
        return (urlsplit(self.base_url).hostname or "",)

    @property
    def devices(self) -> frozenset[str]:
        """None: the server has its own."""
        return frozenset()

    @property
    def takes_images(self) -> None:
        """Unknown: the API cannot tell."""

    def identity(self) -> dict[str, Any]:
        """Return the served id and the host: all that an endpoint tells about itself."""
        return {"kind": "openai", "id": self.model, "host": urlsplit(self.base_url).netloc}

    @asynccontextmanager
    async def open(self, logs: Path) -> AsyncIterator[ChatModel]:
        """Open the session and check that the server answers and serves the model."""
        async with self.connect() as connected:
            await connected.check()
            yield connected

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Connected]:
        """Open the session, without checking that the server answers."""
        import aiohttp  # noqa: PLC0415 (150 ms, off the way of `--help`)

        key = os.environ.get(self.key_env, "").strip()
        timeout = aiohttp.ClientTimeout(
            total=self.request_timeout_s, connect=None, sock_connect=_CONNECT_TIMEOUT_S
        )
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=timeout,
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=_JSON | ({"Authorization": f"Bearer {key}"} if key else {}),
        ) as session:
            yield Connected(self, session)


@dataclass(frozen=True, slots=True)
class Connected:
    """A session with one server."""

    server: OpenAIServer
    session: aiohttp.ClientSession

    async def check(self) -> None:
        """Check the list of models; a server without one (404, 405) is trusted."""
        try:
            status, reply = await self._request("GET", "/models")
        except RequestFailed as error:
            hint = f"is the server running? {self.server.where}"
            raise ServerError(str(error), hint=hint) from error
        if status in {404, 405}:
            return
        self._refuse(status, reply)
        rows = reply.get("data") if isinstance(reply, dict) else None
        served = [str(row.get("id")) for row in rows or () if isinstance(row, dict)]
        if served and self.server.model not in served:
            shown = ", ".join(served[:5]) + (" ..." if len(served) > 5 else "")  # noqa: PLR2004
            raise ConfigError(
                f"{self.server.base_url} does not serve {self.server.model!r}",
                hint=f"it serves: {shown}",
            )

    async def complete(self, prompt: Prompt, sampling: Sampling) -> Completion:
        """Post one prompt and read the first choice."""
        fields: CompletionCreateParamsNonStreaming = {
            "model": self.server.model,
            "messages": _messages(prompt),
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sampling.seed,
        }
        if prompt.schema is not None:
            fields["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "reply", "strict": True, "schema": dict(prompt.schema)},
            }
        body = _encoded(fields, prompt.images)
        status, reply = await self._request("POST", "/chat/completions", body)
        self._refuse(status, reply)
        return _completion(reply)

    async def _request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
        import aiohttp  # noqa: PLC0415

        url = self.server.base_url.rstrip("/") + path
        try:
            async with self.session.request(
                method, url, data=body, allow_redirects=False
            ) as response:
                raw = await response.read()
                status, headers = response.status, response.headers
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise Unreachable(f"no connection to {self.server.base_url}: {_said(error)}") from error
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise RequestFailed(f"{self.server.base_url}: {_said(error)}") from error
        if status in _RETRYABLE or status >= 500:  # noqa: PLR2004
            said = raw[:200].decode(errors="replace")
            raise RequestFailed(
                f"{self.server.base_url} answered {status}: {said}",
                retry_after_s=_retry_after_s(headers.get("Retry-After")),
            )
        try:
            return status, parsed(raw)
        except (ValueError, RecursionError) as error:
            if status == 200:  # noqa: PLR2004
                raise ServerError(
                    f"{url} answered with {headers.get('Content-Type', 'no type')}, not JSON",
                    hint=f"an OpenAI-compatible API is expected at {self.server.where}",
                ) from error
            return status, raw[:200].decode(errors="replace")

    def _refuse(self, status: int, reply: Any) -> None:
        if status < 300:  # noqa: PLR2004
            return
        if status < 400:  # noqa: PLR2004
            # Followed, it would carry samples to a host that nobody has checked.
            raise ServerError(
                f"{self.server.base_url} answered {status}: redirected",
                hint=f"give the final address of the API in {self.server.where}",
            )
        said = _error_message(reply)
        if status in _STOPS:
            raise ServerError(
                f"{self.server.base_url} answered {status}: {said}",
                hint=_STOPS[status].format(key_env=self.server.key_env, where=self.server.where),
            )
        raise RequestRejected(f"answered {status}: {said}")


def _messages(prompt: Prompt) -> list[ChatCompletionMessageParam]:
    """Return the dialogue, its last turn being the prompt."""
    messages: list[ChatCompletionMessageParam] = []
    for said, replied in prompt.before:
        messages.append({"role": "user", "content": said})
        messages.append({"role": "assistant", "content": replied})
    return [*messages, {"role": "user", "content": _content(prompt)}]


def _content(prompt: Prompt) -> str | list[ChatCompletionContentPartParam]:
    """Return the user turn: text and images in the order of the prompt's `<image>` marks."""
    if not prompt.images:
        return prompt.text
    parts: list[ChatCompletionContentPartParam] = []
    for index, text in enumerate(prompt.text.split(IMAGE_MARK, len(prompt.images))):
        if index:
            parts.append({"type": "image_url", "image_url": {"url": f"{_PLACE}{index - 1}-"}})
        if text.strip():
            parts.append({"type": "text", "text": text.strip("\n")})
    return parts


def _encoded(fields: Mapping[str, Any], images: tuple[bytes, ...]) -> bytes:
    """Return the request as JSON; images go in behind the encoder, which would read every byte."""
    body = to_json(fields)
    for index, image in enumerate(images):
        url = data_url(in_8_bits(image))
        body = body.replace(b"%b%d-" % (_PLACE.encode(), index), url, 1)
    return body


def _completion(reply: Any) -> Completion:
    """Read the first choice; reasoning that a server splits off is put back in front."""
    try:
        choice = reply["choices"][0]
        message = choice["message"]
        text = message.get("content")
        reasoning = message.get("reasoning_content") or message.get("reasoning")
        usage = reply.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        reason = choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ReplyUnusable(f"the reply has no completion: {str(reply)[:200]}") from error
    if not isinstance(text, str | None):
        raise ReplyUnusable(f"the completion is {type(text).__name__}, not text")
    if isinstance(reasoning, str) and reasoning:
        text = f"<think>{reasoning}</think>{text or ''}"
    return Completion(
        text=text,
        finish_reason=reason if isinstance(reason, str) else None,
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
    )


def _count(value: Any) -> int | None:
    return value if type(value) is int else None


def _error_message(reply: Any) -> str:
    if isinstance(reply, dict):
        error = reply.get("error", reply)
        reply = error.get("message", error) if isinstance(error, dict) else error
    return " ".join(str(reply).split())[:300]


def _retry_after_s(header: str | None) -> float | None:
    """Read `Retry-After`, which is a number of seconds or a date."""
    if not header:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    from datetime import UTC, datetime  # noqa: PLC0415

    try:
        return max(0.0, (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def _said(error: BaseException) -> str:
    return str(error) or type(error).__name__
