"""What torch needs on a machine without CUDA: a torchvision that imports, and no thread too many.

The torchvision on PyPI is compiled against CUDA. With a CPU torch its library cannot be loaded,
so two operators that it describes at import do not exist, `import torchvision` fails, and with it
every vision model of transformers, under names that point elsewhere. Declaring the two operators
is enough: images are resized by Python code, and nothing here calls what was compiled.

Threads that share a core with another program make all the others wait for them at every matrix
product: on two cores, one of them busy, two threads answered four times slower than one.
"""

from __future__ import annotations

import functools
import logging
import math
import os
import time
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_LOG = logging.getLogger(__name__)
_OPERATORS = ("nms", "qnms")


@functools.cache
def declare_missing_operators() -> torch.library.Library | None:
    """Declare what torchvision describes at import, where its compiled library cannot be loaded.

    Call it before anything imports torchvision, so before transformers loads a model. It does
    nothing without torchvision, or where torch has CUDA: there a library that does not load is a
    broken installation, and should say so. A declaration lives as long as the returned object,
    which the cache keeps.
    """
    # Not `importlib.util.find_spec`: it would ask `before_torchvision`, which calls this.
    torchvision = PathFinder.find_spec("torchvision")
    if torchvision is None:
        return None
    import torch  # noqa: PLC0415 (seconds, and not in the core install)

    if torch.version.cuda is not None:
        return None
    compiled = PathFinder.find_spec("_C", list(torchvision.submodule_search_locations or []))
    if compiled is not None and compiled.origin is not None:
        try:
            # What torchvision does itself; once loaded, doing it again changes nothing.
            torch.ops.load_library(compiled.origin)
        except OSError:
            pass
        else:
            return None
    declared = torch.library.Library("torchvision", "FRAGMENT")
    for name in _OPERATORS:
        if not hasattr(torch.ops.torchvision, name):
            declared.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return declared


_SMALL = 50_000_000  # weights: with fewer, threads only wait for each other
_COUNT_AGAIN_S = 5.0
_PAST_HALF = 0.25  # a core that others use for a quarter of the time still counts as free
_CGROUP = Path("/sys/fs/cgroup")


def threads_for(num_parameters: int) -> int:
    """Return how many threads to compute with, at most: torch's own choice, or one.

    Torch's choice is what `OMP_NUM_THREADS` says, or else a thread for each core.
    """
    return 1 if num_parameters < _SMALL else _torch_threads()


@functools.cache
def _torch_threads() -> int:
    import torch  # noqa: PLC0415

    return torch.get_num_threads()  # asked before anything changes it


class FreeCores:
    """Sets torch's threads to the cores that nothing else uses, and says so when that changes."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._threads: int | None = None
        self._seen = _processor_times()

    def follow(self, *, most: int) -> None:
        """Set the number of the thread that calls; what is counted lies since the last count."""
        import torch  # noqa: PLC0415

        if self._threads is None or time.monotonic() - self._seen[0] > _COUNT_AGAIN_S:
            threads = min(most, self.count())
            if most > 1 and threads != self._threads:
                _LOG.info("%s computes on %d of %d cores", self._name, threads, most)
            self._threads = threads
        torch.set_num_threads(self._threads)

    def count(self) -> int:
        """Return the number of cores that were free since the last count, at least 1."""
        now, busy, own = _processor_times()
        then, busy_then, own_then = self._seen
        self._seen = now, busy, own
        by_others = max(0.0, (busy - busy_then) - (own - own_then)) / max(now - then, 1e-6)
        free = min(len(_own_cores()) - by_others, cores_granted())
        return max(1, math.floor(free + _PAST_HALF))


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
        files = [root / "cpu" / f"cpu.cfs_{name}_us" for name in ("quota", "period")]
        first, second = [int(file.read_text()) for file in files]
    except (OSError, ValueError):
        return math.inf
    return first / second if first > 0 else math.inf


def _processor_times() -> tuple[float, float, float]:
    """Return the clock and the processor time used: by all on our cores, and by this process."""
    import psutil  # noqa: PLC0415 (comes with the extra `hf`)

    # Time in a virtual machine is in `user` already.
    not_used = ("idle", "iowait", "guest", "guest_nice")
    cores = psutil.cpu_times(percpu=True)
    used = [sum(core) - sum(getattr(core, name, 0.0) for name in not_used) for core in cores]
    busy = sum(seconds for core, seconds in enumerate(used) if core in _own_cores())
    return time.monotonic(), busy, time.process_time()


def _own_cores() -> frozenset[int]:
    """Return the processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))
