"""One judge check from what was asked to its scorecard on disk."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medix_eval.errors import ReplyUnusable
from medix_eval.evaluation.progress import shown_progress
from medix_eval.judge_check.answers import AskedJudge, answers_of_run
from medix_eval.judge_check.biases import (
    Judged,
    confusion,
    consistency,
    length_bias,
    position_bias,
    rate,
)
from medix_eval.judge_check.probes import LabelledAnswer
from medix_eval.judging.cache import VerdictCache
from medix_eval.results.labels import Labels
from medix_eval.results.scorecard import (
    Confusion,
    Rate,
    RateDifference,
    Scorecard,
    Usage,
)
from medix_eval.results.store import JudgedRun, slug
from medix_eval.storage.digests import digest
from medix_eval.storage.jsonl import write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.console import RenderableType


def ask_about(
    items: Sequence[LabelledAnswer],
    judge: AskedJudge,
    *,
    labels: Mapping[str, Any],
    out: Path,
    use_cache: bool,
) -> Scorecard:
    """Ask a judge about labelled answers and sum up what it said."""
    identity = judge.identity()
    settings = judge.protocol.judging_settings()
    started = time.monotonic()
    with ExitStack() as stack:
        if use_cache and judge.source is not None:
            cache = stack.enter_context(VerdictCache.at(out / ".cache" / "verdicts.sqlite"))
            judge = replace(judge, cache=cache)
        progress = stack.enter_context(shown_progress())
        verdicts = asyncio.run(judge.judged(items, progress=progress))
    judged = [
        Judged(item=item, verdict=verdict) for item, verdict in zip(items, verdicts, strict=True)
    ]
    who = MeasuredJudge(
        name=judge.name,
        identity_digest=digest(identity),
        protocol={"name": judge.protocol.name, "digest": judge.protocol.digest},
        judging=settings,
        prompts=judge.protocol.judge_prompts,
    )
    return make_scorecard(judged, who, labels=labels, seconds=time.monotonic() - started)


def read_back(labels: Labels, run: JudgedRun) -> Scorecard:
    """Compare labels with the verdicts that a run already has; nobody is asked."""
    judging = run.judging
    who = MeasuredJudge(
        name=" + ".join(str(judge["id"]) for judge in judging.judges) or judging.protocol["name"],
        identity_digest=digest([judge["digest"] for judge in judging.judges]),
        protocol=run.protocol,
        judging=judging.settings,
        prompts=judging.prompts,
    )
    source = {**labels.source, "run": run.manifest.generation_digest}
    return make_scorecard(answers_of_run(labels, run), who, labels=source, seconds=0.0)


def write_scorecard(card: Scorecard, out: Path) -> Path:
    """Write `scorecard.json` and its picture, and return their folder."""
    folder = out / "judges" / slug(str(card.judge["id"])) / card.digest[:8]
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "scorecard.json", card.model_dump_json(indent=2) + "\n")
    draw(card, folder / "scorecard.svg")
    return folder


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredJudge:
    """Who was measured, and how it was asked."""

    name: str
    identity_digest: str
    protocol: Mapping[str, str]
    """Name and digest."""
    judging: Mapping[str, Any]
    """Everything in the protocol that can move a verdict, the texts of the prompts among it."""
    prompts: Mapping[str, str] = field(default_factory=dict)
    """Text of each prompt by the name of its file."""


def make_scorecard(
    judged: Sequence[Judged], who: MeasuredJudge, *, labels: Mapping[str, Any], seconds: float
) -> Scorecard:
    """Sum up what a judge said of labelled answers."""
    votes = [vote for one in judged for vote in one.verdict.votes]
    unread = [
        vote for vote in votes if vote.failure and vote.failure.error == ReplyUnusable.__name__
    ]
    return Scorecard(
        judge={"id": who.name, "digest": who.identity_digest},
        protocol=dict(who.protocol),
        labels=dict(labels),
        digest=digest([who.identity_digest, dict(who.judging), dict(labels)]),
        overall=confusion(judged),
        classes=_grouped(judged, [one.item.label_class for one in judged]),
        splits=_grouped(judged, [one.item.split for one in judged]),
        length_bias=length_bias(judged),
        position_bias=position_bias(judged, who.prompts),
        consistency=consistency(judged),
        parse_failures=rate(len(unread), len(votes)),
        usage=Usage(
            calls=sum(vote.calls for vote in votes),
            cached=sum(vote.cached for vote in votes),
            judge_seconds=round(sum(vote.seconds for vote in votes), 3),
            seconds=round(seconds, 3),
        ),
    )


def _grouped(judged: Sequence[Judged], names: Sequence[str]) -> dict[str, Confusion]:
    groups: dict[str, list[Judged]] = {}
    for one, name in zip(judged, names, strict=True):
        groups.setdefault(name, []).append(one)
    return {name: confusion(members) for name, members in groups.items()}


_HEADER = ("class", "n", "decided", "open", "failed", "right", "false\naccept", "false\nreject")
"""Broken in two where the table would else be wider than a terminal of 80 columns."""


def for_terminal(card: Scorecard) -> RenderableType:
    """Return the scorecard as a table with notes; it reads the same without colour."""
    from rich import box  # noqa: PLC0415 (rich only where a table is shown)
    from rich.console import Group  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(title=title(card), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for number, name in enumerate(_HEADER):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    for name, group in card.classes.items():
        table.add_row(*_row(name, group))
    table.add_section()
    for name, group in card.splits.items() if len(card.splits) > 1 else ():
        table.add_row(*_row(name, group))
    table.add_row(*_row("all", card.overall), style="bold")
    return Group(table, *(Text(note, style="dim") for note in _notes(card)))


def title(card: Scorecard) -> str:
    """Return one line that says who was measured on what."""
    return f"judge {card.judge['id']} · protocol {card.protocol['name']} · {labels_of(card)}"


def labels_of(card: Scorecard) -> str:
    """Say where the labels come from."""
    source = card.labels
    if "file" in source:
        return f"labels of {source['file']}"
    return f"probe set {source['version']}, {str(source['split']).replace('_', ' ')}"


def percent(share: Rate) -> str:
    """Return a share in percent.

    >>> percent(Rate(k=1, n=8, value=0.125, low=0.0, high=0.5))
    '12.5'
    """
    return "-" if share.value is None else f"{100 * share.value:.1f}"


def kappa_of(card: Scorecard) -> str:
    """Return the kappa with its interval, or a dash."""
    kappa = card.overall.kappa
    if kappa.value is None:
        return "-"
    if kappa.low is None or kappa.high is None:
        return f"{kappa.value:.2f}"
    return f"{kappa.value:.2f} ({kappa.low:.2f} to {kappa.high:.2f})"


def _row(name: str, group: Confusion) -> tuple[str, ...]:
    return (
        name,
        str(group.n),
        str(group.n_decided),
        str(group.n_abstained),
        str(group.n_failed),
        percent(group.accuracy),
        percent(group.false_accept),
        percent(group.false_reject),
    )


def _notes(card: Scorecard) -> list[str]:
    overall, usage = card.overall, card.usage
    rates = (
        f"accuracy {_with_interval(overall.accuracy)}, "
        f"balanced {_share(overall.balanced_accuracy)}, "
        f"macro F1 {_share(overall.macro_f1)}, kappa {kappa_of(card)}"
    )
    errors = (
        f"false accept {_with_interval(overall.false_accept)}, "
        f"false reject {_with_interval(overall.false_reject)}; of decided answers only"
    )
    notes = [rates, errors]
    if card.labels.get("annotators", 0) > 1:
        alpha, num_split = card.labels["alpha"], card.labels["n_split"]
        agree = "-" if alpha is None else f"{alpha:.2f}"
        notes.append(
            f"labels of {card.labels['annotators']} people, alpha {agree}; "
            f"{num_split} more answers on which they are split"
        )
    if card.length_bias is not None:
        bias = card.length_bias
        notes.append(
            "long minus short answers, accepted: right ones "
            f"{_points(bias.right_answers)}, wrong ones {_points(bias.wrong_answers)}"
        )
    if card.position_bias.reference_first is not None:
        notes.append(
            "prompts with the reference first minus prompts with the answer first, accepted: "
            f"{_points(card.position_bias.reference_first)}"
        )
    letters = card.position_bias.accuracy_by_letter
    if letters:
        said = ", ".join(f"{letter} {percent(share)}" for letter, share in letters.items())
        notes.append(f"right by the letter of the right option: {said}")
    if card.parse_failures.n:
        notes.append(
            f"first two votes equal {_with_interval(card.consistency)}; unreadable votes "
            f"{_with_interval(card.parse_failures)}"
        )
    notes.append(
        f"{usage.calls} judge calls, {usage.cached} votes from the cache, {usage.seconds:.1f} s"
    )
    return notes


def _with_interval(share: Rate) -> str:
    if share.value is None or share.low is None or share.high is None:
        return "-"
    return f"{percent(share)} ({100 * share.low:.1f} to {100 * share.high:.1f})"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _points(found: RateDifference) -> str:
    if found.value is None or found.low is None or found.high is None:
        return "-"
    return f"{100 * found.value:+.1f} points ({100 * found.low:+.1f} to {100 * found.high:+.1f})"


_INK, _MUTED = "#1a1e23", "#565f6a"
_PARTS = (
    ("judged as labelled", "#0a5a69"),
    ("wrong answer accepted", "#a12f28"),
    ("right answer rejected", "#d98032"),
    ("left open", "#d9dcd8"),
    ("no readable verdict", "#565f6a"),
)
"""What may become of an answer, and its colour: dark red is the error that flatters a model."""
_LIGHT = frozenset({"#d98032", "#d9dcd8"})
_ROW_INCHES = 0.3
_READABLE_SHARE = 0.07
"""A narrower part of a bar has no room for its number."""


def draw(card: Scorecard, path: Path) -> None:
    """Write the picture; equal scorecards give equal files."""
    import matplotlib as mpl  # noqa: PLC0415 (a second)
    from matplotlib.figure import Figure  # noqa: PLC0415
    from matplotlib.layout_engine import ConstrainedLayoutEngine  # noqa: PLC0415

    groups = [*card.classes.items(), ("all", card.overall)]
    with mpl.rc_context({"svg.hashsalt": "medix-eval", "font.size": 9, "text.color": _INK}):
        layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1)
        figure = Figure(figsize=(8.4, 1.7 + _ROW_INCHES * len(groups)), layout=layout)
        axes = figure.add_subplot()
        _bars(axes, groups)
        axes.set_title(title(card), loc="left", fontsize=10.5, fontweight="bold", pad=24)
        axes.text(0, 1.0, _summary(card), transform=axes.transAxes, va="bottom", color=_MUTED)
        figure.legend(loc="outside lower center", ncols=len(_PARTS), frameon=False, fontsize=8)
        figure.savefig(path, metadata={"Date": None})


def _bars(axes: Axes, groups: Sequence[tuple[str, Confusion]]) -> None:
    names = [name.replace("_", " ") for name, _ in groups]
    places = [*range(len(groups) - 1), len(groups) - 0.6]  # a gap before the sum
    left = [0.0] * len(groups)
    for number, (label, colour) in enumerate(_PARTS):
        shares = [_counts(group)[number] / group.n for _, group in groups]
        axes.barh(places, shares, left=left, color=colour, height=0.72, label=label)
        for place, start, share, (_, group) in zip(places, left, shares, groups, strict=True):
            if share >= _READABLE_SHARE:
                axes.text(
                    start + share / 2,
                    place,
                    str(_counts(group)[number]),
                    ha="center",
                    va="center",
                    fontsize=7.5,
                    color=_INK if colour in _LIGHT else "white",
                )
        left = [start + share for start, share in zip(left, shares, strict=True)]
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.tick_params(length=0, colors=_MUTED)
    axes.tick_params(axis="y", colors=_INK)
    axes.spines[:].set_visible(False)


def _counts(group: Confusion) -> tuple[int, ...]:
    return (
        group.accuracy.k,
        group.false_accept.k,
        group.false_reject.k,
        group.n_abstained,
        group.n_failed,
    )


def _summary(card: Scorecard) -> str:
    overall = card.overall
    parts = [f"{overall.n} answers, {overall.n_decided} decided"]
    for name, share in (
        ("accuracy", overall.accuracy),
        ("false accept", overall.false_accept),
        ("false reject", overall.false_reject),
    ):
        if share.value is not None:
            parts.append(f"{name} {share.value:.1%}")
    return " · ".join([*parts, f"kappa {kappa_of(card)}"])
