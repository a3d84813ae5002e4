"""What runners of cases outside the repository call: the one place that follows our own names.

    import sys; sys.path.insert(0, "tests"); import cases
    cases.rules_outcome({"kind": "open", "reference": "left lung", "completion": "The left lung."})

Each function imports what it needs when it is called, so a broken one does not break the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any


def rules_outcome(case: Mapping[str, Any]) -> tuple[str, float | None]:
    """Return how a completion ends under the protocol `rules`, and its score in [0, 1].

    A case has `kind`, `reference` and `completion`, and may have `question`, `choices` (or
    `options`), `facts` and `finish_reason`.
    """
    from medix_eval.judging.outcomes import verdict_of  # noqa: PLC0415
    from medix_eval.judging.protocol import load_protocol  # noqa: PLC0415
    from medix_eval.records import CompletionRecord  # noqa: PLC0415

    record = CompletionRecord(
        task="case@1",
        sample_id="case",
        row=0,
        kind=case["kind"],
        prompt=case.get("question", ""),
        reference=case["reference"],
        options=tuple(case.get("choices") or case.get("options") or ()),
        facts=case.get("facts", {}),
        completion=case["completion"],
        finish_reason=case.get("finish_reason", "stop"),
    )
    verdict = asyncio.run(verdict_of(record, protocol=load_protocol("rules"), grader=None))
    return verdict.outcome.value, verdict.score


def judge_reply(text: str, scale: Sequence[int], answer: str = "") -> int | None:
    """Return the points in a judge's reply, or None where it cannot be used."""
    from medix_eval.errors import ReplyUnusable  # noqa: PLC0415
    from medix_eval.judging.replies import read_points  # noqa: PLC0415

    lowest, highest = scale
    try:
        return read_points(text, scale=(lowest, highest), answer=answer)
    except ReplyUnusable:
        return None


def reward_settles(answer: str, reference: str) -> float | None:
    """Return the verdict that training needs no judge for, or None where the judge is asked."""
    from medix_train.reading import Medix  # noqa: PLC0415

    return Medix().settle(answer, reference)
