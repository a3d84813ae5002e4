"""The same task through stock lm-eval's API model: `stock.py URL TASKS TASK IN_FLIGHT`."""

from __future__ import annotations

import json
import resource
import sys
import time

import lm_eval
from driver import peak_rss_mb
from lm_eval.tasks import TaskManager


def main() -> None:
    """Evaluate in this process, in the folder of the mirror; print what it took as JSON."""
    url, tasks, task, in_flight = sys.argv[1:]
    manager = TaskManager(include_path=tasks, include_defaults=False)
    started = time.time()
    before = resource.getrusage(resource.RUSAGE_SELF)
    lm_eval.simple_evaluate(
        model="local-chat-completions",
        model_args={
            "model": "scripted",
            "base_url": f"{url}/chat/completions",
            "num_concurrent": int(in_flight),
            "max_images": 8,
        },
        tasks=[task],
        task_manager=manager,
        apply_chat_template=True,
        bootstrap_iters=0,
    )
    usage = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = usage.ru_utime + usage.ru_stime - before.ru_utime - before.ru_stime
    found = {
        "seconds": time.time() - started,
        "cpu_s": cpu_s,
        "peak_rss_mb": peak_rss_mb(),
        "opened_at": started,
    }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
