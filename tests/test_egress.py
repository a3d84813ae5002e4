from __future__ import annotations

import socket

import pytest

from medix_eval.errors import ConfigError
from medix_eval.evaluation.evaluation import is_local, refuse_foreign_hosts


@pytest.fixture
def addresses(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}

    def resolve(host: str, port: object) -> list[tuple[object, ...]]:
        del port
        if host not in found:
            raise socket.gaierror("unknown host")
        return [(None, None, None, "", (address, 0)) for address in found[host]]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return found


def check(*hosts: str, vouched: tuple[str, ...] = (), reason: str | None = None) -> None:
    refuse_foreign_hosts(tasks=["mimic"], hosts=hosts, vouched=vouched, reason=reason)


@pytest.mark.parametrize(
    ("found", "local"),
    [
        (["127.0.0.1"], "local"),
        (["::1", "127.0.0.1"], "local"),
        (["127.0.0.1", "192.0.2.7"], "foreign"),
        (["10.0.0.7"], "foreign"),
        ([], "foreign"),
    ],
)
def test_a_host_is_local_only_if_all_its_addresses_are(
    addresses: dict[str, list[str]], found: list[str], local: str
) -> None:
    addresses["host"] = found

    assert is_local("host") is (local == "local")


def test_restricted_data_is_not_sent_to_a_foreign_host(addresses: dict[str, list[str]]) -> None:
    addresses["localhost.example"] = ["192.0.2.7"]

    with pytest.raises(ConfigError, match=r"mimic: .* localhost\.example"):
        check("localhost.example")


def test_an_unknown_host_is_foreign(addresses: dict[str, list[str]]) -> None:
    with pytest.raises(ConfigError):
        check("nobody")


def test_the_user_can_vouch_for_a_host_or_state_a_reason(
    addresses: dict[str, list[str]],
) -> None:
    addresses["ward"] = ["10.0.0.7"]

    check("ward", vouched=("ward",))
    check("ward", reason="covered by contract 12")


def test_public_data_may_go_anywhere(addresses: dict[str, list[str]]) -> None:
    refuse_foreign_hosts(tasks=[], hosts=["nobody"], vouched=(), reason=None)
