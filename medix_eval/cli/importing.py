"""`medix-eval import`: turn results of other tools into a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medix_eval.cli import flags
from medix_eval.cli.flags import open_catalogue, print_scores

_CLAIM_NOT_MET = 5


def import_results(
    source: Annotated[Path, typer.Argument(metavar="PATH",
        help="An official submission, lm-eval or MedEvalKit results; or a zip.")],
    *,
    model: Annotated[str | None, typer.Option("--model",
        help="The model's name, if not the one in the files.")] = None,
    out: flags.Out = Path("results"),
    as_json: flags.JsonScores = False,
    include_path: flags.Include = None,
) -> None:  # fmt: skip
    """Import results of other tools: check them, score them again, compare the stated scores."""
    from medix_eval.exchange.importing import import_results as read  # noqa: PLC0415

    imported = read(source, open_catalogue(include_path), out=out, model=model)
    print_scores(imported.scores, as_json=as_json)
    for difference in imported.differences:
        typer.echo(f"stated score differs: {difference}", err=True)
    failed = 1 if imported.scores.num_failures else 0
    raise typer.Exit(_CLAIM_NOT_MET if imported.differences else failed)
