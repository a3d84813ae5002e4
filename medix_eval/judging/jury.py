"""A jury: several judges grade the same answer, and their scores become one.

Every judge is asked about every answer, although the first two may settle a majority: how far
judges agree is worth knowing, and only known where all of them spoke.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

from medix_eval.judging.judge import Grade, Grader
from medix_eval.judging.protocol import Combining
from medix_eval.records import CompletionRecord, Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Jury:
    """Judges by name, and how their scores are combined."""

    judges: Mapping[str, Grader]
    combine: Combining

    async def grade(self, record: CompletionRecord, *, answer: str) -> Grade:
        """Ask every judge; reports, which have many scores, are always averaged."""
        grades = await asyncio.gather(
            *(judge.grade(record, answer=answer) for judge in self.judges.values())
        )
        by_judge = {name: grade.score for name, grade in zip(self.judges, grades, strict=True)}
        how = "mean" if record.kind is Kind.REPORT else self.combine
        return Grade(
            score=combined(list(by_judge.values()), combine=how),
            votes=tuple(vote for grade in grades for vote in grade.votes),
            by_judge=by_judge,
        )


def combined(scores: list[float | None], *, combine: Combining) -> float | None:
    """Combine the judges' scores; None where too few of them came to one.

    A majority is of the whole jury, so two equal scores of three decide although the third judge
    failed. A mean of only some of the judges would be the mean of another jury.

    >>> combined([1.0, None, 1.0], combine="majority")
    1.0
    >>> combined([1.0, None, 1.0], combine="mean") is None
    True
    """
    valid = [score for score in scores if score is not None]
    if combine == "mean":
        return fmean(valid) if valid and len(valid) == len(scores) else None
    most = Counter(valid).most_common(1)
    return most[0][0] if most and 2 * most[0][1] > len(scores) else None
