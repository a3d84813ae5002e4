"""Zips of strangers: damaged ones are called that, and no trick of one lands outside."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from medix_eval.errors import ConfigError
from medix_eval.exchange.checking import unpack


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


def test_a_link_is_unpacked_as_the_text_that_it_is(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "bent.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")

    unpack(tmp_path / "bent.zip", tmp_path / "in")

    assert not (tmp_path / "in" / "link").is_symlink()
