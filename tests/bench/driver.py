"""One measured evaluation: `driver.py ARGUMENTS` runs the command line and prints what it took."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

import aiohttp  # noqa: F401 (imported by the bare session too before anything is measured)

from medix_eval.cli import app as cli
from medix_eval.evaluation import evaluation


def cpu_s() -> float:
    """Return the seconds of processor time of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def peak_rss_mb() -> float:
    """Return the most memory since this program began (`ru_maxrss` counts the parent's too)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def main() -> None:
    """Run `medix-eval` with these arguments; note when its data was open and all was judged."""
    opened: dict[str, float] = {}
    judged: dict[str, float] = {}
    open_tasks, write_scores = evaluation.open_tasks, evaluation.write_scores

    def timed(*args: Any) -> Any:
        tasks = open_tasks(*args)
        opened.update(at=time.time(), cpu_s=cpu_s())
        return tasks

    def scored(*args: Any, **options: Any) -> Any:
        judged.update(at=time.time(), cpu_s=cpu_s())
        return write_scores(*args, **options)

    stdout, sys.stdout = sys.stdout, sys.stderr
    try:
        with mock.patch.multiple(evaluation, open_tasks=timed, write_scores=scored):
            cli.main(sys.argv[1:])
    except SystemExit as stop:
        if stop.code:
            raise
    finally:
        sys.stdout = stdout
    found = {
        "seconds": judged["at"] - opened["at"],
        "cpu_s": judged["cpu_s"] - opened["cpu_s"],
        "reporting_cpu_s": cpu_s() - judged["cpu_s"],
        "opened_at": opened["at"],
        "peak_rss_mb": peak_rss_mb(),
    }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
