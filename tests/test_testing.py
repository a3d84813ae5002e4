"""A faulty server does what its faults say, seen by a client that only knows bytes."""

from __future__ import annotations

import gzip
import json
import math
import socket
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any

import pytest

from medix_eval.testing import FAULTS, FaultyServer, prompt_text

KEY = "sk-planted-0f3a"
GOOD = "The answer is B."


@dataclass
class Heard:
    """All that came on one connection, until the server ended it."""

    raw: bytes
    was_reset: bool
    seconds: float

    @property
    def status(self) -> int:
        return int(self.raw.split(b" ", 2)[1])

    @cached_property
    def headers(self) -> dict[str, str]:
        lines = self.raw.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
        return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}

    @property
    def body(self) -> bytes:
        return self.raw.partition(b"\r\n\r\n")[2]

    @property
    def is_short(self) -> bool:
        return len(self.body) < int(self.headers["content-length"])

    @property
    def text(self) -> Any:
        return json.loads(self.body)["choices"][0]["message"]["content"]


def ask(url: str, prompt: str = "Which?", *, most: float = math.inf) -> Heard:
    host, port = url.removeprefix("http://").removesuffix("/v1").split(":")
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": prompt}]})
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n"
        f"Authorization: Bearer {KEY}\r\nConnection: close\r\n\r\n"
    )
    started, raw, was_reset = time.monotonic(), bytearray(), False
    with socket.create_connection((host, int(port)), timeout=30) as opened:
        opened.sendall((head + body).encode())
        try:
            while len(raw) < most and (part := opened.recv(2**20)):
                raw += part
        except ConnectionResetError:
            was_reset = True
    return Heard(bytes(raw), was_reset, time.monotonic() - started)


def is_busy_until(date: str, low: float, high: float) -> bool:
    return low < parsedate_to_datetime(date).timestamp() - time.time() < high


def unpacks(body: bytes) -> bytes:
    return zlib.decompressobj(wbits=31).decompress(body)


def fails_with(status: int) -> Callable[[Heard], bool]:
    return lambda heard: (heard.status, [*json.loads(heard.body)]) == (status, ["error"])


def asks_to_wait(value: str) -> Callable[[Heard], bool]:
    return lambda heard: (heard.status, heard.headers["retry-after"]) == (429, value)


WAITS = {
    "number": "1",
    "zero": "0",
    "negative": "-5",
    "fraction": "0.5",
    "year": "31536000",
    "garbage": "soon",
}
DOES: dict[str, Callable[[Heard], bool]] = {
    "latency": lambda heard: heard.text == GOOD and heard.seconds >= 0.05,
    "out of order": lambda heard: heard.text == GOOD and heard.seconds >= 0.1,
    "slow drip": lambda heard: heard.text == GOOD and heard.seconds >= len(heard.body) / 1000,
    "duplicate": lambda heard: heard.raw[: len(heard.raw) // 2] * 2 == heard.raw,
    "huge body": lambda heard: heard.text == GOOD and len(heard.body) > 200 * 2**20,
    "gzip": lambda heard: GOOD.encode() in gzip.decompress(heard.body),
    "gzip cut": lambda heard: not heard.is_short and 0 < len(unpacks(heard.body)) < 400,
    "gzip bomb": lambda heard: len(heard.body) < 2**21 and len(unpacks(heard.body)) == 300 * 2**20,
    **{str(status): fails_with(status) for status in (401, 404, 429, 500, 502, 503)},
    **{f"429 {kind}": asks_to_wait(value) for kind, value in WAITS.items()},
    "429 date": lambda heard: is_busy_until(heard.headers["retry-after"], 0, 3),
    "429 past": lambda heard: is_busy_until(heard.headers["retry-after"], -math.inf, -3600),
    "503 page": lambda heard: heard.status == 503 and heard.body.startswith(b"<html>"),
    "reset": lambda heard: heard.was_reset and heard.raw == b"",
    "reset in body": lambda heard: heard.was_reset and heard.is_short,
    "closed in body": lambda heard: not heard.was_reset and heard.is_short,
    "cut chunk": lambda heard: (
        heard.headers["transfer-encoding"] == "chunked"
        and len(heard.body) < int(heard.body.split(b"\r\n")[0], 16)
    ),
    "page": lambda heard: heard.status == 200 and heard.headers["content-type"].startswith("text/"),
    "cut json": lambda heard: not heard.is_short and not is_json(heard.body),
    "trailing bytes": lambda heard: heard.body.endswith(b"} {") and not is_json(heard.body),
    "deep json": lambda heard: heard.body.count(b"[") == heard.body.count(b"]") == 100_000,
    "json list": lambda heard: json.loads(heard.body) == [1, 2],
    "json number": lambda heard: json.loads(heard.body) == 42,
    "empty": lambda heard: (heard.status, heard.body) == (200, b""),
    "null content": lambda heard: heard.text is None,
    "bad utf-8": lambda heard: heard.status == 200 and b"\xff" in heard.body,
    "events": lambda heard: heard.body.startswith(b"data: ") and b"[DONE]" in heard.body,
    "redirect": lambda heard: (heard.status, heard.headers["location"]) == (307, "/elsewhere"),
    "other model": lambda heard: json.loads(heard.body)["model"] == "other-m",
}


def is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except ValueError:
        return False
    return True


def test_every_fault_has_a_check_and_is_described() -> None:
    assert DOES.keys() == FAULTS.keys()
    assert all(FAULTS.values())


@pytest.mark.parametrize("name", DOES)
def test_a_fault_does_what_it_says_and_then_comes_an_answer(name: str) -> None:
    with FaultyServer(lambda _: GOOD, faults=[name], share=1.0, times=1) as server:
        heard, after = ask(server.url), ask(server.url)

    assert DOES[name](heard), (heard.raw[:500], heard)
    assert after.text == GOOD
    assert server.given == {name: 1}


def test_the_same_seed_fails_the_same_requests_in_any_order() -> None:
    prompts = [f"Question {number}?" for number in range(40)]

    def met(order: list[str], seed: int) -> dict[str, list[int]]:
        with FaultyServer(lambda _: GOOD, faults=("404", "500", "503"), seed=seed) as server:
            heard: dict[str, list[int]] = {prompt: [] for prompt in sorted(prompts)}
            for prompt in order * 3:
                heard[prompt].append(ask(server.url, prompt).status)
            return heard

    once = met(prompts, 7)

    assert once == met(prompts[::-1], 7)
    assert once != met(prompts, 8)
    assert {status for each in once.values() for status in each} == {200, 404, 500, 503}
    assert 8 < sum(status != 200 for each in once.values() for status in each) < 50


def test_no_prompt_fails_more_often_than_it_may() -> None:
    with FaultyServer(lambda _: GOOD, faults=["503"], share=1.0, times=3) as server:
        met = [ask(server.url).status for _ in range(5)]

    assert met == [503, 503, 503, 200, 200]


def test_a_server_that_fails_for_ever_never_answers() -> None:
    with FaultyServer(lambda _: GOOD, faults=["page"], share=1.0, times=math.inf) as server:
        assert all(b"<html>" in ask(server.url).body for _ in range(10))


def test_an_outage_refuses_connections_and_ends_on_the_same_port() -> None:
    with FaultyServer(lambda _: GOOD, share=0.0) as server:
        assert ask(server.url).text == GOOD
        started = time.monotonic()
        server.outage(0.6)
        refused, back = 0, b""
        while not (refused and back) and time.monotonic() - started < 10:
            try:
                back = ask(server.url).raw
            except ConnectionRefusedError:
                refused += 1
                time.sleep(0.02)
        seconds = time.monotonic() - started

    assert refused > 5
    assert 0.5 < seconds < 5
    assert GOOD.encode() in back


def test_an_outage_drops_who_waits_for_an_answer() -> None:
    with FaultyServer(lambda _: GOOD, faults=["latency"], share=0.0) as server:
        address = ("127.0.0.1", int(server.url.split(":")[2].removesuffix("/v1")))
        with socket.create_connection(address, timeout=10) as idle:
            idle.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n")
            time.sleep(0.1)
            server.outage(0.2)

            assert idle.recv(100) == b""


def test_a_redirect_leads_to_the_place_that_is_given_and_counts_who_comes() -> None:
    with FaultyServer(
        lambda _: GOOD, faults=["redirect"], share=1.0, elsewhere="http://127.0.0.1:9/v1"
    ) as server:
        away = ask(server.url).headers["location"]
    with FaultyServer(lambda _: GOOD, faults=["redirect"], share=1.0) as server:
        ask(server.url.replace("/v1", "") + "/v1")
        host, port = server.url.removeprefix("http://").removesuffix("/v1").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as opened:
            opened.sendall(b"GET /elsewhere/v1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            opened.recv(1000)

    assert away == "http://127.0.0.1:9/v1"
    assert server.given == {"redirect": 1, "followed": 1}


@pytest.mark.parametrize("name", ["503", "503 page", "401", "page"])
def test_errors_repeat_the_header_that_holds_the_key(name: str) -> None:
    says = "you sent {authorization}"
    with FaultyServer(lambda _: GOOD, faults=[name], share=1.0, says=says) as server:
        assert f"you sent Bearer {KEY}" in ask(server.url).body.decode()


def test_completions_repeat_the_header_that_holds_the_key() -> None:
    def script(body: dict[str, Any]) -> str:
        return f"{prompt_text(body)} {{authorization}}"

    with FaultyServer(script, share=0.0) as server:
        assert ask(server.url, "Who?").text == f"Who? Bearer {KEY}"


def test_a_client_that_goes_away_does_not_stop_the_server() -> None:
    with FaultyServer(lambda _: GOOD, faults=["huge body"], share=1.0, times=1) as server:
        begun = ask(server.url, most=2**20)

        assert begun.status == 200
        assert ask(server.url).text == GOOD
