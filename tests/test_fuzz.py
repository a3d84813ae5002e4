"""That `make fuzz` tries every reader, and that it would find a fault."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import strategies as st
from readers import READERS, Reader, fuzz

from medix_eval.errors import ConfigError


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", READERS)
def test_a_few_inputs_of_every_reader_pass(name: str) -> None:
    tried, _, error = fuzz(READERS[name], seconds=0, seed=0, num=3)

    assert error is None, error
    assert tried > 0


def test_a_reader_that_lets_an_error_through_is_found_with_a_seed_that_repeats_it() -> None:
    def check(given: str, _: Path) -> None:
        if "A" in given:
            raise KeyError(given)

    reader = Reader(st.text("ABC", min_size=1), check)
    _, seed, error = fuzz(reader, seconds=5, seed=0)
    again = fuzz(reader, seconds=0, seed=seed)[2]

    assert isinstance(error, KeyError)
    assert isinstance(again, KeyError)


def test_an_error_that_a_reader_documents_is_no_finding() -> None:
    def check(given: str, _: Path) -> None:
        raise ConfigError(given)

    assert fuzz(Reader(st.text(), check), seconds=0, seed=0)[2] is None


def test_a_reader_that_does_not_end_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(given: str, _: Path) -> None:
        while given != sys.executable:
            pass

    monkeypatch.setattr("readers.PER_INPUT_S", 0.05)

    assert isinstance(fuzz(Reader(st.just("a"), check), seconds=0, seed=0, num=1)[2], TimeoutError)
