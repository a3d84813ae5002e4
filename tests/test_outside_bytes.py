"""What a server may send: it ends no run, fills no memory, and takes no key into a file."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from scripted_servers import HUB, Run, Serve, candidate

from medix_eval.errors import (
    EndpointFault,
    ModelError,
    Overloaded,
    RequestFailed,
    ServerError,
)
from medix_eval.models.chat import Completion, Prompt, Sampling
from medix_eval.models.openai_server import OpenAIServer
from medix_eval.testing import Reply

SAMPLING = Sampling(max_tokens=8)
KEY = "sk-planted-0123456789"
MIB = 1024**2


class RawServer:
    """Writes these bytes on a connection, request by request; keeps what it was asked."""

    def __init__(self, *replies: list[bytes]) -> None:
        self.replies, self.asked, self.sent = list(replies), [b""][:0], 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                size = [one for one in head.lower().split(b"\r\n") if b"content-length" in one]
                self.asked.append(await reader.readexactly(int(size[0].split(b":")[1])))
                for part in self.replies.pop(0) if self.replies else [b""]:
                    writer.write(part)
                    await writer.drain()
                    self.sent += len(part)
                    await asyncio.sleep(0.01)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def raw(*replies: list[bytes], **how: Any) -> AsyncIterator[tuple[Any, RawServer]]:
    """Yield a client of a server that writes these bytes."""
    written = RawServer(*replies)
    server = await asyncio.start_server(written.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    source = OpenAIServer(model="scripted", base_url=f"http://127.0.0.1:{port}/v1", **how)
    async with server, source.connect() as connected:
        yield connected, written


def answer(text: str, *, name: str = "x", **more: Any) -> bytes:
    choices = [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]
    return json.dumps({"id": name, "model": "scripted", "choices": choices, **more}).encode()


def reply(body: bytes, *, status: str = "200 OK", size: int | None = None, **more: str) -> bytes:
    headers = {"Content-Type": "application/json", "Content-Length": str(size or len(body))}
    headers |= {name.replace("_", "-"): value for name, value in more.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + body


async def ask(connected: Any, text: str = "?") -> Completion:
    found: Completion = await connected.complete(Prompt(text=text), SAMPLING)
    return found


UNREADABLE = {
    "empty": reply(b""),
    "half": reply(answer("A")[:30]),
    "and trailing bytes": reply(answer("A") + b"}"),
    "nested": reply(b'{"choices":' * 100_000),
    "a bare number": reply(b"1" * 100_000),
    "not UTF-8": reply(b'{"choices": [{"message": {"content": "\xff\xfe"}}]}'),
    "a stream": reply(b'data: {"choices": []}\n\n', Content_Type="text/event-stream"),
    "cut gzip": reply(gzip.compress(answer("A" * 999))[:-9], Content_Encoding="gzip"),
    "no gzip": reply(answer("A"), Content_Encoding="gzip"),
    "another compression": reply(answer("A"), Content_Encoding="br"),
    "fewer bytes than it says": reply(answer("A"), size=9999),
    "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n",
    "a bad chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n{}",
    "a header without end": b"HTTP/1.1 200 OK\r\nX: " + b"x" * MIB,
}


@pytest.mark.parametrize("sent", UNREADABLE.values(), ids=UNREADABLE)
async def test_a_reply_that_cannot_be_read_is_asked_for_again(sent: bytes) -> None:
    async with raw([sent], request_timeout_s=1.0) as (connected, _):
        with pytest.raises((RequestFailed, EndpointFault)):
            await ask(connected)


PACKED = {"gzip": gzip.compress(answer("A")), "deflate": zlib.compress(answer("A"))}


@pytest.mark.parametrize(("encoding", "body"), PACKED.items(), ids=PACKED)
async def test_a_packed_reply_is_unpacked(encoding: str, body: bytes) -> None:
    async with raw([reply(body, Content_Encoding=encoding)]) as (connected, _):
        assert (await ask(connected)).text == "A"


async def test_a_long_answer_is_read_whole() -> None:
    async with raw([reply(answer("é" * MIB))]) as (connected, _):
        assert len((await ask(connected)).text or "") == MIB


@pytest.mark.parametrize("says_so", [True, False], ids=["with a length", "in chunks"])
async def test_a_reply_without_end_is_left_after_some_mebibytes(says_so: bool) -> None:  # noqa: FBT001
    chunk = b"%x\r\n%b\r\n" % (MIB, b" " * MIB)
    head = (
        reply(b"", size=200 * MIB)
        if says_so
        else (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    )
    async with raw([head, *[chunk] * 200]) as (connected, server):
        with pytest.raises(RequestFailed, match="the reply has more than 8 MiB"):
            await ask(connected)
        await asyncio.sleep(0.1)

        assert server.sent < 40 * MIB  # what the system's buffers hold


async def test_a_bomb_is_not_unpacked() -> None:
    bomb = gzip.compress(b" " * (400 * MIB), compresslevel=9)
    async with raw([reply(bomb, Content_Encoding="gzip")]) as (connected, _):
        with pytest.raises(RequestFailed, match="the reply has more than 8 MiB"):
            await ask(connected)


async def test_an_answer_that_comes_twice_is_not_that_to_the_next_prompt() -> None:
    first, second = reply(answer("A", name="a-1")), reply(answer("B", name="a-2"))
    late = reply(answer("C", name="a-3"))
    async with raw([first, first], [second], [late]) as (connected, _):
        found = [(await ask(connected, "one")).text]
        await asyncio.sleep(0.05)  # the second one has come, on a connection that waits
        found.append((await ask(connected, "two")).text)

    assert found == ["A", "B"]


async def test_an_answer_that_comes_once_more_in_place_of_another_is_asked_for_again() -> None:
    """The first answer, on a connection of the next prompt: some proxies mix them up."""
    first = reply(answer("A", name="chatcmpl-1", created=1))
    other = reply(answer("A", name="chatcmpl-2", created=1))
    async with raw([first], [other], [other], [first]) as (connected, _):
        assert [(await ask(connected, one)).text for one in ("one", "two", "two")] == ["A"] * 3
        with pytest.raises(RequestFailed, match="its answer to another prompt"):
            await ask(connected, "three")


async def test_equal_answers_of_a_server_without_ids_are_answers() -> None:
    async with raw(*[[reply(answer("A", name="x"))]] * 3) as (connected, _):
        assert [(await ask(connected, one)).text for one in "123"] == ["A"] * 3


ECHOES = {
    "completion": (200, answer(f"B, said {KEY}")),
    "spelt otherwise": (200, answer("B, said ?").replace(b"?", b"\\u0073k-planted-0123456789")),
    "reasoning": (200, answer("B").replace(b'"role"', b'"reasoning": "%b", "role"' % KEY.encode())),
    "error": (400, json.dumps({"error": {"message": f"bad request with {KEY}"}}).encode()),
    "key error": (401, json.dumps({"error": {"message": f"Bearer {KEY} is not a key"}}).encode()),
    "plain text": (500, f"Traceback: Authorization: Bearer {KEY}".encode()),
    "served model": (200, answer("B").replace(b'"scripted"', b'"%b"' % KEY.encode())),
    "not a completion": (200, json.dumps({"choices": [], "seen": [KEY, {KEY: KEY}]}).encode()),
}  # fmt: skip


@pytest.mark.parametrize(("status", "body"), ECHOES.values(), ids=ECHOES)
async def test_a_key_that_a_server_repeats_is_taken_out_as_it_comes_in(
    monkeypatch: pytest.MonkeyPatch, status: int, body: bytes
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    kind = f"application/json; charset={KEY}"
    whole = reply(body, status=f"{status} x", Content_Type=kind)
    async with raw([whole], key_env="MY_KEY") as (connected, _):
        try:
            found = repr(await ask(connected))
        except (ModelError, ServerError) as error:
            found = f"{error!r} {error} {error.hint}"

    assert KEY not in found
    assert "[redacted]" in found


@pytest.mark.parametrize("key", ["EMPTY", "A", "none"])
async def test_a_key_that_is_a_word_takes_nothing_out_of_an_answer(
    monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("MY_KEY", key)
    async with raw([reply(answer(f"A: {key} of them"))], key_env="MY_KEY") as (connected, _):
        assert (await ask(connected)).text == f"A: {key} of them"


def test_a_key_in_an_address_is_sent_and_told_to_nobody(
    evaluate: Run, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medix_eval.models.requests._FIRST_WAIT_S", 0.001)
    paths: list[str] = []

    def script(body: dict[str, Any]) -> str | Reply:
        paths.append("asked")
        return f"B {KEY}" if len(paths) % 2 else Reply(status=500, text=f"at ?api_key={KEY}")

    server = serve(script)
    argv = ["--model", "openai:scripted", "--base-url", f"{server.url}?api_key={KEY}"]
    how = ["--tasks", "medqa", "--protocol", "rules", "--limit", "4"]
    code, out, err = evaluate(*argv, *how)

    assert code == 0
    assert paths
    assert KEY not in out + err
    assert [path for path in tmp_path.rglob("*") if holds(path, KEY)] == []
    (kept,) = tmp_path.rglob("run.json")
    assert "?api_key=[redacted]" in kept.read_text(encoding="utf-8")


def holds(path: Path, text: str) -> bool:
    return path.is_file() and text.encode() in path.read_bytes()


@pytest.mark.parametrize("key", ["two\nlines", "non-breaking\u00a0space"])
def test_a_key_that_no_header_can_carry_is_named(
    evaluate: Run, serve: Serve, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)

    code, _, err = evaluate(
        *candidate(serve(lambda _: "A")), "--tasks", "medqa", "--protocol", "rules"
    )

    assert code == 2
    assert err.startswith("error: OPENAI_API_KEY holds a key that no request can carry")
    assert key not in err


def test_an_address_keeps_its_query_behind_the_path() -> None:
    server = OpenAIServer(model="m", base_url="https://h/openai/v1/?api-version=2024-10-21#x")

    assert server.to("/models") == "https://h/openai/v1/models?api-version=2024-10-21"


@pytest.mark.parametrize("how", ["deleted", "moved"])
def test_a_run_folder_that_goes_away_is_noticed_at_once(
    evaluate: Run, serve: Serve, tmp_path: Path, how: str
) -> None:
    def script(body: dict[str, Any]) -> str:
        if len(server.requests) == 4:
            (folder,) = (path.parent for path in tmp_path.rglob("completions.jsonl"))
            if how == "moved":
                folder.rename(tmp_path / "elsewhere")
            else:
                subprocess.run(["rm", "-r", folder], check=True)  # noqa: S607
        return "A"

    server = serve(script)
    argv = [*candidate(server), "--tasks", "medqa", "--protocol", "rules", "--concurrency", "1"]
    code, _, err = evaluate(*argv)
    asked = len(server.requests)

    assert code == 2
    assert "was deleted or moved while it was written to" in err
    assert asked <= 5


@pytest.mark.slow
@pytest.mark.parametrize("limit", ["10", "14"])  # for a file of the task, and for a connection
def test_too_few_files_that_may_be_open_are_named_with_the_cure(
    serve: Serve, tmp_path: Path, limit: str
) -> None:
    server = serve(lambda _: Reply(text="A", delay_s=0.5))
    command = [sys.executable, "-m", "medix_eval", *candidate(server), "--tasks", "medqa"]
    command += ["--protocol", "rules", "--data-root", str(HUB), "--out", str(tmp_path / "out")]
    script = 'ulimit -n $0; exec "$@"'

    done = subprocess.run(
        ["bash", "-c", script, limit, *command, "--concurrency", "64"],  # noqa: S607
        capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, "HF_DATASETS_CACHE": str(tmp_path / "cache")},
    )  # fmt: skip

    assert done.returncode == 2, done.stderr
    assert "too many open files" in done.stderr.lower()
    assert "ulimit -n 4096" in done.stderr


@pytest.mark.parametrize(
    ("retry_after", "wait_s"),
    [
        ("Wed, 21 Oct 2015 07:28:30 GMT", 30.0),
        ("Wed, 21 Oct 2015 07:27:00 GMT", 0.0),
        ("2.5", 2.5),
        ("-3", 0.0),
        ("soon", None),
        ("", None),
    ],
)
async def test_a_time_to_come_back_is_one_of_the_servers_clock(
    retry_after: str, wait_s: float | None
) -> None:
    """Its clock, or ours, may be years off."""
    now = "Wed, 21 Oct 2015 07:28:00 GMT"
    turned_away = reply(b"{}", status="429 x", Retry_After=retry_after, Date=now)
    async with raw([turned_away]) as (connected, _):
        with pytest.raises(Overloaded) as caught:
            await ask(connected)

    assert caught.value.retry_after_s == wait_s
