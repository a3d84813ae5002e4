"""The page of a comparison: who is better, by how much, and every sample that changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from medix_eval.report.page import Packing, blocks, render, with_blocks
from medix_eval.results.scoring import sample_slices

if TYPE_CHECKING:
    from medix_eval.results.comparison import Comparison
    from medix_eval.results.store import JudgedRun, JudgedSample

_LEAST_REACH = 0.05
"""The minimum range of the axis of differences, so that noise does not look large."""


def compare_page(
    found: Comparison, runs: Sequence[JudgedRun], *, images: Mapping[str, str]
) -> Iterator[str]:
    """Yield the parts of the page of a comparison of these runs, the baseline first."""
    restricted = {t for run in runs for t in run.judging.tasks if run.entry(t).data_class == "dua"}
    packing = Packing(
        is_restricted=restricted.__contains__,
        slices_of=lambda one: sample_slices(runs[0].entry(one.task), one.completion),
    )

    def fill() -> Iterator[None]:
        for pair, run in zip(found.pairs, runs[1:], strict=True):
            changed = {(one.task, one.sample_id) for one in (*pair.won, *pair.lost)}
            before, after = dict(_samples(runs[0], changed)), dict(_samples(run, changed))
            for what, ones in (("fixed", pair.won), ("broke", pair.lost)):
                for one in ones:
                    key = (one.task, one.sample_id)
                    answers = [("A", before[key]), (pair.letter, after[key])]
                    packing.add_compared(answers, label=f"{pair.letter} {what}")
                    yield

    ends = [
        abs(end)
        for pair in found.pairs
        for one in (*pair.tasks.values(), *pair.groups.values())
        for end in (one.difference, *(one.interval or ()))
    ]
    page = render(
        "compare.html.jinja",
        found=found,
        reach=max(_LEAST_REACH, *ends),
        restricted=sorted(restricted),
    )
    return with_blocks(page, blocks(packing, fill(), images=images))


def _samples(
    run: JudgedRun, wanted: set[tuple[str, str]]
) -> Iterator[tuple[tuple[str, str], JudgedSample]]:
    for sample in run.samples():
        key = (sample.task, sample.completion.sample_id)
        if key in wanted:
            yield key, sample
