"""Evaluate medical language models so that the number is true.

    import medix_eval

    run = medix_eval.evaluate(model="phantom", tasks="phantom", protocol="rules", limit=20)
    run.scores.groups["phantom"].score  # in [0, 1]
    run.to_pandas()  # one row a sample

The functions are loaded when they are first used: `import medix_eval` takes no time.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from medix_eval.storage.version import __version__

if TYPE_CHECKING:
    from medix_eval.evaluation.api import (
        Run,
        compare,
        evaluate,
        judge,
        load_run,
        plan,
        score,
        tasks,
    )

__all__ = [
    "Run", "__version__", "compare", "evaluate", "judge", "load_run", "plan", "score", "tasks",
]  # fmt: skip

# Who imports us decides what is shown.
logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from medix_eval.evaluation import api  # noqa: PLC0415 (half a second)

    return getattr(api, name)
