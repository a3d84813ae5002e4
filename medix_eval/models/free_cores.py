"""How many cores other programs leave to this process."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

import psutil

_CGROUP = Path("/sys/fs/cgroup")
_PAST_HALF = 0.25
"""A core that others use for a quarter of the time still counts as free."""


class FreeCores:
    """Counts the cores that nothing else has used since the last count.

    Threads that share a core with another program make all the others wait for them at every
    matrix product: on two cores, one of them busy, two threads answered four times slower than
    one.
    """

    def __init__(self) -> None:
        self.own_cores = _allowed()
        """The processors that this process may run on."""
        self._seen = self._times()

    @property
    def seconds(self) -> float:
        """Return the time since the last count."""
        return time.monotonic() - self._seen[0]

    def count(self) -> int:
        """Return the number of free cores since the last count or the start, at least 1."""
        now, busy, own = self._times()
        then, busy_then, own_then = self._seen
        self._seen = now, busy, own
        took = max(now - then, 1e-6)
        by_others = max(0.0, (busy - busy_then) - (own - own_then)) / took
        free = min(len(self.own_cores) - by_others, cores_granted())
        return max(1, math.floor(free + _PAST_HALF))

    def _times(self) -> tuple[float, float, float]:
        """Return the clock and the processor time used: by all on our cores, and by us."""
        cores = psutil.cpu_times(percpu=True)
        used = [sum(core) - core.idle - getattr(core, "iowait", 0.0) for core in cores]
        busy = sum(one for number, one in enumerate(used) if number in self.own_cores)
        return time.monotonic(), busy, time.process_time()


def cores_granted(root: Path = _CGROUP) -> float:
    """Return how many cores' worth of time a container's limit grants; infinite without one.

    Both forms of the kernel's files are read: `cpu.max` of cgroup v2 (`QUOTA PERIOD`, in
    microseconds, or `max`) and the pair of `cpu.cfs_*_us` of v1 (-1 for no limit).
    """
    try:
        quota, period = (root / "cpu.max").read_text().split()
        return math.inf if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:
        quotas = [int((root / "cpu" / f"cpu.cfs_{name}_us").read_text()) for name in _V1]
    except (OSError, ValueError):
        return math.inf
    return quotas[0] / quotas[1] if quotas[0] > 0 else math.inf


_V1 = ("quota", "period")


def _allowed() -> frozenset[int]:
    if hasattr(os, "sched_getaffinity"):  # Linux
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))
