"""`medix-eval --model M --tasks T`: run an evaluation and print its table."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from medix_eval.cli import flags
from medix_eval.cli.flags import print_found, print_scores
from medix_eval.storage.version import __version__

_FAILURES = 1
_DONE = 0
_SHOWN = ("dry_run", "as_json", "verbose", "version")
"""Flags that control what is printed and do not affect the run."""


@flags.family("evaluation")
def evaluate(
    context: typer.Context,
    *,
    options: Mapping[str, Any],
    dry_run: flags.DryRun = False,
    as_json: flags.JsonScores = False,
    allow_partial: flags.Partial = False,
    verbose: flags.Verbose = False,
    version: flags.Version = False,
) -> None:
    """Evaluate medical language models, with and without images, so that the number is true."""
    logging.getLogger("medix_eval").setLevel(logging.DEBUG if verbose else logging.INFO)
    if version:
        typer.echo(f"medix-eval {__version__}")
        return
    if context.invoked_subcommand is not None:
        return
    from medix_eval.evaluation import api  # noqa: PLC0415

    options = as_given(options)
    if dry_run:
        typer.echo(api.plan(as_json=as_json, **options))
        return
    run = api.evaluate(progress=True, allow_partial=allow_partial, **options)
    if options["repeat"] is not None and run.repeats is not None:
        from medix_eval.evaluation.repeats import repeats_table  # noqa: PLC0415

        print_found(run.repeats, repeats_table, as_json=as_json)
        typer.echo(f"repetitions: {Path(run.scores.run) / 'repeats.json'}", err=True)
        raise typer.Exit(_FAILURES if run.repeats.num_failures else _DONE)
    print_scores(run.scores, as_json=as_json)
    raise typer.Exit(_FAILURES if run.scores.num_failures else _DONE)


def as_given(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of an evaluation's flags as arguments of `medix_eval.evaluate`."""
    given = {name: value for name, value in flags.items() if name not in _SHOWN}
    return given | {"tasks": given["tasks"] or (), "overrides": given["overrides"] or ()}
