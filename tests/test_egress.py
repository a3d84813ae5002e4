from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from medix_eval.errors import ConfigError, ModelError
from medix_eval.models.chat import ModelSource, Prompt, Sampling
from medix_eval.models.openai_server import OpenAIServer
from medix_eval.models.resolve import addresses_of, is_local, kept_local
from medix_eval.models.shared_load import SharedLoad
from medix_eval.testing import ScriptedServer


@pytest.fixture
def addresses(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}

    def resolve(host: str, port: object, *_: object, **__: object) -> list[tuple[object, ...]]:
        if host not in found:
            raise socket.gaierror("unknown host")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in found[host]]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return found


def at(*hosts: str, port: int = 8000) -> list[ModelSource]:
    return [OpenAIServer(model="scripted", base_url=f"http://{one}:{port}/v1") for one in hosts]


def check(
    *hosts: str, allowed: tuple[str, ...] = (), reason: str | None = None
) -> tuple[ModelSource, ...]:
    return kept_local(at(*hosts), tasks=["mimic"], allowed=allowed, reason=reason)


@pytest.mark.parametrize(
    ("found", "local"),
    [
        (["127.0.0.1"], "local"),
        (["::1", "127.0.0.1"], "local"),
        (["127.0.0.1", "192.0.2.7"], "foreign"),
        (["10.0.0.7"], "foreign"),
        (["::ffff:192.0.2.7"], "foreign"),
        (["0.0.0.0"], "foreign"),  # noqa: S104 (nothing listens)
        ([], "foreign"),
    ],
)
def test_a_host_is_local_only_if_all_its_addresses_are(
    addresses: dict[str, list[str]], found: list[str], local: str
) -> None:
    addresses["host"] = found

    assert is_local(addresses_of("host")) is (local == "local")


def test_restricted_data_is_not_sent_to_a_foreign_host(addresses: dict[str, list[str]]) -> None:
    addresses["localhost.example"] = ["192.0.2.7"]

    with pytest.raises(ConfigError, match=r"mimic: .* localhost\.example"):
        check("localhost.example")


def test_an_unknown_host_is_foreign(addresses: dict[str, list[str]]) -> None:
    with pytest.raises(ConfigError):
        check("nobody")


def test_the_user_can_allow_a_host_or_state_a_reason(addresses: dict[str, list[str]]) -> None:
    addresses["ward"] = ["10.0.0.7"]

    check("ward", allowed=("ward",))
    check("ward", reason="covered by contract 12")


@pytest.mark.parametrize("blank", ["", " ", "\t\n"])
def test_a_blank_reason_is_none(addresses: dict[str, list[str]], blank: str) -> None:
    addresses["ward"] = ["10.0.0.7"]

    with pytest.raises(ConfigError, match="may not be sent to ward"):
        check("ward", reason=blank)


def test_public_data_may_go_anywhere(addresses: dict[str, list[str]]) -> None:
    sources = at("nobody")

    assert kept_local(sources, tasks=[], allowed=(), reason=None) == tuple(sources)


def answers(source: ModelSource) -> int:
    """Ask until it answers or does not; return how often it did."""

    async def ask() -> int:
        async with source.open(Path()) as model:
            for number in range(3):
                try:
                    await model.complete(Prompt(text=f"{number}"), Sampling(max_tokens=1))
                except ModelError:
                    return number
        return 3

    return asyncio.run(ask())


@pytest.mark.parametrize("num", [1, 2], ids=["one server", "shared load"])
def test_a_name_that_turns_to_another_host_after_the_check_gets_nothing(
    addresses: dict[str, list[str]], num: int
) -> None:
    """The trick of DNS rebinding: a name is this machine when it is checked, and then another."""
    with ScriptedServer(lambda _: "yes") as server:
        port = int(server.url.split(":")[2].split("/")[0])
        asked: dict[str, Any] = {"model": "scripted", "base_url": f"http://ward:{port}/v1"}
        one: Any = OpenAIServer(**asked)
        source = SharedLoad(servers=(one, one)) if num > 1 else one
        addresses["ward"] = ["127.0.0.1"]
        (bound,) = kept_local([source], tasks=["mimic"], allowed=(), reason=None)
        addresses["ward"] = ["192.0.2.7"]

        assert answers(bound) == 3
        assert len(server.requests) == 3


def test_a_model_that_may_go_anywhere_asks_for_the_address_at_each_connection(
    addresses: dict[str, list[str]],
) -> None:
    with ScriptedServer(lambda _: "yes") as server:
        port = int(server.url.split(":")[2].split("/")[0])
        addresses["ward"] = ["127.0.0.1"]
        (free,) = kept_local(at("ward", port=port), tasks=[], allowed=(), reason=None)

        assert answers(free) == 3
