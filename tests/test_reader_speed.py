"""Readers of outside text need time linear in its length: a megabyte of the worst, in seconds."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import FrameType
from typing import Any

import pytest

from medix_eval.errors import ReplyUnusable
from medix_eval.judging import replies
from medix_eval.judging.outcomes import verdict_of
from medix_eval.judging.protocol import load_protocol
from medix_eval.records import CompletionRecord, Kind
from medix_eval.rules.answers import extract_answer, letter_of, thinking_of
from medix_eval.rules.decide import may_take_back, stated_before_cut, states_answer
from medix_eval.rules.text import read

OPTIONS = ("liver", "the lung", "kidney", "spleen")
LIMIT_S = 20.0
MEGABYTE = 1_000_000


@pytest.fixture
def _limited() -> Iterator[None]:
    def stop(_: int, __: FrameType | None) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def ended(text: str, **fields: Any) -> object:
    record = CompletionRecord(
        task="t@1", sample_id="1", row=0, prompt="q", reference="liver", completion=text,
        **{"kind": Kind.OPEN, "finish_reason": "stop", **fields},
    )  # fmt: skip
    return asyncio.run(verdict_of(record, protocol=load_protocol("rules"), grader=None))


READERS: dict[str, Callable[[str], object]] = {
    "letter_of": lambda text: letter_of(text, OPTIONS),
    "extract_answer": extract_answer,
    "thinking_of": thinking_of,
    "read": read.__wrapped__,
    "stated_before_cut": lambda text: stated_before_cut(text, kind=Kind.OPEN),
    "points": lambda text: replies.read_points(text, scale=(0, 1)),
    "verdict": ended,
    "verdict_of_a_cut_choice": lambda text: ended(
        text, kind=Kind.MULTIPLE_CHOICE, finish_reason="length", options=OPTIONS
    ),
}
FOUND = [
    ("letter_of", "", "<answer>"),
    ("letter_of", "", "<answer> "),
    ("letter_of", "", "\\boxed{"),
    ("extract_answer", "", "</think>"),
    ("extract_answer", "", "<think></think>"),
    ("thinking_of", "", "</think>\n"),
    ("read", "[answer", "-"),
    ("read", "[1", ";-"),
    ("stated_before_cut", "", "10A"),
    ("stated_before_cut", "analysis", "A.B"),
    ("stated_before_cut", "", "\u0301<think>"),
    ("points", '{"score": 1}"relation": "same",', "wait score:"),
    ("points", "", '"score '),
    ("verdict", "", "</think>"),
    ("verdict_of_a_cut_choice", "", "?"),
    ("verdict_of_a_cut_choice", "", "B. "),
    ("verdict_of_a_cut_choice", "", ", "),
]


@pytest.mark.slow
@pytest.mark.usefixtures("_limited")
@pytest.mark.parametrize(("name", "head", "unit"), FOUND)
def test_a_megabyte_of_the_worst_is_read_in_seconds(name: str, head: str, unit: str) -> None:
    with suppress(ReplyUnusable):
        READERS[name](head + unit * (MEGABYTE // len(unit)))


def test_the_first_block_of_tags_is_read_as_it_always_was() -> None:
    said = ["<answer>(B)", "<answer>(B)</answer> (C)", "(A)</answer><answer>(B)</answer>(D)"]
    nested = "<answer><answer>(C)</answer></answer> (D)"

    assert [letter_of(one, OPTIONS) for one in said] == ["B", "B", "B"]
    assert letter_of(nested, OPTIONS) == "C"


def test_an_unfinished_sentence_longer_than_any_may_take_an_answer_back() -> None:
    assert may_take_back("a " * 10_000, OPTIONS)
    assert not may_take_back("It is rou", OPTIONS)
    assert states_answer("x " * 200_000 + "The answer is B.", kind=Kind.OPEN, options=OPTIONS)
