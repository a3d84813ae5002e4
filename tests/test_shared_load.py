"""Several servers of one model, really running, one of them dying."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from medix_eval.data.samples import side_by_side
from medix_eval.errors import ConfigError, ServerError, Unreachable
from medix_eval.models import shared_load
from medix_eval.models.chat import ChatModel, Prompt, Sampling
from medix_eval.models.openai_server import OpenAIServer
from medix_eval.models.requests import Gate, RetryingModel, RetryPolicy
from medix_eval.models.shared_load import SharedLoad
from medix_eval.testing import Reply, ScriptedServer

SAMPLING = Sampling(max_tokens=8)


def slow(_: dict[str, Any]) -> Reply:
    return Reply(text="yes", delay_s=0.2)


def servers_at(*urls: str, concurrency: int = 16) -> SharedLoad:
    return SharedLoad(
        servers=tuple(
            OpenAIServer(model="scripted", base_url=url, concurrency=concurrency, adapts=False)
            for url in urls
        )
    )


def ask_all(source: SharedLoad, num: int) -> list[str | None]:
    """Ask `num` prompts through the retries of a run; return the answers."""

    async def ask() -> list[str | None]:
        async with source.open(Path()) as model:
            asker = retrying(model, source)
            prompts = [Prompt(text=f"prompt {number}") for number in range(num)]
            found = await asyncio.gather(*(asker.complete(one, SAMPLING) for one in prompts))
            return [one.text for one in found]

    return asyncio.run(ask())


def retrying(model: ChatModel, source: SharedLoad) -> RetryingModel:
    gate = Gate(limit=source.concurrency, most=source.concurrency)
    return RetryingModel(model=model, policy=RetryPolicy(), role="model", gate=gate)


@pytest.mark.slow
def test_each_of_three_servers_gets_its_share() -> None:
    with ScriptedServer(slow) as one, ScriptedServer(slow) as two, ScriptedServer(slow) as three:
        texts = ask_all(servers_at(one.url, two.url, three.url), 144)
        shares = [len(server.requests) for server in (one, two, three)]

    assert texts == ["yes"] * 144
    assert sum(shares) == 144
    assert min(shares) >= 24  # 48 each, but where a busy machine lets one answer sooner


@pytest.mark.slow
def test_the_load_of_a_server_that_dies_is_answered_by_the_others() -> None:
    with ScriptedServer(slow) as one, ScriptedServer(slow) as two:
        dying = ScriptedServer(slow).__enter__()
        source = servers_at(dying.url, one.url, two.url)

        async def ask() -> tuple[list[str | None], int]:
            async with source.open(Path()) as model:
                asker = retrying(model, source)
                prompts = [Prompt(text=f"prompt {number}") for number in range(240)]
                asked = [asyncio.create_task(asker.complete(one, SAMPLING)) for one in prompts]
                await asyncio.gather(*asked[:80])
                done = sum(task.done() for task in asked)
                await asyncio.to_thread(dying.__exit__, None, None, None)
                found = await asyncio.gather(*asked)
                return [each.text for each in found], done

        texts, done = asyncio.run(ask())

    assert 0.2 < done / 240 < 0.8
    assert texts == ["yes"] * 240


def test_a_server_that_is_down_at_first_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    with ScriptedServer(lambda _: "yes") as one:
        texts = ask_all(servers_at("http://127.0.0.1:9/v1", one.url), 8)

    assert texts == ["yes"] * 8
    assert "the other servers take its load" in caplog.text


def test_without_any_server_the_run_does_not_begin() -> None:
    with pytest.raises(ServerError, match="no connection to http"):
        ask_all(servers_at("http://127.0.0.1:9/v1", "http://127.0.0.1:10/v1"), 1)


def test_a_server_of_another_model_is_not_just_left_out() -> None:
    with (
        ScriptedServer(lambda _: "yes") as one,
        ScriptedServer(lambda _: "no", model="other") as other,
        pytest.raises(ConfigError, match="does not serve 'scripted'"),
    ):
        ask_all(servers_at(one.url, other.url), 1)


def test_a_server_comes_back_when_it_answers_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(shared_load, "time", SimpleNamespace(monotonic=lambda: now))
    with ScriptedServer(lambda _: "yes") as one:
        gone = ScriptedServer(lambda _: "yes").__enter__()
        source = servers_at(gone.url, one.url)

        async def ask() -> int:
            nonlocal now
            async with source.open(Path()) as model:
                shared: Any = model
                member = shared.members[0]
                member.failed(Unreachable("down"))
                await model.complete(Prompt(text="now"), SAMPLING)
                before = len(gone.requests)
                now += 5
                await model.complete(Prompt(text="later"), SAMPLING)
                return len(gone.requests) - before

        came_back = asyncio.run(ask())
        gone.__exit__(None, None, None)

    assert came_back == 1


BAD = {
    "a web page": Reply(body="<html>welcome</html>"),
    "an empty reply": Reply(body=" "),
    "half a reply": Reply(body='{"choices": [{"mess'),
    "more than a reply": Reply(body='{"choices": []} and so on'),
    "nested too deep": Reply(body="[" * 100_000),
    "a stream": Reply(body='data: {"choices": []}\n\ndata: [DONE]\n\n'),
    "a redirect": Reply(status=307, headers={"Location": "http://192.0.2.7/"}),
    "no key": Reply(status=401, text="bad key"),
    "no model": Reply(status=404, text="no such model"),
    "no credit": Reply(status=402, text="pay first"),
    "broken": Reply(status=500, text="broken"),
    "overloaded": Reply(status=429, text="slow down"),
    "no answer": Reply(drop=True),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_the_load_of_a_server_that_is_bad_in_any_way_is_answered_by_the_others(bad: Reply) -> None:
    with ScriptedServer(lambda _: bad) as one, ScriptedServer(lambda _: "yes") as two:
        texts = ask_all(servers_at(one.url, two.url), 40)

    assert texts == ["yes"] * 40
    assert len(one.requests) < 40


def test_a_server_that_stays_bad_is_told_of_with_its_words(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shared_load, "_LEFT_OUT_S", 0.0)

    with ScriptedServer(lambda _: BAD["no key"]) as one, ScriptedServer(lambda _: "yes") as two:
        ask_all(servers_at(one.url, two.url), 40)

    told = [line for line in caplog.messages if "bad key" in line]
    assert told == [f"{one.url} answered 401: bad key; the other servers take its load"]


def test_only_where_every_server_stays_bad_the_run_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medix_eval.models.requests._FIRST_WAIT_S", 0.001)
    with (
        ScriptedServer(lambda _: BAD["no key"]) as one,
        ScriptedServer(lambda _: BAD["a web page"]) as two,
        pytest.raises(ServerError, match=r"401|text/html"),
    ):
        ask_all(servers_at(one.url, two.url), 4)


def test_rows_that_share_an_image_are_sent_one_after_the_other() -> None:
    clusters = ["a", "b", "a", "c", "b", "a"]

    assert side_by_side([0, 1, 3, 4, 5, 2], clusters) == [0, 5, 2, 1, 4, 3]
    assert side_by_side([2, 0], None) == [2, 0]
