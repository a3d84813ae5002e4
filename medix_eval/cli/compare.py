"""`medix-eval compare`: runs against a baseline, paired sample by sample."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medix_eval.cli import flags
from medix_eval.cli.flags import print_found


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…")],
    *,
    baseline: Annotated[Path | None, typer.Option("--baseline", metavar="RUN",
        help="Compare with this run, not the first.")] = None,
    force: Annotated[bool, typer.Option("--force",
        help="Compare even if protocol, judge or data differ; marked.")] = False,
    judging: flags.Judging = None,
    as_json: flags.Json = False,
) -> None:  # fmt: skip
    """Compare runs on the samples they share: differences, their intervals, wins and losses."""
    from medix_eval.evaluation import api  # noqa: PLC0415
    from medix_eval.report.tables import comparison_table  # noqa: PLC0415

    paths = [*([baseline] if baseline else []), *(run for run in runs if run != baseline)]
    found = api.compare(*paths, force=force, judging=judging)
    print_found(found, comparison_table, as_json=as_json)
