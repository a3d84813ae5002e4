"""`medix-eval score`: a run scored again from its verdicts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from medix_eval.cli import flags
from medix_eval.cli.flags import print_scores


def score(
    run: Annotated[Path, typer.Argument(metavar="RUN")],
    *,
    labels: Annotated[Path | None, typer.Option("--labels", metavar="FILE",
        help="People's labels of some of its answers (sample_id,label[,annotator]): each score is "
             "also given with the judge's errors taken out.")] = None,
    prices: Annotated[Path | None, typer.Option("--prices", metavar="FILE",
        help="YAML with currency, prompt_tokens and completion_tokens (for a million), and "
             "judge_call: the run's cost.")] = None,
    judging: flags.Judging = None,
    as_json: flags.Json = False,
    allow_partial: flags.Partial = False,
    include_path: flags.Include = None,
) -> None:  # fmt: skip
    """Score a run folder again from its verdicts; nothing is sent anywhere."""
    from medix_eval.evaluation import api  # noqa: PLC0415

    how: dict[str, Any] = {"judging": judging, "labels": labels, "prices": prices}
    scored = api.score(run, allow_partial=allow_partial, include_path=include_path, **how)
    print_scores(scored.scores, as_json=as_json)
    raise typer.Exit(1 if scored.scores.num_failures else 0)
