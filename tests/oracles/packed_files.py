"""What a file holds that people share: read as it is, and unpacked as far as it goes."""

from __future__ import annotations

import base64
import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress

import pandas as pd

_PACKED = re.compile(r"[A-Za-z0-9+/]{200,}={0,2}")


def contents(name: str, content: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield what a file holds: itself, the members of a zip, and what a page carries packed."""
    yield name, name.encode() + content
    if name.endswith("parquet"):
        yield f"{name}, read", pd.read_parquet(io.BytesIO(content)).to_csv().encode()
    if content[:2] == b"PK":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for member in archive.namelist():
                yield from contents(f"{name}/{member}", archive.read(member))
    for packed in _PACKED.findall(content.decode("latin-1")):
        data = base64.b64decode(packed[: len(packed.rstrip("=")) // 4 * 4])
        yield f"{name}, packed", data
        with suppress(zlib.error):
            yield f"{name}, unpacked", zlib.decompressobj().decompress(data)
