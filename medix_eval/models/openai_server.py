"""Any OpenAI-compatible server, over one pooled HTTP session.

The wire format is posted directly instead of through the `openai` client: at 256 requests in
flight that client reaches half of what one session can, at five times the CPU.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import socket
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from email.utils import formatdate, parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit, urlunsplit

from pydantic_core import to_json

from medix_eval.errors import (
    MORE_FILES,
    NO_FILES,
    ConfigError,
    EndpointFault,
    NoText,
    OtherModel,
    Overloaded,
    RequestFailed,
    RequestRefused,
    RequestRejected,
    ServerError,
    TimedOut,
    Unreachable,
)
from medix_eval.models.chat import ChatModel, Completion, Prompt, Sampling
from medix_eval.models.requests import OF_THE_SAMPLE, ending_of, refusal_kind
from medix_eval.records import IMAGE_MARK
from medix_eval.storage.digests import (
    hidden_in,
    marked_name,
    shown_name,
    shown_url,
    without_secrets,
)
from medix_eval.storage.images import data_url
from medix_eval.storage.jsonl import parsed

if TYPE_CHECKING:
    import aiohttp
    from openai.types.chat import ChatCompletionContentPartParam, ChatCompletionMessageParam
    from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming

_CONNECT_TIMEOUT_S = 10.0
_HEADERS = {"Content-Type": "application/json", "Accept-Encoding": "gzip"}
_LARGEST_BODY = 8 * 1024**2
"""Bytes of a reply, unpacked; the longest completion of today's models has one."""
_CHECK_AGAIN_S = (0.5, 1.0)
_REMEMBERED = 4096
_MOST_SPOILT = 1000
_PLACE = f"image-{secrets.token_hex(16)}-"
"""Where an image goes in an encoded request; no prompt can hold it."""
_RETRYABLE = frozenset({408, 409, 425, 429})
_OVERLOADED = frozenset({429, 502, 503, 504, 529})
_OF_THE_ENDPOINT = frozenset({401, 403, 404})
_STOPS = {
    401: "check the key in {key_env}",
    402: "the account behind {key_env} has no credit",
    403: "the key in {key_env} may not use this model",
    404: "check the model name and {where}",
    "account": "the account behind {key_env} has nothing left; finished work is kept",
    "key": "check the key in {key_env} and what it may use",
    "model": "check the model behind {where}",
}
_TOO_LARGE = 413
_TOLD = ("root", "parent", "revision")
_SETTINGS = ("max_tokens", "max_completion_tokens", "temperature", "top_p", "seed")
"""Fields of a request that are the same for every sample."""
_NAMED = re.compile(
    r"(?i)\b(max_tokens|max_completion_tokens|top_p)\b|['\"`](temperature|seed)\b|"
    r"\b(temperature|seed)(?=:| is| must| does| extra)"
)
"""How an error names one; a patient has a temperature, too."""
_OF_A_SCHEMA = re.compile(
    r"(?i)response_format|json[_ ](schema|mode|output)|structured|guided|grammar|constrained"
)
_MODERATED = re.compile(r"(?i)requires moderation|content_(filter|policy)")
_OVERFLOWN = re.compile(r"(?i)context size has been exceeded|exceed_context_size")  # llama.cpp
_ECHOES = frozenset({"input", "ctx", "flagged_input", "url"})
"""Fields of an error that may repeat the prompt."""
_REASONING = ("reasoning_content", "reasoning", "reasoning_details")
"""Where servers put what they split off, the plainest first."""
_NOT_WHOLE = frozenset({"length", "content_filter", "failed"})
_DATED = re.compile(
    r"-(20\d\d-?(0[1-9]|1[0-2])-?([0-2]\d|3[01])|2\d(0[1-9]|1[0-2])|(0[1-9]|1[0-2])([0-2]\d|3[01]))"
)
"""How the id of a dated release goes on: `-2024-08-06`, `-20240229`, `-2411`, `-0613`."""


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
    aliases: tuple[str, ...] = ()
    """Other ids that its replies may carry; the user vouches for them."""
    addresses: tuple[str, ...] = ()
    """The only addresses of its host that requests go to; empty: whatever its name means then."""

    @property
    def name(self) -> str:
        """The name as given on the command line, of a folder on the server its own name."""
        return f"openai:{shown_name(self.model)}"

    @property
    def prefix(self) -> str:
        """How the flags of its role begin."""
        return "--judge-" if self.role == "judge" else "--"

    @property
    def where(self) -> str:
        """The address and who gave it, for messages."""
        return f"{self.prefix}base-url={self.address} (it usually ends in /v1)"

    @property
    def address(self) -> str:
        """The address as it may be shown: without a key that it carries."""
        return shown_url(self.base_url)

    def to(self, path: str) -> str:
        """Return the address of a part of the API; a query such as Azure's stays behind it."""
        parts = urlsplit(self.base_url)
        return urlunsplit(parts._replace(path=parts.path.rstrip("/") + path, fragment=""))

    def bound(self, addresses: Mapping[str, tuple[str, ...]]) -> Self:
        """Return the model, to be reached at these addresses of its host only."""
        return replace(self, addresses=addresses[self.hosts[0]])

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
        aliases = sorted(map(marked_name, self.aliases))
        vouched = {"aliases": aliases} if aliases else {}
        host = urlsplit(self.base_url).netloc
        return {"kind": "openai", "id": marked_name(self.model), "host": host, **vouched}

    def is_served_as(self, served: str) -> bool:
        """Whether a reply under this id is the model's: its own, a dated form, or vouched for.

        >>> OpenAIServer(model="gpt-4o", base_url="").is_served_as("gpt-4o-2024-08-06")
        True
        """
        asked, served = self.model.casefold(), served.casefold()
        if served == asked or served in map(str.casefold, self.aliases):
            return True
        family = asked.removesuffix("-latest")
        return served.startswith(family) and bool(_DATED.fullmatch(served[len(family) :]))

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
        if not (key.isascii() and key.isprintable()):
            hint = "copy it again, as one line"
            raise ConfigError(f"{self.key_env} holds a key that no request can carry", hint=hint)
        timeout = aiohttp.ClientTimeout(
            total=self.request_timeout_s, connect=None, sock_connect=_CONNECT_TIMEOUT_S
        )
        async with aiohttp.ClientSession(
            connector=_connector(self.addresses),
            auto_decompress=False,
            timeout=timeout,
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=_HEADERS | ({"Authorization": f"Bearer {key}"} if key else {}),
        ) as session:
            hidden = filter(None, (key, *hidden_in(self.base_url)))
            yield Connected(self, session, tuple(hidden))


@dataclass(frozen=True, slots=True)
class Connected:
    """A session with one server."""

    server: OpenAIServer
    session: aiohttp.ClientSession
    secrets: tuple[str, ...] = ()
    """What no text of the server may hold: a key that it repeats would be in every file."""
    served: dict[str, str] = field(default_factory=dict)
    """What the server's list says that its model is, such as `root`."""
    answers: dict[int, int] = field(default_factory=dict)
    """The last answers, each with what it was given to."""
    ids: dict[str, None] = field(default_factory=dict)
    """The ids of the last replies: two, if they have ids of their own."""

    async def check(self) -> None:
        """Check the list of models; a server without one (404, 405) is trusted."""
        reply: Any = None
        for wait_s in (*_CHECK_AGAIN_S, None):
            try:
                status, reply, _ = await self._request("GET", "/models")
                if status in {404, 405}:
                    return
                self._refuse(status, reply)
                break
            except RequestFailed as error:
                if wait_s is None or isinstance(error, Unreachable):
                    hint = error.hint or f"is the server running? {self.server.where}"
                    raise ServerError(str(error), hint=hint) from error
                await asyncio.sleep(wait_s)
        rows = reply.get("data") if isinstance(reply, dict) else None
        listed = {str(row.get("id")): row for row in rows or () if isinstance(row, dict)}
        served, told = [*listed], listed.get(self.server.model, {})
        self.served.update(
            {key: marked_name(told[key]) for key in _TOLD if isinstance(told.get(key), str)}
        )
        if served and self.server.model not in served:
            shown = ", ".join(served[:5]) + (" ..." if len(served) > 5 else "")  # noqa: PLR2004
            raise ConfigError(
                f"{self.server.address} does not serve {self.server.model!r}",
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
        body = _encoded({**fields, **prompt.extra}, prompt.images)
        status, reply, wait_s = await self._request("POST", "/chat/completions", body)
        self._refuse(status, reply, prompt, wait_s=wait_s)
        completion = _completion(reply, self._choice(reply, prompt))
        if self._is_repeated(reply, completion, prompt):
            raise RequestFailed("the server sent its answer to another prompt once more")
        served = str(reply.get("model") or "").strip()
        if served not in {"", self.server.model}:
            if not self.server.is_served_as(served):
                raise OtherModel(
                    f"{shown_name(self.server.model)} was asked, but {shown_name(served)} answered",
                    hint=f"if they are one, {self.server.prefix}allow-model-alias {served}",
                )
            completion.served_model = shown_name(served)
        return completion

    async def _request(
        self, method: str, path: str, body: bytes | None = None
    ) -> tuple[int, Any, float | None]:
        """Return status, what was said, and how many seconds the server asks to wait."""
        import aiohttp  # noqa: PLC0415

        url = self.server.to(path)
        try:
            async with self.session.request(method, url, data=body, allow_redirects=False) as found:
                raw = await _body(found)
                status, headers = found.status, found.headers
        except (TimeoutError, aiohttp.ClientError, OSError, zlib.error) as error:
            if getattr(error, "errno", None) in NO_FILES:
                said = f"too many open files: no connection to {self.server.address}"
                raise ConfigError(said, hint=MORE_FILES) from error
            cause = getattr(error, "os_error", None)
            plain = os.strerror(cause.errno or 0) if isinstance(cause, ConnectionError) else error
            said = " ".join(str(plain).split()) or type(error).__name__
            said = without_secrets(said, self.secrets)
            if isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)):
                raise Unreachable(f"no connection to {self.server.address}: {said}") from error
            kind = TimedOut if isinstance(error, TimeoutError) else RequestFailed
            raise kind(f"{self.server.address}: {said}") from error
        marks = (*map(str.encode, self.secrets), b"\\u", b"\\/")  # JSON can spell a key otherwise
        may_hide = self.secrets and any(one in raw for one in marks)
        try:
            reply = parsed(raw)
            reply = without_secrets(reply, self.secrets) if may_hide else reply
        except (ValueError, RecursionError) as error:
            kind = without_secrets(headers.get("Content-Type", "no type"), self.secrets)
            if status == 200 and "json" in kind:  # noqa: PLR2004
                raise RequestFailed(f"{self.server.address} answered with half a reply") from error
            if status == 200:  # noqa: PLR2004
                raise EndpointFault(
                    f"{self.server.address} answered with {kind}, not JSON",
                    hint=f"an OpenAI-compatible API is expected at {self.server.where}",
                ) from error
            reply = without_secrets(raw[:200].decode(errors="replace"), self.secrets)
        return status, reply, _retry_after_s(headers)

    def _is_repeated(self, reply: Any, completion: Completion, asked: Prompt) -> bool:
        """Tell whether this answer was that to another prompt: it would be read as this one's.

        Proxies mix connections up. Where all replies have one id it cannot be told.
        """
        name, created = str(reply.get("id")), reply.get("created")
        answer = hash((name, str(created), completion.text))
        question = hash((asked.text, asked.images, asked.before))
        is_repeated = self.answers.setdefault(answer, question) != question
        self.ids.setdefault(name)
        if len(self.answers) > _REMEMBERED:
            del self.answers[next(iter(self.answers))]
        if len(self.ids) > 2:  # noqa: PLR2004
            del self.ids[next(iter(self.ids))]
        return is_repeated and len(self.ids) > 1

    def _choice(self, reply: Any, asked: Prompt) -> dict[str, Any]:
        """Return the first choice. Raises what an error says that a gateway passes as a success."""
        reply = reply if isinstance(reply, dict) else {"": reply}
        choices = reply.get("choices")
        first = choices[0] if isinstance(choices, list) and choices else None
        choice: dict[str, Any] = first if isinstance(first, dict) else {}
        message = choice.get("message")
        inner = message.get("error") if isinstance(message, dict) else None
        flat = reply if reply.get("object") == "error" else None
        errors = (reply.get("error"), reply.get("errors"), flat, choice.get("error"), inner)
        for error in filter(None, errors):
            code = str(error.get("code")) if isinstance(error, dict) else ""
            self._refuse(int(code) if re.fullmatch(r"[45]\d\d", code) else 502, error, asked)
        if not isinstance(message, dict):
            raise RequestFailed(f"the reply has no completion: {str(reply)[:200]}")
        return choice

    def _refuse(
        self, status: int, reply: Any, asked: Prompt | None = None, *, wait_s: float | None = None
    ) -> None:
        """Raise what an error is about: the account, the set-up, the sample, or this moment."""
        if status < 300:  # noqa: PLR2004
            return
        if status < 400:  # noqa: PLR2004
            # Followed, it would carry samples to a host that nobody has checked.
            raise EndpointFault(
                f"{self.server.address} answered {status}: redirected",
                hint=f"give the final address of the API in {self.server.where}",
            )
        # What is kept and told must not repeat the prompt, which may be restricted.
        said = [_without(one, asked.text if asked else "") for one in _sayings(reply)]
        words = " ".join(said)[:4000]
        message = f"answered {status}: {next((one for one in said if ' ' in one), words)[:300]}"
        at, kind = f"{self.server.address} {message}", refusal_kind(words)
        passes = status in _RETRYABLE or status >= 500  # noqa: PLR2004
        is_own = kind in OF_THE_SAMPLE and not isinstance(reply, str)
        if passes or status in _STOPS:  # a firewall and a crash say many things
            is_own = bool((_OVERFLOWN if passes else _MODERATED).search(words))
        if status == _TOO_LARGE and kind != "rate":
            is_own, kind = True, "too_long"
        if is_own:
            kind = kind if kind in OF_THE_SAMPLE else "content_filter"
            raise RequestRejected(message, kind=kind)
        if (passes or kind == "rate") and kind != "account":
            is_overloaded = status in _OVERLOADED or kind == "rate"
            raise (Overloaded if is_overloaded else RequestFailed)(at, retry_after_s=wait_s)
        if asked and asked.schema is not None and _OF_A_SCHEMA.search(words):
            raise RequestRefused(message, is_schema=True)
        setting, about = _setting(reply, words, asked), status if status in _STOPS else kind
        if setting and status not in _STOPS:
            hint = f"it refuses {setting!r}, and so every request: use a server that takes it"
            hint += ", or --set judge.thinking=as_is" * bool(asked and setting in asked.extra)
            raise ServerError(at, hint=hint)
        if about in _STOPS:
            known = {"key_env": self.server.key_env, "where": self.server.where}
            stops = EndpointFault if about in _OF_THE_ENDPOINT else ServerError
            raise stops(at, hint=_STOPS[about].format(**known))
        raise RequestRefused(message)


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
        body = body.replace(b"%b%d-" % (_PLACE.encode(), index), data_url(image), 1)
    return body


def _completion(reply: Mapping[str, Any], choice: Mapping[str, Any]) -> Completion:
    """Read a choice; reasoning that a server splits off is put back in front."""
    message, usage = choice["message"], reply.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    reason = _reason(choice.get("finish_reason"))
    if ending_of(reason) == "stop":  # a gateway may say so of what its own server cut or broke off
        others = map(_reason, (choice.get("native_finish_reason"), reply.get("status")))
        reason = next((one for one in others if ending_of(one) in _NOT_WHOLE), reason)
    parts = _parts(message.get("content"))
    text, refusal = parts.get("text"), message.get("refusal") or parts.get("refusal")
    split = next(filter(None, map(message.get, _REASONING)), None)
    reasoning = parts.get("thinking", "") + _text_of(split)
    details = usage.get("completion_tokens_details")
    is_hidden = isinstance(details, dict) and details.get("reasoning_tokens")
    is_blank = not (text or "").strip()
    if refusal and is_blank:
        text, reason = str(refusal), "refusal"
    elif message.get("tool_calls") and is_blank:
        text = None
    elif reasoning:
        text = f"<think>{reasoning}</think>{text or ''}"
    return Completion(
        text=text,
        finish_reason=reason,
        thought_only=bool(reasoning or split or is_hidden) and is_blank,
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
    )


def _reason(value: Any) -> str | None:
    """Return a finish reason as text, in whatever a server wraps it."""
    value = value[0] if isinstance(value, list) and value else value
    value = value.get("type") if isinstance(value, dict) else value
    return None if value is None else str(value)


def _count(value: Any) -> int | None:
    return value if type(value) is int else None


def _parts(content: Any) -> dict[str, str]:
    """Return `text`, `thinking` and `refusal` of a content, which is text or a list of parts."""
    if isinstance(content, str):
        return {"text": content}
    if not isinstance(content, list | None):
        raise NoText(f"the completion is {type(content).__name__}, not text")
    found: dict[str, str] = {}
    for part in content or ():
        kind = str(part.get("type", "text")) if isinstance(part, dict) else "text"
        is_thought = kind == "reasoning" or (isinstance(part, dict) and part.get("thought"))
        kind = "thinking" if is_thought else kind.removeprefix("output_")
        found[kind] = found.get(kind, "") + _text_of(part)
    return found


def _text_of(part: Any) -> str:
    """Return the text of a part of a content, however deep it lies."""
    if not isinstance(part, dict):
        return part if isinstance(part, str) else "".join(map(_text_of, part or ()))
    keys = ("text", "thinking", "reasoning", "refusal", "summary", "content")
    return next((_text_of(part[key]) for key in keys if key in part), "")


def _sayings(error: Any) -> Iterator[str]:
    """Yield all texts of an error, but for what may be the prompt."""
    if isinstance(error, str) and error.startswith(("{", "[")):
        with suppress(ValueError, RecursionError):
            error = parsed(error.encode(errors="replace"))
    if isinstance(error, dict):
        error = [value for key, value in error.items() if key not in _ECHOES]
    if isinstance(error, list):
        for one in error:
            yield from _sayings(one)
    elif error is not None:
        yield " ".join(str(error).split())


def _without(said: str, prompt: str) -> str:
    """Leave out what an error repeats of the prompt, three words or more: it may say anything."""
    words, asked = said.split(), re.findall(r"\w+", prompt.casefold())
    plain = [re.sub(r"\W", "", one).casefold() for one in words]
    echoed = {*zip(asked, asked[1:], asked[2:], strict=False)}
    threes = enumerate(zip(plain, plain[1:], plain[2:], strict=False))
    hidden = {at + n for at, three in threes if three in echoed for n in range(3)}
    return " ".join(word for at, word in enumerate(words) if at not in hidden)


def _setting(reply: Any, words: str, asked: Prompt | None) -> str | None:
    """Return the setting of our requests that an error names: in a field of it, or in its words."""
    error = reply.get("error", reply) if isinstance(reply, dict) else {}
    param = error.get("param") if isinstance(error, dict) else None
    if isinstance(param, str) and (name := re.split(r"[.\[]", param)[0]) in (*_SETTINGS, "model"):
        return name
    if extra := [name for name in (asked.extra if asked else ()) if name in words]:
        return extra[0]
    found = _NAMED.search(words)
    return next(filter(None, found.groups())) if found else None


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Read `Retry-After`: seconds, or a date by the server's clock, which need not be ours."""
    if not (header := headers.get("Retry-After", "")):
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        now = parsedate_to_datetime(headers.get("Date") or formatdate(usegmt=True))
        return max(0.0, (parsedate_to_datetime(header) - now).total_seconds())
    except (ValueError, TypeError):
        return None


def _connector(addresses: tuple[str, ...]) -> aiohttp.TCPConnector:
    """Return what opens connections: to these addresses only, if there are any."""
    import aiohttp  # noqa: PLC0415
    from aiohttp.abc import AbstractResolver, ResolveResult  # noqa: PLC0415

    class Pinned(AbstractResolver):
        async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
            return [
                {
                    "hostname": host,
                    "host": one,
                    "port": port,
                    "family": socket.AF_INET6 if ":" in one else socket.AF_INET,
                    "proto": 0,
                    "flags": socket.AI_NUMERICHOST,
                }
                for one in addresses
            ]

        async def close(self) -> None:
            pass

    class Connector(aiohttp.TCPConnector):
        async def connect(self, *request: Any, **how: Any) -> Any:
            """Leave out a connection on which something came that nobody asked for."""
            for _ in range(_MOST_SPOILT):
                found = await super().connect(*request, **how)
                if found.protocol is None or not found.protocol.should_close:
                    return found
                found.close()
            raise aiohttp.ClientConnectionError("the server speaks before it is asked")

    return Connector(limit=0, resolver=Pinned() if addresses else None)


async def _body(found: aiohttp.ClientResponse) -> bytes:
    """Return the bytes of a reply, unpacked; raise `RequestFailed` for too many or too few."""
    length = found.content_length
    if length is not None and length <= _LARGEST_BODY:
        raw = await found.read()
    else:
        parts = bytearray()
        async for part in found.content.iter_any():
            parts += part
            if len(parts) > _LARGEST_BODY:
                break
        raw = bytes(parts)
    if len(raw) <= _LARGEST_BODY:
        if found.headers.get("Content-Encoding", "identity").strip().lower() == "identity":
            return raw
        unpacking = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
        raw = unpacking.decompress(raw, _LARGEST_BODY + 1)
        if unpacking.eof:
            return raw
        if len(raw) <= _LARGEST_BODY:
            raise RequestFailed("the reply is cut")
    raise RequestFailed(f"the reply has more than {_LARGEST_BODY >> 20} MiB")
