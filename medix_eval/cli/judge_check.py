"""`medix-eval judge-check`: measure how reliable a judge is, on labelled answers."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from medix_eval.cli import flags
from medix_eval.cli.flags import print_found
from medix_eval.errors import ConfigError, ServerError

if TYPE_CHECKING:
    from medix_eval.evaluation.panel import JudgeChoice, Panel
    from medix_eval.judge_check.probes import LabelledAnswer
    from medix_eval.judging.protocol import Protocol
    from medix_eval.results.scorecard import Scorecard
    from medix_eval.results.store import JudgedRun

_RULES, _MEDIX = "rules", "medix"
_UNUSABLE, _FAILURES, _DONE = ServerError.exit_code, 1, 0


@flags.family("judge")
def judge_check(
    *,
    judge: Annotated[str | None, typer.Option("--judge", metavar="J",
        help="The judge to measure, or `rules`.")] = None,
    protocol: Annotated[str | None, typer.Option("--protocol", metavar="P",
        help="The protocol it judges by, or several with commas; default medix.")] = None,
    overrides: flags.Overrides = None,
    split: Annotated[Literal["held_out", "development"], typer.Option("--split",
        help="Improve a judge on development, measure it on held_out.")] = "held_out",
    labels: Annotated[Path | None, typer.Option("--labels", metavar="FILE",
        help="Your own labels, instead of the probes.")] = None,
    sheet: Annotated[Path | None, typer.Option("--sheet", metavar="RUN",
        help="Write a blind annotation sheet from a run; with --labels, read labels back.")] = None,
    judging: flags.Judging = None,
    num: Annotated[int, typer.Option("--num", help="Answers on the sheet.")] = 200,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the sheet's draw.")] = 0,
    options: Mapping[str, Any],
    local_host: flags.LocalHost = None,
    allow_egress: flags.Egress = None,
    no_cache: flags.NoCache = False,
    out: flags.Out = Path("results"),
    as_json: flags.Json = False,
    verbose: flags.Verbose = False,
) -> None:  # fmt: skip
    """Measure a judge on labelled answers: its errors by class, its biases, its cost."""
    logging.getLogger("medix_eval").setLevel(logging.DEBUG if verbose else logging.INFO)
    from medix_eval.evaluation.api import judge_choices, positive  # noqa: PLC0415
    from medix_eval.results.store import read_run  # noqa: PLC0415

    run = read_run(sheet, judging=judging) if sheet else None
    if run is not None and labels is None:
        if judge is not None:
            raise ConfigError("--sheet alone uses no judge", hint="leave --judge out")
        from medix_eval.judge_check.sheet import write_sheet  # noqa: PLC0415

        for path in write_sheet(run, num=positive("--num", num) or 1, seed=seed):
            typer.echo(str(path))
        return
    if run is not None and judge is None and (protocol or overrides):
        raise ConfigError(
            "--sheet with --labels reads the verdicts of the run, under its own protocol",
            hint="leave --protocol and --set out, or name a judge to ask again with --judge",
        )
    from medix_eval.judge_check import check  # noqa: PLC0415
    from medix_eval.results.labels import read_labels  # noqa: PLC0415

    _make(out / "judges")  # before anything is asked that could then not be kept

    (choice,) = judge_choices(judge, options)
    found: Iterable[Scorecard]
    names: list[str | None] = [one for one in (protocol or "").split(",") if one.strip()]
    if judge is None and run is not None and labels is not None:
        found = [check.read_back(read_labels(labels), run)]
    else:
        source, items, restricted = _labelled(labels, run, split)
        who = choice if judge != _RULES else replace(choice, name=None)
        egress = (tuple(local_host or ()), allow_egress)
        chosen = [_protocol(judge, name, overrides or []) for name in names or [None]]
        panels = [_panel(who, one, restricted=restricted, egress=egress, out=out) for one in chosen]
        given: Any = {"labels": source, "restricted": bool(restricted), "out": out}
        found = (check.ask_about(items, one, use_cache=not no_cache, **given) for one in panels)
    cards = []
    for card in found:  # each is written before the next protocol is asked
        cards.append(card)
        folder = check.write_scorecard(card, out)
        if len(names) <= 1 or not as_json:
            print_found(card, check.scorecard_table, as_json=as_json)
        typer.echo(f"scorecard: {folder / 'scorecard.json'}, chart: scorecard.svg", err=True)
    if len(cards) > 1:
        print_found(check.Scorecards(cards), check.side_by_side, as_json=as_json)
    failed = _UNUSABLE if any(card.is_unusable for card in cards) else _FAILURES
    raise typer.Exit(failed if any(card.overall.n_failed for card in cards) else _DONE)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {folder.parent} cannot be used: {error.strerror}") from error


def _labelled(
    labels: Path | None, run: JudgedRun | None, split: Literal["held_out", "development"]
) -> tuple[Mapping[str, Any], Sequence[LabelledAnswer], list[str]]:
    """Return where the labels come from, the labelled answers, and which restricted tasks have."""
    from medix_eval.judge_check.answers import (  # noqa: PLC0415
        answers_of_run,
        answers_of_sheet,
        restricted_tasks,
    )
    from medix_eval.judge_check.probes import load_probes  # noqa: PLC0415
    from medix_eval.results.labels import read_labels  # noqa: PLC0415

    if labels is None:
        probes = load_probes(split)
        return probes.source, probes.items, []
    given = read_labels(labels)
    if run is None:
        return given.source, list(answers_of_sheet(given)), restricted_tasks(given)
    tasks = [name for name, entry in run.manifest.tasks.items() if entry.data_class == "dua"]
    return given.source, [one.item for one in answers_of_run(given, run)], tasks


def _protocol(judge: str | None, protocol: str | None, overrides: list[str]) -> Protocol:
    from medix_eval.judging.protocol import RulesOnly, load_protocol  # noqa: PLC0415

    default = _RULES if judge == _RULES else _MEDIX
    chosen = load_protocol(protocol or default, overrides=overrides)
    if isinstance(chosen.judge, RulesOnly) != (judge == _RULES) and judge is not None:
        raise ConfigError(
            f"--judge {judge} cannot be used with protocol {chosen.name!r}",
            hint="--judge rules and --protocol rules only go together",
        )
    return chosen


def _panel(
    choice: JudgeChoice,
    protocol: Protocol,
    *,
    restricted: list[str],
    egress: tuple[tuple[str, ...], str | None],
    out: Path,
) -> Panel:
    """Return the judge under its protocol, or nobody where that asks no language model."""
    from medix_eval.evaluation.panel import Panel, judge_sources, resolve_judges  # noqa: PLC0415
    from medix_eval.models.resolve import kept_local  # noqa: PLC0415

    sources, (allowed, reason) = judge_sources(protocol, [choice], out=out), egress
    sources = kept_local(sources, tasks=restricted, allowed=allowed, reason=reason)
    policy = choice.flags.policy()
    panel = Panel(protocol=protocol, judges=resolve_judges(sources), policy=policy)
    return replace(panel, gives_up=False)  # it is to be measured, whatever it replies
