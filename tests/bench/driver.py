"""One measured evaluation: `driver.py TASKS MIRROR OUT` prints what it took as JSON.

The server runs in a process of its own, so that neither its memory nor its time is counted.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import sys
import time
from multiprocessing.connection import Connection
from typing import Any
from unittest import mock

from medix_eval import cli, evaluation
from medix_eval.testing import ScriptedServer


def serve(pipe: Connection) -> None:
    """Answer everything at once; tell when the first request came."""
    first: list[float] = []

    def script(_: dict[str, Any]) -> str:
        if not first:
            first.append(time.time())
        return "a lesion"

    with ScriptedServer(script) as server:
        pipe.send(server.url)
        pipe.recv()
        pipe.send((first[0] if first else None, len(server.requests)))


def main() -> None:
    """Run the evaluation through the command line's own entry."""
    tasks, mirror, out = sys.argv[1:]
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,))
    server.start()
    url = ours.recv()

    opened: list[float] = []
    open_tasks = evaluation.open_tasks

    def timed(*args: Any) -> Any:
        tasks = open_tasks(*args)
        opened.append(time.time())
        return tasks

    started = time.time()
    stdout, sys.stdout = sys.stdout, sys.stderr
    argv = [
        *("--model", "openai:scripted", "--base-url", url, "--protocol", "rules"),
        *("--tasks", "bench_vqa", "--include-path", tasks, "--data-root", mirror, "--out", out),
    ]
    try:
        with mock.patch.object(evaluation, "open_tasks", timed):
            cli.main(argv)
    except SystemExit as stop:
        if stop.code:
            raise
    finally:
        sys.stdout = stdout
        ours.send("stop")
        first_request_at, requests = ours.recv()
        server.join()
    sys.stdout.write(
        json.dumps(
            {
                "seconds": time.time() - started,
                "requests": requests,
                "first_request_s": first_request_at - opened[0] if first_request_at else 0.0,
                "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            }
        )
        + "\n"
    )


if __name__ == "__main__":
    main()
