"""What several commands do with their flags, and how they print scores."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from medix_eval.storage.bundled import bundled

if TYPE_CHECKING:
    from rich.console import RenderableType

    from medix_eval.data.tasks import Catalogue
    from medix_eval.results.scores import Scores


def open_catalogue(include_path: list[Path] | None) -> Catalogue:
    """Read the bundled task files and the user's own."""
    from medix_eval.data.tasks import load_tasks  # noqa: PLC0415

    return load_tasks([bundled("tasks"), *(include_path or [])])


def print_scores(scores: Scores, *, as_json: bool) -> None:
    """Print the scores to stdout, and where the report is to stderr."""
    if as_json:
        typer.echo(scores.model_dump_json(indent=2))
    else:
        from medix_eval.report.tables import scores_table  # noqa: PLC0415

        print_renderable(scores_table(scores))
    typer.echo(f"report: {Path(scores.run) / 'report.html'}", err=True)


def print_renderable(shown: RenderableType) -> None:
    """Print a table to stdout."""
    from rich.console import Console  # noqa: PLC0415

    # In a file a line may be long; only a terminal has an edge.
    width = None if sys.stdout.isatty() else 160
    Console(width=width, highlight=False).print(shown)
