"""How far a run is: one line on stderr in a terminal, silence elsewhere."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from medix_eval.records import CompletionRecord, VerdictRecord


class Progress(Protocol):
    """What the pipeline tells as it goes."""

    def begin(self, stage: str, total: int) -> None:
        """Tell that a stage begins, with so many samples before it."""
        ...

    def answered(self, record: CompletionRecord) -> None:
        """Tell of one completion."""
        ...

    def judged(self, verdict: VerdictRecord) -> None:
        """Tell of one verdict."""
        ...


class Silent:
    """Tells nothing."""

    def begin(self, stage: str, total: int) -> None:
        """Tell nothing."""

    def answered(self, record: CompletionRecord) -> None:
        """Tell nothing."""

    def judged(self, verdict: VerdictRecord) -> None:
        """Tell nothing."""


@contextmanager
def shown_progress(*, wanted: bool) -> Iterator[Progress]:
    """Return a bar where it is wanted and somebody looks, silence elsewhere."""
    if not wanted or not sys.stderr.isatty():
        yield Silent()
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars  # noqa: PLC0415

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Bars(*columns, console=Console(stderr=True)) as bars:
        yield _Bars(bars)


class _Bars:
    def __init__(self, bars: object) -> None:
        self._bars: Any = bars
        self._ids: dict[str, int] = {}
        self._outcomes: Counter[str] = Counter()

    def begin(self, stage: str, total: int) -> None:
        self._ids[stage] = self._bars.add_task(stage, total=total, note="")

    def answered(self, record: CompletionRecord) -> None:
        self._advance("answering", failed=record.failure is not None)

    def judged(self, verdict: VerdictRecord) -> None:
        self._advance("judging", failed=verdict.outcome.is_failure)

    def _advance(self, stage: str, *, failed: bool) -> None:
        if stage not in self._ids:
            return
        self._outcomes[stage] += failed
        note = f"{self._outcomes[stage]} failed" if self._outcomes[stage] else ""
        self._bars.update(self._ids[stage], advance=1, note=note)
