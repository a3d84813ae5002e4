from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medix_eval.errors import ServerError
from medix_eval.models.requests import FIRST, Gate, each, gate_for


class Server:
    """Serves at most `bears` at once, each in 0.2 s, the rest in a queue: in simulated time."""

    def __init__(self, bears: int) -> None:
        self.bears = bears
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    def run(self, gate: Gate, *, rounds: int) -> int:
        """Answer `rounds` full rounds at whatever the limit is; return the last limit."""
        for _ in range(rounds):
            limit = gate.limit
            for _ in range(limit):
                self.now += 0.2 / min(limit, self.bears)
                gate.answered()
        return gate.limit


@pytest.mark.parametrize("bears", [4, 16, 64, 100, 200])
def test_the_search_finds_about_what_the_server_bears(bears: int) -> None:
    server = Server(bears)
    gate = Gate(limit=FIRST, most=256, clock=server.clock)

    found = server.run(gate, rounds=12)

    assert max(FIRST, 0.6 * bears) <= found <= max(FIRST * 2, 2 * bears)


def test_an_overload_halves_the_limit_once_a_moment() -> None:
    server = Server(64)
    gate = Gate(limit=64, most=256, clock=server.clock)

    for _ in range(5):
        gate.overloaded()

    assert gate.limit == 32


def test_lasting_overload_goes_down_to_one_and_no_further() -> None:
    server = Server(64)
    gate = Gate(limit=64, most=256, clock=server.clock)
    for _ in range(20):
        server.now += 2
        gate.overloaded()

    assert gate.limit == 1


def test_after_an_overload_the_search_begins_again() -> None:
    server = Server(200)
    gate = Gate(limit=64, most=256, clock=server.clock)
    gate.overloaded()

    assert server.run(gate, rounds=60) > 64


def test_a_fixed_limit_stays() -> None:
    server = Server(200)
    gate = Gate(limit=8, most=8, clock=server.clock)
    server.run(gate, rounds=20)
    gate.overloaded()

    assert gate.limit == 8
    assert gate_for(concurrency=5, adapts=False).limit == 5
    assert gate_for(concurrency=256, adapts=True).limit == FIRST


@given(limit=st.integers(1, 8), num=st.integers(1, 40), cancelled=st.sets(st.integers(0, 39)))
def test_never_more_than_the_limit_and_nobody_waits_for_ever(
    limit: int, num: int, cancelled: set[int]
) -> None:
    async def crowd() -> tuple[int, int, int]:
        gate = Gate(limit=limit, most=limit)
        most = finished = 0

        async def one() -> None:
            nonlocal most, finished
            async with gate:
                most = max(most, gate.under_way)
                await asyncio.sleep(0)
                finished += 1

        tasks = [asyncio.create_task(one()) for _ in range(num)]
        await asyncio.sleep(0)
        for number, task in enumerate(tasks):
            if number in cancelled:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return most, finished, gate.under_way

    most, finished, left = asyncio.run(asyncio.wait_for(crowd(), timeout=20))

    assert most <= limit
    assert finished >= num - len(cancelled)
    assert left == 0


async def test_places_are_given_in_order() -> None:
    gate = Gate(limit=1, most=1)
    order = []

    async def one(name: str) -> None:
        async with gate:
            order.append(name)
            await asyncio.sleep(0)

    await asyncio.gather(one("first"), one("second"), one("third"))

    assert order == ["first", "second", "third"]


@given(num=st.integers(0, 200), limit=st.integers(1, 70))
def test_each_item_is_worked_on_once_in_order_with_few_taken_ahead(num: int, limit: int) -> None:
    taken: list[int] = []
    begun: list[int] = []
    at_once: list[int] = []
    ahead: list[int] = []
    under_way: set[int] = set()

    async def work(item: int) -> None:
        begun.append(item)
        under_way.add(item)
        at_once.append(len(under_way))
        await asyncio.sleep(0)
        ahead.append(len(taken) - len(begun))
        under_way.remove(item)

    def items() -> Iterator[int]:
        for item in range(num):
            taken.append(item)
            yield item

    asyncio.run(each(items(), work, limit=limit))

    assert begun == taken == list(range(num))
    assert max(at_once, default=0) <= limit
    assert max(ahead, default=0) <= min(limit, 32) + 1


def test_the_first_item_is_worked_on_before_the_last_is_taken() -> None:
    done: list[int] = []

    def items() -> Iterator[int]:
        yield 0
        while not done:
            yield 1

    async def work(item: int) -> None:
        done.append(item)

    asyncio.run(each(items(), work, limit=1000))

    assert done[0] == 0


@pytest.mark.parametrize("broken", ["item", "work"])
def test_what_escapes_ends_it_with_the_one_known_error(broken: str) -> None:
    def items() -> Iterator[int]:
        yield from range(100)
        if broken == "item":
            raise ServerError("gone")

    async def work(item: int) -> None:
        await asyncio.sleep(0)
        if broken == "work" and item > 50:
            raise ServerError("gone")

    with pytest.raises(ServerError, match="gone"):
        asyncio.run(each(items(), work, limit=8))
