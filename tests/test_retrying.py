from __future__ import annotations

import asyncio

import pytest

from medix_eval.errors import ModelError, RequestFailed, RequestRejected, ServerError, Unreachable
from medix_eval.models.chat import Completion, Prompt, Sampling
from medix_eval.models.requests import Gate, RetryingModel, RetryPolicy

PROMPT, SAMPLING = Prompt(text="?"), Sampling(max_tokens=1)


class Failing:
    """Raises these errors in turn, then answers."""

    def __init__(self, *errors: ModelError) -> None:
        self.errors = list(errors)
        self.calls = 0

    async def complete(self, prompt: Prompt, sampling: Sampling) -> Completion:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return Completion(text="yes")


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []

    async def sleep(seconds: float) -> None:
        found.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return found


def ask(model: Failing, policy: RetryPolicy | None = None) -> Completion:
    retried = RetryingModel(
        model=model, policy=policy or RetryPolicy(), role="model", gate=Gate(limit=4, most=4)
    )
    return asyncio.run(retried.complete(PROMPT, SAMPLING))


def test_a_passing_failure_is_tried_again_and_counted(waits: list[float]) -> None:
    completion = ask(Failing(RequestFailed("503"), RequestFailed("timeout")))

    assert completion.text == "yes"
    assert completion.requests == 3
    assert waits == sorted(waits)


def test_the_tries_are_bounded(waits: list[float]) -> None:
    model = Failing(*(RequestFailed("503") for _ in range(9)))

    with pytest.raises(RequestFailed) as caught:
        ask(model)

    assert model.calls == caught.value.requests == 5
    assert len(waits) == 4


def test_a_rejected_prompt_is_never_tried_again(waits: list[float]) -> None:
    model = Failing(RequestRejected("too long"))

    with pytest.raises(RequestRejected):
        ask(model)

    assert model.calls == 1
    assert waits == []


def test_the_server_says_how_long_to_wait_but_not_for_ever(waits: list[float]) -> None:
    ask(Failing(RequestFailed("429", retry_after_s=7), RequestFailed("429", retry_after_s=9000)))

    assert waits == [7, 60.0]


@pytest.mark.usefixtures("waits")
def test_many_failed_connections_in_a_row_stop_the_run() -> None:
    policy = RetryPolicy(tries=50)
    model = Failing(*(Unreachable("refused") for _ in range(50)))

    with pytest.raises(ServerError, match="connections to the model that failed in a row: 20"):
        ask(model, policy)

    assert model.calls == 20


@pytest.mark.usefixtures("waits")
def test_an_answer_in_between_starts_the_count_again() -> None:
    refused = [Unreachable("refused") for _ in range(15)]
    policy = RetryPolicy(tries=50)

    assert ask(Failing(*refused, RequestFailed("503"), *refused), policy).requests == 32


@pytest.mark.usefixtures("waits")
def test_silence_over_several_requests_stops_the_run() -> None:
    retried = RetryingModel(
        model=Failing(*(RequestFailed("timed out") for _ in range(20))),
        policy=RetryPolicy(silence_s=-1.0),
        role="model",
        gate=Gate(limit=4, most=4),
    )

    async def one_after_the_other() -> None:
        with pytest.raises(RequestFailed):
            await retried.complete(PROMPT, SAMPLING)
        with pytest.raises(RequestFailed):
            await retried.complete(PROMPT, SAMPLING)
        await retried.complete(PROMPT, SAMPLING)

    with pytest.raises(ServerError, match="has not answered for"):
        asyncio.run(one_after_the_other())


@pytest.mark.usefixtures("waits")
def test_one_prompt_that_hangs_does_not_stop_the_run() -> None:
    hanging = Failing(*(RequestFailed("timed out") for _ in range(5)))

    with pytest.raises(RequestFailed):
        ask(hanging, RetryPolicy(silence_s=-1.0))
