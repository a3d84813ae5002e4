"""`medix-eval leaderboard`: a static site from run folders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from medix_eval.cli import flags
from medix_eval.cli.flags import open_catalogue
from medix_eval.errors import ConfigError
from medix_eval.report.format import counted

_CHECK_NOT_MET = 5


def leaderboard(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Runs, or folders of runs.")],
    *,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write the site to.")] = None,
    models: Annotated[list[Path] | None, typer.Option("--models",
        help="YAML with facts of more models: size, base, openness.")] = None,
    check: Annotated[bool, typer.Option("--check",
        help="Only check the runs; exit 5 if one should not be shown.")] = False,
    allow_synthetic: Annotated[bool, typer.Option("--allow-synthetic",
        help="Show runs on synthetic data, on a marked board.")] = False,
    rules_file: Annotated[Path | None, typer.Option("--rules", metavar="FILE",
        help="YAML with what a rank requires.")] = None,
    max_unscored: Annotated[float | None, typer.Option(min=0, max=1,
        help="Largest share of samples without a score, for a rank.")] = None,
    require_scorecard: Annotated[bool, typer.Option("--require-scorecard",
        help="Give ranks only where the judge did well.")] = False,
    judging: flags.Judging = None,
    include_path: flags.Include = None,
) -> None:  # fmt: skip
    """Build the static leaderboard from runs; it works from disk and from any web server."""
    from medix_eval.site.boards import load_facts, load_rules  # noqa: PLC0415
    from medix_eval.site.build import problems_of, read_boards, write_site  # noqa: PLC0415
    from medix_eval.storage.bundled import bundled  # noqa: PLC0415

    needs_scorecard = require_scorecard or None
    rules = load_rules(rules_file, max_unscored=max_unscored, needs_scorecard=needs_scorecard)
    catalogue = open_catalogue(include_path)
    facts = load_facts([bundled("leaderboard") / "models.yaml", *(models or [])])
    how: dict[str, Any] = {"catalogue": catalogue, "facts": facts, "judging": judging}
    how |= {"allow_synthetic": allow_synthetic}
    if check:
        problems = problems_of(runs, **how)
        for problem in problems:
            typer.echo(problem)
        raise typer.Exit(_CHECK_NOT_MET if problems else 0)
    if out is None:
        raise ConfigError("--out is missing", hint="name the folder of the site, or use --check")
    boards = read_boards(runs, **how)
    written = write_site(boards, out, catalogue=catalogue, rules=rules)
    for board in written.boards:
        typer.echo(
            f"{board.protocol['name']} · {board.judge}: {counted(len(board.entries), 'model')}, "
            f"{counted(len(board.fingerprints), 'benchmark')} ({board.standing})"
        )
    typer.echo(f"site: {written.front}")
