"""`medix-eval submit`: write a run as a zip that others can check, or check one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medix_eval.cli import flags
from medix_eval.cli.flags import open_catalogue
from medix_eval.errors import ConfigError

if TYPE_CHECKING:
    from medix_eval.exchange.checking import Checked

_NOT_MET = 5


@flags.family("judge")
def submit(
    source: Annotated[Path, typer.Argument(metavar="RUN",
        help="A run folder; with --check a submission's zip.")],
    *,
    check: Annotated[bool, typer.Option("--check", help="Check a zip; exit 5 on errors.")] = False,
    official: Annotated[bool, typer.Option("--official",
        help="Write the official layout of MediX-R1.")] = False,
    allow_synthetic: Annotated[bool, typer.Option("--allow-synthetic",
        help="Accept synthetic data, marked.")] = False,
    sign: Annotated[Path | None, typer.Option("--sign", metavar="KEY",
        help="Sign with this SSH key.")] = None,
    allowed_signers: Annotated[Path | None, typer.Option("--allowed-signers", metavar="FILE",
        help="Signers to trust.")] = None,
    num: Annotated[int, typer.Option("--num", help="Samples to judge again with --judge.")] = 50,
    seed: Annotated[int | None, typer.Option("--seed",
        help="Seed of this draw; by default it is unpredictable.")] = None,
    judge: Annotated[str | None, typer.Option("--judge", metavar="J",
        help="Judge some answers again.")] = None,
    judging: flags.Judging = None,
    options: Mapping[str, Any],
    data_root: flags.DataRoot = None,
    include_path: flags.Include = None,
    out: flags.Out = Path("submissions"),
    as_json: flags.Json = False,
) -> None:  # fmt: skip
    """Write a run as a zip that others can check, or check one."""
    if not check:
        from medix_eval.exchange.submission import write_submission  # noqa: PLC0415
        from medix_eval.results.store import read_run  # noqa: PLC0415

        if judge or allowed_signers:
            raise ConfigError("--judge and --allowed-signers need --check")
        run = read_run(source, judging=judging)
        written = write_submission(
            run, out, official=official, allow_synthetic=allow_synthetic, key=sign
        )
        typer.echo(str(written))
        return
    from medix_eval.data.tasks import mirror_at  # noqa: PLC0415
    from medix_eval.evaluation.api import judge_choices, positive  # noqa: PLC0415
    from medix_eval.exchange.checking import Doubts, check_submission  # noqa: PLC0415

    (choice,) = judge_choices(judge, options)
    doubts = Doubts(
        data_root=mirror_at(data_root),
        judge=choice if judge else None,
        num_samples=positive("--num", num) or 1,
        seed=seed,
        allowed_signers=allowed_signers,
        allow_synthetic=allow_synthetic,
    )
    checked = check_submission(source, open_catalogue(include_path), doubts)
    _print(checked, as_json=as_json)
    raise typer.Exit(_NOT_MET if checked.problems else 0)


def _print(checked: Checked, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(asdict(checked), indent=2))
        return
    for title, lines in (
        ("holds", checked.done),
        ("not checked", checked.unchecked),
        ("WRONG", checked.problems),
    ):
        for line in lines:
            typer.echo(f"{title:<12} {_plain(line)}")
    typer.echo(f"{_plain(checked.model)}: {'refused' if checked.problems else 'accepted'}")


def _plain(text: str) -> str:
    """Show what a stranger wrote on one line: a terminal or a CI log would obey some of it."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
