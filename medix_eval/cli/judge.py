"""`medix-eval judge RUN...`: judge saved completions again and show what changed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from medix_eval.cli import flags
from medix_eval.cli.flags import print_found

if TYPE_CHECKING:
    from medix_eval.evaluation.api import Serving

_FAILURES, _DONE = 1, 0


@flags.family("judge")
def judge(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...")],
    *,
    protocol: flags.Protocol = "medix",
    overrides: flags.Overrides = None,
    judge: flags.Judge = None,
    options: Mapping[str, Any],
    no_cache: flags.NoCache = False,
    local_host: flags.LocalHost = None,
    allow_egress: flags.Egress = None,
    include_path: flags.Include = None,
    allow_partial: flags.Partial = False,
    as_json: flags.Json = False,
    verbose: flags.Verbose = False,
) -> None:
    """Judge the saved completions of runs again; the models are not asked anything."""
    logging.getLogger("medix_eval").setLevel(logging.DEBUG if verbose else logging.INFO)
    from medix_eval.evaluation.api import judge_all  # noqa: PLC0415
    from medix_eval.evaluation.judge_changes import changes_of, changes_table  # noqa: PLC0415

    rejudged = judge_all(
        runs,
        protocol=protocol,
        overrides=overrides or (),
        judge=judge,
        include_path=include_path,
        local_host=local_host,
        allow_egress=allow_egress,
        allow_partial=allow_partial,
        no_cache=no_cache,
        progress=True,
        **cast("Serving", options),
    )
    changes = changes_of(rejudged)
    print_found(changes, changes_table, as_json=as_json)
    for one in rejudged:
        typer.echo(f"report: {one.after / 'report.html'}", err=True)
    raise typer.Exit(_FAILURES if changes.num_failures else _DONE)
