"""One judge check from what was asked to its scorecard on disk."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import RootModel

from medix_eval.errors import UNREADABLE
from medix_eval.evaluation.panel import Panel
from medix_eval.evaluation.pipeline import shown_progress
from medix_eval.judge_check.answers import answers_of_run, ask_panel
from medix_eval.judge_check.biases import (
    JudgedAnswer,
    confusion,
    consistency,
    length_bias,
    letter_bias,
    rate,
)
from medix_eval.judge_check.probes import LabelledAnswer
from medix_eval.judging.cache import CACHE_FILE, VerdictCache
from medix_eval.models.requests import run_to_end
from medix_eval.report.chart import alone, share_bars
from medix_eval.report.format import decimal, percent, points, span, stacked, table, with_span
from medix_eval.report.tables import gains, judge_tokens
from medix_eval.results.labels import Labels
from medix_eval.results.scorecard import Confusion, Kappa, Rate, Scorecard, ShareDifference, Usage
from medix_eval.results.scoring import range_of
from medix_eval.results.statistics import judge_effects
from medix_eval.results.store import JudgedRun, slug
from medix_eval.storage.digests import digest
from medix_eval.storage.jsonl import write_text

if TYPE_CHECKING:
    from rich.console import RenderableType


def ask_about(
    items: Sequence[LabelledAnswer],
    panel: Panel,
    *,
    labels: Mapping[str, Any],
    restricted: bool,
    out: Path,
    use_cache: bool,
) -> Scorecard:
    """Ask a judge, or the rules where the panel has none, about labelled answers and sum up."""
    started = time.monotonic()
    with ExitStack() as stack:
        if use_cache and panel.judges:
            cache = stack.enter_context(VerdictCache.at(out / CACHE_FILE))
            panel = replace(panel, cache=cache)
        progress = stack.enter_context(shown_progress(wanted=True))
        logs = out / "judges" / "logs"
        asking = ask_panel(panel, items, logs=logs, restricted=restricted, progress=progress)
        judged = run_to_end(asking)
    protocol = panel.protocol
    name, identity = protocol.name, dict[str, Any]()
    for judge in panel.judges:
        name, identity = judge.name, dict(judge.identity)
    who = MeasuredJudge(
        name=name,
        identity_digest=digest(identity),
        protocol={"name": protocol.name, "digest": protocol.digest},
        judging=protocol.judging_settings(),
    )
    return make_scorecard(judged, who, labels=labels, seconds=time.monotonic() - started)


def read_back(labels: Labels, run: JudgedRun) -> Scorecard:
    """Compare labels with the verdicts that a run already has; no judge is asked."""
    judging = run.judging
    who = MeasuredJudge(
        name=" + ".join(str(judge["id"]) for judge in judging.judges) or judging.protocol["name"],
        identity_digest=digest([judge["digest"] for judge in judging.judges]),
        protocol=run.protocol,
        judging=judging.settings,
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
    """The judge that was measured, and how it was asked."""

    name: str
    identity_digest: str
    protocol: Mapping[str, str]
    """Name and digest."""
    judging: Mapping[str, Any]
    """Everything in the protocol that can affect a verdict, with the texts of the prompts."""


def make_scorecard(
    judged: Sequence[JudgedAnswer], who: MeasuredJudge, *, labels: Mapping[str, Any], seconds: float
) -> Scorecard:
    """Sum up what a judge said of labelled answers."""
    votes = [vote for one in judged for vote in one.verdict.votes]
    unread = [one for one in votes if one.failure and one.failure.error in UNREADABLE]
    return Scorecard(
        judge={"id": who.name, "digest": who.identity_digest},
        protocol=dict(who.protocol),
        labels=dict(labels),
        digest=digest([who.identity_digest, dict(who.judging), dict(labels)]),
        overall=confusion(judged),
        classes=_grouped(judged, [one.item.label_class for one in judged]),
        splits=_grouped(judged, [one.item.split for one in judged]),
        length_bias=length_bias(judged),
        position_bias=letter_bias(judged),
        judge_effects=judge_effects(
            (
                [(vote.judge, vote.prompt, vote.points) for vote in one.verdict.votes],
                range_of(who.judging, one.item.record.kind),
            )
            for one in judged
        ),
        consistency=consistency(judged),
        parse_failures=rate(len(unread), len(votes)),
        usage=Usage(
            calls=sum(vote.calls for vote in votes),
            cached=sum(vote.cached for vote in votes),
            judge_seconds=round(sum(vote.seconds for vote in votes), 3),
            seconds=round(seconds, 3),
            completion_tokens=sum(vote.tokens for vote in votes),
            thinking_tokens=sum(vote.thinking_tokens for vote in votes),
        ),
    )


def _grouped(judged: Sequence[JudgedAnswer], names: Sequence[str]) -> dict[str, Confusion]:
    groups: dict[str, list[JudgedAnswer]] = {}
    for one, name in zip(judged, names, strict=True):
        groups.setdefault(name, []).append(one)
    return {name: confusion(members) for name, members in groups.items()}


_HEADER = ("class", "n", "decided", "open", "failed", "right", "false\naccept", "false\nreject")
"""Broken in two where the table would else be wider than a terminal of 80 columns."""
_UNKNOWN = "not measured"
"""What a sentence says in place of a number that there is not."""


def scorecard_table(card: Scorecard) -> RenderableType:
    """Return the scorecard for a terminal: a line a class, the splits and the sum, and notes."""
    classes = [_row(name, group) for name, group in card.classes.items()]
    splits = [_row(name, group) for name, group in card.splits.items()]
    totals = [*(splits if len(splits) > 1 else []), _row("all", card.overall)]
    unread = card.parse_failures
    head = title(card)
    if card.is_unusable:
        head = f"this judge cannot be used: unreadable votes: {unread.k} of {unread.n}\n{head}"
    return stacked(table(_HEADER, classes, totals, title=head), notes=_notes(card))


class Scorecards(RootModel[list[Scorecard]]):
    """One judge under several protocols, about the same answers."""


def side_by_side(found: Scorecards) -> RenderableType:
    """Return how often each protocol is right about each class."""
    every = [{**card.classes, "all": card.overall} for card in found.root]
    header = ("class", "n", *(f"{card.protocol['name']}\nright" for card in found.root))
    rows = [[name, str(every[0][name].n)] for name in every[0]]
    for row, each in product(rows, every):
        row.append(f"{percent(each[row[0]].accuracy.value)} of {each[row[0]].n_decided}")
    return table(header, rows[:-1], rows[-1:], title="the same answers under each protocol")


def title(card: Scorecard) -> str:
    """Return one line that says who was measured on what."""
    return f"judge {card.judge['id']} · protocol {card.protocol['name']} · {labels_of(card)}"


def labels_of(card: Scorecard) -> str:
    """Say where the labels come from."""
    source = card.labels
    if "file" in source:
        return f"labels of {source['file']}"
    return f"probe set {source['version']}, {str(source['split']).replace('_', ' ')}"


def kappa_of(card: Scorecard) -> str:
    """Return the kappa with its interval, as part of a sentence."""
    kappa = card.overall.kappa
    return with_span(kappa.value, _ends(kappa), "not defined", show=decimal)


def _row(name: str, group: Confusion) -> tuple[str, ...]:
    counts = (group.n, group.n_decided, group.n_abstained, group.n_failed)
    return (name, *map(str, counts), *(percent(rate.value) for rate in _rates(group)))


def _rates(group: Confusion) -> tuple[Rate, Rate, Rate]:
    return group.accuracy, group.false_accept, group.false_reject


def _notes(card: Scorecard) -> list[str]:
    overall, usage = card.overall, card.usage
    rates = (
        f"accuracy {_with_interval(overall.accuracy)}, "
        f"balanced {percent(overall.balanced_accuracy, _UNKNOWN)}, "
        f"macro F1 {percent(overall.macro_f1, _UNKNOWN)}, kappa {kappa_of(card)}"
    )
    errors = (
        f"false accept {_with_interval(overall.false_accept)}, "
        f"false reject {_with_interval(overall.false_reject)}; of decided answers only"
    )
    notes = [rates, errors]
    if card.labels.get("annotators", 0) > 1:
        alpha, num_split = card.labels["alpha"], card.labels["n_split"]
        notes.append(
            f"labels of {card.labels['annotators']} people, alpha {decimal(alpha, 'not defined')}; "
            f"without a majority, and left out: {num_split}"
        )
    if card.length_bias is not None:
        bias = card.length_bias
        notes.append(
            "long minus short answers, accepted: right ones "
            f"{_in_points(bias.right_answers)}, wrong ones {_in_points(bias.wrong_answers)}"
        )
    if card.judge_effects:
        notes.append(f"a vote gains by order and wording: {gains(card.judge_effects)}")
    letters = card.position_bias.accuracy_by_letter
    if letters:
        said = ", ".join(f"{one} {percent(rate.value, _UNKNOWN)}" for one, rate in letters.items())
        notes.append(f"accuracy by the letter of the right option: {said}")
    if card.parse_failures.n:
        notes.append(
            f"first two votes agree {_with_interval(card.consistency)}; unreadable votes "
            f"{_with_interval(card.parse_failures)}"
        )
    cost = f"judge calls: {usage.calls}, cached votes: {usage.cached}, {usage.seconds:.1f} s"
    cost += "".join(f"; its tokens: {told}" for told in judge_tokens(usage.model_dump()))
    return [*notes, cost]


def _with_interval(share: Rate) -> str:
    return with_span(share.value, _ends(share), _UNKNOWN)


def _ends(found: Rate | Kappa | ShareDifference) -> tuple[float, float] | None:
    return None if found.low is None or found.high is None else (found.low, found.high)


def _in_points(found: ShareDifference) -> str:
    ends = _ends(found)
    return f"{points(found.value)} points ({span(ends, show=points)})" if ends else _UNKNOWN


_PARTS = (
    "judged as labelled",
    "wrong answer accepted",
    "right answer rejected",
    "left open",
    "no readable verdict",
)
"""What may become of an answer."""


def draw(card: Scorecard, path: Path) -> None:
    """Write the picture; equal scorecards give equal files."""
    groups = [*card.classes.items(), ("all", card.overall)]
    rows = [(name.replace("_", " "), _counts(group)) for name, group in groups]
    write_text(path, alone(share_bars(rows, _PARTS, title=title(card), note=_summary(card))))


def _counts(group: Confusion) -> tuple[int, ...]:
    return (*(rate.k for rate in _rates(group)), group.n_abstained, group.n_failed)


def _summary(card: Scorecard) -> str:
    overall = card.overall
    parts = [f"answers: {overall.n}, decided: {overall.n_decided}"]
    names = ("accuracy", "false accept", "false reject")
    for name, share in zip(names, _rates(overall), strict=True):
        if share.value is not None:
            parts.append(f"{name} {percent(share.value)} %")
    return " · ".join([*parts, f"kappa {kappa_of(card)}"])
