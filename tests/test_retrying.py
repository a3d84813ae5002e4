"""Which failures are tried again, for how long, and which of them stop a run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from medix_eval.errors import (
    EndpointFault,
    ModelError,
    Overloaded,
    RequestFailed,
    RequestRejected,
    ServerError,
    TimedOut,
    Unreachable,
)
from medix_eval.models.chat import Completion, Prompt, Sampling
from medix_eval.models.requests import Gate, RetryingModel, RetryPolicy

PROMPT, SAMPLING = Prompt(text="?"), Sampling(max_tokens=1)


class Clock:
    """Time that passes while somebody sleeps; each sleep is noted."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(asyncio, "sleep", found.sleep)
    return found


class Failing:
    """Raises these errors in turn, or what it is told to by the time; then it answers."""

    def __init__(
        self,
        *errors: ModelError,
        clock: Clock | None = None,
        until: Callable[[float], ModelError | None] | None = None,
        takes_s: float = 0.0,
    ) -> None:
        self.errors, self.clock, self.until, self.takes_s = list(errors), clock, until, takes_s
        self.calls = 0

    async def complete(self, prompt: Prompt, sampling: Sampling) -> Completion:
        self.calls += 1
        if self.clock:
            self.clock.now += self.takes_s
            if self.until and (error := self.until(self.clock.now - 1000.0)):
                raise error
        if self.errors:
            raise self.errors.pop(0)
        return Completion(text="yes")


def retrying(model: Failing, clock: Clock, policy: RetryPolicy | None = None) -> RetryingModel:
    gate = Gate(limit=4, most=4)
    policy = policy or RetryPolicy()
    return RetryingModel(model=model, policy=policy, role="model", gate=gate, clock=clock)


def ask(model: Failing, clock: Clock, policy: RetryPolicy | None = None) -> Completion:
    return asyncio.run(retrying(model, clock, policy).complete(PROMPT, SAMPLING))


async def ask_together(model: RetryingModel, num: int) -> list[Completion | BaseException]:
    asked = (model.complete(PROMPT, SAMPLING) for _ in range(num))
    return await asyncio.gather(*asked, return_exceptions=True)


def test_a_passing_failure_is_tried_again_and_counted(clock: Clock) -> None:
    completion = ask(Failing(RequestFailed("500"), RequestFailed("reset")), clock)

    assert completion.text == "yes"
    assert completion.requests == 3
    assert clock.slept == sorted(clock.slept)


def test_the_tries_are_bounded(clock: Clock) -> None:
    model = Failing(*(RequestFailed("500") for _ in range(9)))

    with pytest.raises(RequestFailed) as caught:
        ask(model, clock)

    assert model.calls == caught.value.requests == 5
    assert len(clock.slept) == 4


def test_a_rejected_prompt_is_never_tried_again(clock: Clock) -> None:
    model = Failing(RequestRejected("too long"))

    with pytest.raises(RequestRejected):
        ask(model, clock)

    assert model.calls == 1
    assert clock.slept == []


def test_the_server_says_how_long_to_wait_but_not_for_ever(clock: Clock) -> None:
    asked = [Overloaded("429", retry_after_s=one) for one in (7.0, 9000.0)]

    ask(Failing(*asked), clock)

    first, second = clock.slept
    assert 7.0 <= first <= 8.75  # a little more, so that not all come back at once
    assert 60.0 <= second <= 75.0


@pytest.mark.parametrize("asked", [None, 0.0, 0.001])
def test_a_server_that_asks_for_no_wait_is_given_one(clock: Clock, asked: float | None) -> None:
    ask(Failing(*(Overloaded("429", retry_after_s=asked) for _ in range(4))), clock)

    assert [0.25, 0.5, 1.0, 2.0] <= clock.slept == sorted(clock.slept)


@pytest.mark.parametrize("kind", [Unreachable, Overloaded])
@pytest.mark.parametrize("outage_s", [4.0, 20.0, 80.0])
def test_an_outage_costs_no_sample(
    clock: Clock, kind: type[RequestFailed], outage_s: float
) -> None:
    model = Failing(clock=clock, until=lambda now: kind("down") if now < outage_s else None)

    found = asyncio.run(ask_together(retrying(model, clock), 64))

    assert [one.text for one in found if isinstance(one, Completion)] == ["yes"] * 64


def test_the_wait_for_a_server_that_is_gone_is_said_and_so_is_its_end(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    model = Failing(clock=clock, until=lambda now: Unreachable("refused") if now < 20 else None)

    ask(model, clock)

    first, last = caplog.messages
    assert first == "the model does not answer (refused): trying again for up to 300 s"
    assert last.startswith("the model answers again, after 2")


def test_a_server_that_is_gone_longer_than_patience_lasts_stops_the_run(clock: Clock) -> None:
    model = Failing(clock=clock, until=lambda _: Unreachable("refused"))

    with pytest.raises(ServerError, match=r"the model has not answered for 6\d s \(refused\)"):
        ask(model, clock, RetryPolicy(patience_s=60.0))

    assert 60.0 < clock.now - 1000.0 < 70.0


def test_that_others_cannot_connect_does_not_stop_a_server_that_works_on_one(clock: Clock) -> None:
    """A backlog that is full, for longer than patience lasts, while an answer is being written."""
    is_done = asyncio.Event()

    class Busy:
        async def complete(self, prompt: Prompt, sampling: Sampling) -> Completion:
            if prompt.text == "long":
                await is_done.wait()
            elif clock.now < 1400.0:
                raise Unreachable("refused")
            is_done.set()
            return Completion(text="yes")

    model = retrying(Failing(), clock)
    model.model = Busy()

    async def both() -> list[Completion]:
        asked = (model.complete(Prompt(text=one), SAMPLING) for one in ("long", "short"))
        return await asyncio.gather(*asked)

    assert [one.text for one in asyncio.run(both())] == ["yes", "yes"]


def test_what_is_turned_away_while_others_are_answered_is_tried_for_a_while(clock: Clock) -> None:
    """A limit of requests a minute lets one in every few seconds."""
    let_in = [1000.0]

    def limit(now: float) -> ModelError | None:
        if clock.now - let_in[-1] < 5.0:
            return Overloaded("429", retry_after_s=1.0)
        let_in.append(clock.now)
        return None

    found = asyncio.run(ask_together(retrying(Failing(clock=clock, until=limit), clock), 40))

    assert all(isinstance(one, Completion) for one in found)


def test_one_sample_that_is_always_turned_away_is_given_up(clock: Clock) -> None:
    model = retrying(Failing(clock=clock, until=lambda _: Overloaded("529")), clock)

    with pytest.raises(Overloaded):
        asyncio.run(model.complete(PROMPT, SAMPLING))

    assert 90.0 <= clock.now - 1000.0 < 240.0


def test_silence_over_several_requests_stops_the_run(clock: Clock) -> None:
    late = Failing(*(TimedOut("600 s") for _ in range(99)), clock=clock, takes_s=601.0)
    model = retrying(late, clock)

    found = asyncio.run(ask_together(model, 4))

    assert any(isinstance(one, ServerError) for one in found)
    assert "has not answered for" in str(found)


def test_a_command_that_was_stopped_and_continued_goes_on(clock: Clock) -> None:
    """The hour that passed on the clock is no silence of the server."""
    late = Failing(*(TimedOut("600 s") for _ in range(4)), clock=clock)

    def stopped_for_an_hour(now: float) -> None:
        clock.now += 3600.0 if late.calls == 1 else 0.0

    late.until = stopped_for_an_hour

    found = asyncio.run(ask_together(retrying(late, clock), 4))

    assert all(isinstance(one, Completion) for one in found)


def test_one_prompt_that_hangs_does_not_stop_the_run(clock: Clock) -> None:
    late = Failing(*(TimedOut("600 s") for _ in range(5)), clock=clock, takes_s=601.0)

    with pytest.raises(TimedOut):
        ask(late, clock)


def test_a_slow_answer_and_one_broken_connection_do_not_stop_the_run(clock: Clock) -> None:
    slow = Failing(RequestFailed("reset"), clock=clock, takes_s=500.0)

    found = asyncio.run(ask_together(retrying(slow, clock), 4))

    assert all(isinstance(one, Completion) for one in found)


def test_a_stray_fault_of_the_endpoint_is_tried_again(clock: Clock) -> None:
    assert ask(Failing(EndpointFault("401"), EndpointFault("HTML")), clock).text == "yes"


def test_an_endpoint_that_stays_bad_stops_the_run_with_its_words(clock: Clock) -> None:
    bad = Failing(clock=clock, until=lambda _: EndpointFault("answered 401", hint="the key?"))

    with pytest.raises(ServerError, match="answered 401") as caught:
        ask(bad, clock)

    assert caught.value.hint == "the key?"
    assert bad.calls == 5


def test_a_sample_that_a_firewall_keeps_back_does_not_stop_a_run(clock: Clock) -> None:
    class Firewall:
        async def complete(self, prompt: Prompt, sampling: Sampling) -> Completion:
            if prompt.text == "DROP TABLE":
                raise EndpointFault("403")
            return Completion(text="yes")

    model = retrying(Failing(), clock)
    model.model = Firewall()

    async def one_after_the_other() -> list[str]:
        found = []
        for text in ("one", "DROP TABLE", "two", "DROP TABLE", "three", "DROP TABLE", "four"):
            try:
                found.append(str((await model.complete(Prompt(text=text), SAMPLING)).text))
            except EndpointFault as error:
                found.append(str(error))
        return found

    assert asyncio.run(one_after_the_other()) == ["yes", "403", "yes", "403", "yes", "403", "yes"]
