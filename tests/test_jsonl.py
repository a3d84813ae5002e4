from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medix_eval.errors import ConfigError
from medix_eval.storage.jsonl import JsonLines, parsed, read_lines

LINES = ['{"n": 1}', '{"n": 2, "text": "grün\\n"}', '{"n": 3}']


@given(cut=st.integers(0, len("\n".join(LINES).encode()) + 1))
def test_a_kill_at_any_byte_loses_at_most_the_last_line(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("torn") / "lines.jsonl"
    whole = ("\n".join(LINES) + "\n").encode()
    path.write_bytes(whole[:cut])

    with JsonLines(path) as lines:
        lines.append('{"n": 4}')

    kept = [row["n"] for row in read_lines(path)]
    assert kept == [*range(1, whole[:cut].count(b"\n") + 1), 4]


def test_a_torn_last_line_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text('{"n": 1}\n{"n": ')

    assert list(read_lines(path)) == [{"n": 1}]


def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text('{"n": 1}\n{"n": \n{"n": 3}\n')

    with pytest.raises(ConfigError, match="line 2 is not JSON"):
        list(read_lines(path))


def test_a_very_long_torn_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'{"n": 1}\n{"text": "' + b"x" * 300_000)

    with JsonLines(path):
        pass

    assert path.read_bytes() == b'{"n": 1}\n'


def test_json_that_is_deeply_nested_is_json() -> None:
    deep = parsed(b'{"nested":' + b"[" * 300 + b"]" * 300 + b',"text":"\\ud83d"}')

    assert deep["text"] == "?"
