"""The real command in a process of its own, forked where all it imports is there already.

To start Python and import what an evaluation needs takes three seconds of computing, which is most
of a trial. A process without threads forks, and runs what `python -m medix_eval` runs.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Protocol

_IMPORTED = (
    "medix_eval.cli.app", "medix_eval.evaluation.api", "medix_eval.evaluation.evaluation",
    "medix_eval.data.lm_task", "medix_eval.models.openai_server", "medix_eval.report.page",
    "medix_eval.testing", "aiohttp", "datasets", "lm_eval.tasks",
)  # fmt: skip
_FORKING = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload([*_IMPORTED])
_NUMBERS = count()


class Command(Protocol):
    """A command that runs, as `subprocess.Popen` has it."""

    @property
    def pid(self) -> int:
        """Also the number of its process group."""
        ...

    @property
    def returncode(self) -> int | None:
        """The exit code, once it has ended."""
        ...

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        ...

    def communicate(self, *, timeout: float | None = None) -> tuple[bytes, bytes]:
        """Wait for its end; return what it wrote."""
        ...


class Forked:
    """`medix-eval` with these arguments."""

    def __init__(self, argv: Sequence[str], *, env: Mapping[str, str], folder: Path) -> None:
        number = next(_NUMBERS)
        self._written = folder / f"stdout-{number}", folder / f"stderr-{number}"
        given = [*argv], {**env}, [*map(str, self._written)]
        self._process = _FORKING.Process(target=_run, args=given)
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def communicate(self, *, timeout: float | None = None) -> tuple[bytes, bytes]:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("medix-eval", timeout or 0.0)
        out, err = (path.read_bytes() if path.exists() else b"" for path in self._written)
        return out, err


def _run(argv: list[str], env: dict[str, str], written: list[str]) -> None:
    os.setsid()
    os.environ.clear()
    os.environ.update(env)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    for number, path in enumerate(written, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    from medix_eval.cli.app import main  # noqa: PLC0415 (imported before the fork)

    sys.argv = ["medix-eval", *argv]
    main(argv)
