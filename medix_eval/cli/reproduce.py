"""`medix-eval reproduce`: measure a model the published way and compare published numbers."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medix_eval.cli import flags
from medix_eval.cli.evaluate import as_given
from medix_eval.cli.flags import print_found, print_scores
from medix_eval.errors import ConfigError
from medix_eval.storage.bundled import bundled

if TYPE_CHECKING:
    from rich.console import RenderableType

    from medix_eval.evaluation.api import Run
    from medix_eval.results.reproduction import Reproduction

_PROTOCOL = "medix-compat"
_TASKS = "medix"
_DONE, _NOT_MET = 0, 5


def reproduce(
    context: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL")],
    *,
    run: Annotated[Path | None, typer.Option("--run", metavar="RUN",
        help="A finished run, instead of evaluating now.")] = None,
    published: Annotated[str | None, typer.Option("--as", metavar="NAME",
        help='Whose numbers, such as "MediX-R1 8B".')] = None,
    out: flags.Out = Path("results"),
    as_json: flags.Json = False,
) -> None:  # fmt: skip
    """Measure a model the published way and compare; all flags of an evaluation may follow."""
    from medix_eval.judging.protocol import load_protocol  # noqa: PLC0415
    from medix_eval.results.reproduction import figures_of, load_figures  # noqa: PLC0415
    from medix_eval.results.reproduction import reproduce as hold_against  # noqa: PLC0415
    from medix_eval.results.store import read_run  # noqa: PLC0415

    figures = load_figures(bundled("leaderboard") / "published_results.csv")
    figures = figures_of(figures, published or model)
    if run is None:
        run = _evaluated(context, model, out).path
    found = hold_against(figures, read_run(run), load_protocol(_PROTOCOL))
    print_found(found, _table, as_json=as_json)
    raise typer.Exit(_DONE if found.is_reproduced else _NOT_MET)


def _evaluated(context: typer.Context, model: str, out: Path) -> Run:
    """Evaluate with the flags that came behind the model, which are read as those of medix-eval."""
    from medix_eval.evaluation.api import evaluate, plan  # noqa: PLC0415

    arguments = ["--model", model, "--out", str(out)]
    for flag, value in (("--protocol", _PROTOCOL), ("--tasks", _TASKS)):
        if not any(one == flag or one.startswith(f"{flag}=") for one in context.args):
            arguments += [flag, value]
    root = context.find_root().command
    parsed = root.make_context("medix-eval", [*arguments, *context.args])
    given = parsed.params
    if left := [*getattr(parsed, "_protected_args", ()), *parsed.args]:
        raise ConfigError(
            f"reproduce takes no argument {left[0]!r}",
            hint="flags of an evaluation may follow MODEL",
        )
    if given["dry_run"]:
        typer.echo(plan(**as_given(given)))
        raise typer.Exit(_DONE)
    run = evaluate(progress=True, **as_given(given))
    with redirect_stdout(sys.stderr):  # stdout is for what is found
        print_scores(run.scores, as_json=False)
    return run


def _table(found: Reproduction) -> RenderableType:
    from medix_eval.report.format import percent, span, stacked, table  # noqa: PLC0415

    header = ("benchmark", "published", "here", "95 %", "", "source")
    rows = [
        (
            f"{one.figure.benchmark} = {one.ours}" if one.ours else one.figure.benchmark,
            one.figure.score,
            percent(one.measured),
            span(one.interval),
            one.state,
            one.figure.source,
        )
        for one in found.findings
    ]
    stamp = "SYNTHETIC DATA, reproduces nothing · " if found.synthetic else ""
    title = f"{stamp}{found.model} · {found.run}"
    shown = table(header, rows, title=title, words=("95 %", "", "source"), broken=header)
    differ = "Settings that differ from the published evaluation, as far as it is known:"
    return stacked(shown, differ, *(f"  {setting}" for setting in found.settings or ("none",)))
