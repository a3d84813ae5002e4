"""Which GPUs this machine has, found out without torch."""

from __future__ import annotations

import os
import shutil
import subprocess


def visible_gpus() -> tuple[str, ...]:
    """Return the GPUs that this process may use, in the order of `CUDA_VISIBLE_DEVICES`."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return split_gpus(chosen)
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    query = [tool, "--query-gpu=index", "--format=csv,noheader"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, check=False, timeout=30)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return tuple(found.stdout.split()) if found.returncode == 0 else ()


def split_gpus(numbers: str) -> tuple[str, ...]:
    """Split a list such as `0,1`; identifiers such as `GPU-5a3f` are taken as they are.

    >>> split_gpus("0, 1")
    ('0', '1')
    """
    return tuple(number.strip() for number in numbers.split(",") if number.strip())
