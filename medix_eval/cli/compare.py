"""`medix-eval compare`: runs against a baseline, paired sample by sample."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medix_eval.cli import flags
from medix_eval.cli.arguments import print_renderable
from medix_eval.errors import ConfigError

_PAIR = 2


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…")],
    *,
    baseline: Annotated[
        Path | None,
        typer.Option("--baseline", metavar="RUN", help="Compare with this run, not the first."),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Compare runs of different protocol, judge or data; marked."),
    ] = False,
    as_json: flags.Json = False,
) -> None:
    """Compare runs on the samples they share: differences, their intervals, wins and losses."""
    from medix_eval.report.comparison_tables import for_terminal  # noqa: PLC0415
    from medix_eval.results.comparison import compare_runs  # noqa: PLC0415
    from medix_eval.results.store import read_run  # noqa: PLC0415

    paths = [*([baseline] if baseline else []), *(run for run in runs if run != baseline)]
    if len(paths) < _PAIR:
        raise ConfigError("one run alone cannot be compared", hint="name two or more")
    found = compare_runs([read_run(path) for path in paths], force=force)
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        print_renderable(for_terminal(found))
