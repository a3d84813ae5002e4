"""One measured evaluation: `driver.py ARGUMENTS` runs the command line and prints what it took."""

from __future__ import annotations

import json
import resource
import sys
import time
from typing import Any
from unittest import mock

from medix_eval import cli, evaluation


def main() -> None:
    """Run `medix-eval` with these arguments; note when its data was open."""
    opened: list[float] = []
    open_tasks = evaluation.open_tasks

    def timed(*args: Any) -> Any:
        tasks = open_tasks(*args)
        opened.append(time.time())
        return tasks

    started = time.time()
    stdout, sys.stdout = sys.stdout, sys.stderr
    try:
        with mock.patch.object(evaluation, "open_tasks", timed):
            cli.main(sys.argv[1:])
    except SystemExit as stop:
        if stop.code:
            raise
    finally:
        sys.stdout = stdout
    usage = resource.getrusage(resource.RUSAGE_SELF)
    found = {
        "seconds": time.time() - started,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "opened_at": opened[0],
        "peak_rss_mb": usage.ru_maxrss / 1024,
    }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
