"""`medix-eval score`: a run scored again from its verdicts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medix_eval.cli import flags
from medix_eval.cli.arguments import open_catalogue, print_scores
from medix_eval.errors import ConfigError


def score(
    run: Annotated[Path, typer.Argument(metavar="RUN")],
    *,
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            metavar="FILE",
            help="People's labels of some of its answers (sample_id,label[,annotator]): each "
            "score is also given with the judge's errors taken out.",
        ),
    ] = None,
    prices: Annotated[
        Path | None,
        typer.Option(
            "--prices",
            metavar="FILE",
            help="YAML with currency, prompt_tokens and completion_tokens (for a million), and "
            "judge_call: the run's cost.",
        ),
    ] = None,
    as_json: flags.Json = False,
    allow_partial: flags.Partial = False,
    include_path: flags.Include = None,
) -> None:
    """Score a run folder again from its verdicts; nothing is sent anywhere."""
    from medix_eval.evaluation.evaluation import write_scores  # noqa: PLC0415
    from medix_eval.results.labels import read_labels  # noqa: PLC0415
    from medix_eval.results.prices import read_prices  # noqa: PLC0415
    from medix_eval.results.store import find_run  # noqa: PLC0415

    folder, judged = find_run(run)
    if judged is None:
        raise ConfigError(f"{run} has no verdicts yet", hint="run the evaluation to its end first")
    scores = write_scores(
        folder,
        judged,
        open_catalogue(include_path),
        allow_partial=allow_partial,
        labels=read_labels(labels) if labels else None,
        prices=read_prices(prices) if prices else None,
    )
    print_scores(scores, as_json=as_json)
    raise typer.Exit(1 if scores.num_failures else 0)
