"""The command line: flags in, tables out; nothing heavy is imported before it is needed."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

import typer

from medix_eval.cli import (
    compare,
    data,
    evaluate,
    export,
    gate,
    importing,
    judge,
    judge_check,
    leaderboard,
    listing,
    report,
    reproduce,
    score,
    submit,
)
from medix_eval.errors import ConfigError, MedixError, of_the_system

# typer carries a click of its own and shows only its subclasses.
UsageError: Any = next(one for one in typer.BadParameter.mro() if one.__name__ == "ClickException")
_INTERRUPTED = 130
_DONE = 0

app = typer.Typer(
    name="medix-eval",
    help="Evaluate medical language models, with and without images, so that the number is true.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


app.callback(invoke_without_command=True)(evaluate.evaluate)
app.command("tasks")(listing.tasks)
app.command("show")(listing.show)
app.command("score")(score.score)
app.command("judge")(judge.judge)
app.command("judge-check")(judge_check.judge_check)
app.command("report")(report.report)
app.command("compare")(compare.compare)
app.add_typer(data.app, name="data")
app.command("export")(export.export)
app.command("gate")(gate.gate)
app.command(
    "reproduce", context_settings={"allow_extra_args": True, "ignore_unknown_options": True}
)(reproduce.reproduce)
app.command("leaderboard")(leaderboard.leaderboard)
app.command("import")(importing.import_results)
app.command("submit")(submit.submit)


def main(argv: list[str] | None = None) -> None:
    """Run `medix-eval`."""
    run(app, argv)


def run(app: typer.Typer, argv: list[str] | None) -> None:
    """Run a command; a deliberate error becomes one line, a hint and an exit code."""
    name = app.info.name
    logging.basicConfig(format="%(levelname)s: %(message)s", stream=sys.stderr)
    try:
        code = app(argv, standalone_mode=False)
    except UsageError as error:
        typer.echo(f"error: {error.format_message()}", err=True)
        typer.echo(f"hint: `{name} --help` lists the flags", err=True)
        sys.exit(ConfigError.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(_DONE)
    except Exception as error:
        system = of_the_system(error)  # it knows better what helps
        known = error if isinstance(error, MedixError) else system
        if known is None:
            logging.getLogger(__name__).exception("internal error in %s; please report it", name)
            sys.exit(MedixError.exit_code)
        typer.echo(f"error: {known}", err=True)
        if hint := (system or known).hint:
            typer.echo(f"hint: {hint}", err=True)
        sys.exit(known.exit_code)
    if code == _INTERRUPTED:  # typer, too, turns Ctrl-C into this code
        typer.echo("interrupted: finished work is kept; run the same command again", err=True)
    sys.exit(code if isinstance(code, int) else _DONE)
