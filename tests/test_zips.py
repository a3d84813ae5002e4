"""Zips of strangers: damaged ones are called that, and no trick of one lands outside."""

from __future__ import annotations

import io
import os
import random
import signal
import subprocess
import sys
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from medix_eval.errors import ConfigError
from medix_eval.exchange.checking import unpack
from medix_eval.results.store import load_run_manifest
from medix_eval.storage.jsonl import newest_lines, read_lines


def zipped(*names: str) -> bytes:
    """Return a zip that holds these files."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a name that stands twice
        for name in names:
            archive.writestr(name, "".join(map(str, range(500))))
    return content.getvalue()


def flip_byte(data: bytes) -> bytes:
    middle = len(data) // 4
    return data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]


def lock(data: bytes) -> bytes:
    """Say of the first file that it has a password."""
    listed = data.index(b"PK\x01\x02")
    flagged = data[: listed + 8] + bytes([data[listed + 8] | 1]) + data[listed + 9 :]
    return flagged[:6] + bytes([flagged[6] | 1]) + flagged[7:]


@pytest.mark.parametrize(
    ("bend", "message"),
    [
        pytest.param(flip_byte, "is damaged", id="flipped-byte"),
        pytest.param(lambda data: data[: len(data) // 2], "is damaged", id="cut"),
        pytest.param(lock, "cannot be unpacked", id="password"),
        pytest.param(lambda data: b"no zip" + data[6:8], "is damaged", id="no-zip"),
    ],
)
def test_a_damaged_zip_is_said_to_be_one(
    tmp_path: Path, bend: Callable[[bytes], bytes], message: str
) -> None:
    bent = tmp_path / "bent.zip"
    bent.write_bytes(bend(zipped("a")))

    with pytest.raises(ConfigError, match=message):
        unpack(bent, tmp_path / "in")


@pytest.mark.parametrize(
    "names", [("../out",), ("/out",), ("a/../../out",), ("a", "a"), ("x" * 300,), ("a", "a/b")]
)
def test_a_zip_of_tricks_is_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    bent = tmp_path / "bent.zip"
    bent.write_bytes(zipped(*names))

    with pytest.raises(ConfigError):
        unpack(bent, tmp_path / "in")

    assert not (tmp_path / "out").exists()


def packed(path: Path, name: str, content: bytes, *, mode: int = 0, how: int = 8) -> Path:
    entry = zipfile.ZipInfo(name)
    entry.external_attr, entry.compress_type = mode << 16, how
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(entry, content)
    return path


@pytest.mark.parametrize("mode", [0o120777, 0o010644, 0o020644, 0o060644, 0o140644])
def test_a_link_or_a_device_is_refused(tmp_path: Path, mode: int) -> None:
    bent = packed(tmp_path / "bent.zip", "link", b"/etc/passwd", mode=mode)

    with pytest.raises(ConfigError, match="'link' is a link or a device"):
        unpack(bent, tmp_path / "in")

    assert not (tmp_path / "in").exists()


@pytest.mark.parametrize("how", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_python_would_unpack_in_one_piece_is_refused(tmp_path: Path, how: int) -> None:
    bent = packed(tmp_path / "bent.zip", "a", b"0" * 1000, how=how)

    with pytest.raises(ConfigError, match="packed in an unusual way"):
        unpack(bent, tmp_path / "in")


def test_an_ordinary_file_with_a_mode_is_unpacked(tmp_path: Path) -> None:
    unpack(packed(tmp_path / "a.zip", "in/a.txt", b"text", mode=0o100644), tmp_path / "in")

    assert (tmp_path / "in" / "in" / "a.txt").read_bytes() == b"text"


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def test_a_bomb_is_stopped_at_200_times_its_size(tmp_path: Path) -> None:
    bomb = packed(tmp_path / "bomb.zip", "a", b"\0" * (150 << 20))

    with pytest.raises(ConfigError, match="unpacks to more than a submission may"):
        unpack(bomb, tmp_path / "in")

    assert size_of(tmp_path / "in") <= 64 << 20


def test_files_that_share_their_bytes_are_counted_one_by_one(tmp_path: Path) -> None:
    """Entries of a list that all point to one packed file: each would be unpacked anew."""
    one = packed(tmp_path / "one.zip", "a0", b"\0" * (40 << 20)).read_bytes()
    at, end = one.index(b"PK\x01\x02"), one.index(b"PK\x05\x06")
    listed = b"".join(one[at:end].replace(b"a0", b"a%d" % number) for number in range(10))
    tail = bytearray(one[end:])
    tail[8:12] = (10).to_bytes(2, "little") * 2
    tail[12:16] = len(listed).to_bytes(4, "little")
    bomb = tmp_path / "bomb.zip"
    bomb.write_bytes(one[:at] + listed + tail)

    with pytest.raises(ConfigError):
        unpack(bomb, tmp_path / "in")

    assert size_of(tmp_path / "in") <= 64 << 20


def test_a_zip_of_a_thousand_files_and_one_is_refused(tmp_path: Path) -> None:
    crowd = tmp_path / "crowd.zip"
    crowd.write_bytes(zipped(*(f"{number}" for number in range(1001))))

    with pytest.raises(ConfigError, match="unpacks to more than a submission may"):
        unpack(crowd, tmp_path / "in")


def test_repeated_text_that_packs_well_is_no_bomb(tmp_path: Path) -> None:
    line = '{{"n": {}, "text": "The answer is B. "}}\n'
    lines = 20 * "".join(line.format(number) for number in range(99_999))
    unpack(packed(tmp_path / "a.zip", "a", lines.encode()), tmp_path / "in")

    assert size_of(tmp_path / "in") == len(lines)


@pytest.mark.slow
def test_an_interrupted_check_leaves_nothing_behind(tmp_path: Path) -> None:
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    content = random.Random(0).randbytes(3 << 20) + bytes(400 << 20)  # noqa: S311
    large = packed(tmp_path / "large.zip", "a", content)
    command = [sys.executable, "-m", "medix_eval", "submit", "--check", str(large)]
    with subprocess.Popen(
        command, env={**os.environ, "TMPDIR": str(scratch)}, stderr=subprocess.PIPE, text=True
    ) as checking:
        while not any(file.is_file() for file in scratch.rglob("*")):
            assert checking.poll() is None
        checking.send_signal(signal.SIGINT)
        assert checking.wait(60) == 130

    assert [*scratch.iterdir()] == []


def test_a_line_that_is_longer_than_any_is_named_and_not_read(tmp_path: Path) -> None:
    long = tmp_path / "verdicts.jsonl"
    with long.open("wb") as file:
        file.write(b'{"task": "t", "sample_id": "a"}\n{"task": "t", "sample_id": "')
        file.truncate(200 << 20)
    tracemalloc.start()

    for read in (lambda: [*read_lines(long)], lambda: newest_lines(long)):
        with pytest.raises(ConfigError, match=r"verdicts\.jsonl, line 2 is longer than 32 MiB"):
            read()

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150 << 20


def test_a_record_that_is_larger_than_any_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "run.json").open("wb") as file:
        file.truncate(33 << 20)

    with pytest.raises(ConfigError, match="is larger than 32 MiB"):
        load_run_manifest(tmp_path)
