"""Give back the memory of mapped dataset files, so that a long run does not seem to grow.

`datasets` maps its Arrow files into memory. Every page that was read once then counts as ours for
as long as nothing else needs the memory: a benchmark of 1 GB of images looks like 1 GB of process.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Collection
from pathlib import Path

_MAPS = Path("/proc/self/maps")
_MADV_DONTNEED = 4


def release(paths: Collection[str]) -> None:
    """Drop the pages of these mapped files; they are read again from the file where needed.

    Only mappings that `/proc/self/maps` shows to be of these very files are touched; on systems
    without it nothing happens.
    """
    if not paths or not _MAPS.exists():
        return
    madvise = ctypes.CDLL(None, use_errno=True).madvise
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    wanted = {os.path.realpath(path) for path in paths}
    for line in _MAPS.read_text(encoding="utf-8", errors="replace").splitlines():
        span, permissions, *_, path = line.split(maxsplit=5)
        # A mapping that may be written to can hold changes of its own; leave it alone.
        if path in wanted and "w" not in permissions:
            start, end = (int(address, 16) for address in span.split("-"))
            madvise(start, end - start, _MADV_DONTNEED)
