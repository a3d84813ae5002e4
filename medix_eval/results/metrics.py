"""Metrics from outside: a name and a function in the entry-point group `medix_eval.metrics`.

    [project.entry-points."medix_eval.metrics"]
    words = "my_package:words"

The function gets the scored samples of one task, each a `JudgedSample`, and returns a number, a
`MetricValue` that says how to show one, or None. Tables, reports and files show what it returns.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from numbers import Real

from medix_eval.errors import one_line
from medix_eval.results.scores import MetricValue, Scores
from medix_eval.results.store import JudgedRun, JudgedSample

GROUP = "medix_eval.metrics"
_LOG = logging.getLogger(__name__)


def with_metrics(run: JudgedRun) -> Scores:
    """Return the scores of a run with what each installed metric says of each task.

    Nothing is read or imported where none is installed. A metric that fails is one warning and
    null: it can spoil no score.
    """
    installed = entry_points(group=GROUP)
    if not installed:
        return run.scores
    scored: defaultdict[str, list[JudgedSample]] = defaultdict(list)
    for sample in run.samples():
        if sample.verdict.score is not None:
            scored[sample.task].append(sample)
    tasks = {
        name: task.model_copy(
            update={"metrics": task.metrics | {m.name: _value(m, name, scored) for m in installed}}
        )
        for name, task in run.scores.tasks.items()
    }
    return run.scores.model_copy(update={"tasks": tasks})


def _value(
    metric: EntryPoint, task: str, scored: Mapping[str, Sequence[JudgedSample]]
) -> float | MetricValue | None:
    try:
        found = metric.load()(scored[task])
        number = found.value if isinstance(found, MetricValue) else found
        is_number = isinstance(number, Real) and not isinstance(number, bool)
        if number is None or (is_number and math.isfinite(number)):
            return found if found is None or isinstance(found, MetricValue) else float(found)
        said = f"{number!r:.60} is not a number"
    except Exception as error:  # noqa: BLE001 (somebody else's code)
        said = f"{type(error).__name__}: {one_line(error)}"
    _LOG.warning("metric %s on %s: %s", metric.name, task, said)
    return None
