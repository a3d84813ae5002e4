"""What others have published, each figure with where it was read; never beside our own numbers.

Figures of one source share a table, because each source scores in its own way.
"""

from __future__ import annotations

from dataclasses import dataclass

from medix_eval.results.reproduction import Figure

_ALONE = "Single figures"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedTable:
    """The figures of one source."""

    title: str
    metrics: tuple[str, ...]
    benchmarks: tuple[str, ...]
    models: tuple[tuple[str, str], ...]
    """Name and size, the best first where the source has an average."""
    cells: dict[tuple[tuple[str, str], str], Figure]
    units: dict[str, str]
    """Of the benchmarks that are not in percent."""


def sources(figures: list[Figure]) -> list[str]:
    """Return every source once, in the order of the file; a cell refers to it by number."""
    return list(dict.fromkeys(figure.source for figure in figures))


def published_tables(figures: list[Figure]) -> list[PublishedTable]:
    """Sort figures into tables; sources with one or two figures share the last one."""
    by_study: dict[str, list[Figure]] = {}
    for figure in figures:
        by_study.setdefault(_study(figure.source), []).append(figure)
    many = {title: found for title, found in by_study.items() if len(found) > 2}  # noqa: PLR2004
    few = [figure for found in by_study.values() if len(found) < 3 for figure in found]  # noqa: PLR2004
    tables = [_table(title, found) for title, found in many.items()]
    return [*tables, _table(_ALONE, few)] if few else tables


def _study(source: str) -> str:
    """Return whose figures these are: a source's words up to the first comma or semicolon."""
    return source.partition(";")[0].partition(",")[0].strip()


def _table(title: str, figures: list[Figure]) -> PublishedTable:
    cells = {((figure.model, figure.params), figure.benchmark): figure for figure in figures}
    benchmarks = tuple(dict.fromkeys(figure.benchmark for figure in figures))
    averages = [name for name in benchmarks if name.startswith(("Overall", "Average"))]
    models = list(dict.fromkeys((figure.model, figure.params) for figure in figures))
    if averages:
        models.sort(key=lambda model: -_score(cells.get((model, averages[0]))))
    return PublishedTable(
        title=title,
        metrics=tuple(dict.fromkeys(one.metric for one in figures if "%" in one.metric)),
        benchmarks=benchmarks,
        models=tuple(models),
        cells=cells,
        units={one.benchmark: one.metric for one in figures if "%" not in one.metric},
    )


def _score(figure: Figure | None) -> float:
    return figure.value if figure is not None else -1.0
