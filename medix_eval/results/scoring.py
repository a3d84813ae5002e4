"""From a run folder to its scores: per task, per group."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

from medix_eval.models.requests import ending_of
from medix_eval.records import UNREAD, CompletionRecord, Kind, Outcome
from medix_eval.results.labels import Labels
from medix_eval.results.scores import (
    FAILED,
    GroupScore,
    Ledger,
    Scores,
    SliceScore,
    TaskScore,
    YesNo,
)
from medix_eval.results.statistics import (
    Agreement,
    Clusters,
    Correction,
    LabelledScore,
    Said,
    agreement,
    average_interval,
    average_stderr,
    clustered,
    correct,
    correct_average,
    group_interval,
    judge_effects,
    limits_of,
    ratings,
    task_interval,
)
from medix_eval.results.store import JudgingManifest, RunManifest, TaskEntry, newest
from medix_eval.storage.digests import mark_of

IMAGES_LEFT_OUT = {"images": "left out"}
"""Marks the identity of a text-only model that was asked about images anyway."""


def score_run(
    run: Path,
    judged: Path,
    *,
    manifest: RunManifest,
    judging: JudgingManifest,
    groups: Mapping[str, tuple[str, ...]],
    allow_partial: bool = False,
    labels: Labels | None = None,
    worst: bool = False,
) -> Scores:
    """Score what a run folder holds; samples without a verdict count as skipped.

    With people's `labels` on its answers, tasks that have enough of them are corrected too. In the
    `worst` case every sample without a score is wrong.
    """
    tallies = {name: Tally(manifest.tasks[name]) for name in judging.tasks}
    takes = {name: tally.entry.takes() for name, tally in tallies.items()}

    def read_answered(line: Mapping[str, Any]) -> Answered | None:
        name = str(line["task"]).partition("@")[0]
        is_taken = name in takes and takes[name](int(line["row"]))
        return Answered.of(line, tallies[name].entry) if is_taken else None

    for (task, sample_id), one in newest(run / "completions.jsonl", read_answered).items():
        if one is not None:
            tallies[task.partition("@")[0]].answered[sample_id] = one
    for (task, sample_id), verdict in newest(judged / "verdicts.jsonl", JudgedAs.of).items():
        tally = tallies.get(task.partition("@")[0])
        if tally is not None and sample_id in tally.answered:
            tally.judged[sample_id] = verdict
    for tally in tallies.values() if worst else ():
        tally.count_lost_as_wrong()
    corrections: dict[str, Correction] = {}
    if labels is not None:
        judged_samples = {name for tally in tallies.values() for name in tally.judged}
        marks = newest(run / "completions.jsonl", lambda line: mark_of(line.get("completion")))
        known = {name: mark for (_, name), mark in marks.items() if name in judged_samples}
        labels.check(known, run=judged)
        corrections = _corrections(tallies, labels)
    tasks = {
        name: tally.score(judging.judging).model_copy(
            update={"corrected": corrections[name].corrected if name in corrections else None}
        )
        for name, tally in tallies.items()
    }
    limits = {task.limit for task in tasks.values()}
    return Scores(
        model=manifest.model,
        judges=judging.judges,
        protocol=judging.protocol,
        generation_digest=manifest.generation_digest,
        judging_digest=judging.judging_digest,
        run=str(judged),
        limit=max((limit for limit in limits if limit is not None), default=None),
        synthetic=any(task.synthetic for task in tasks.values()),
        served_models=_served(tallies.values()),
        text_only=IMAGES_LEFT_OUT.items() <= manifest.generation.get("model", {}).items(),
        control=manifest.generation.get("control"),
        labels=dict(labels.source) if labels else None,
        tasks=tasks,
        groups=_with_corrections(
            group_scores(
                tasks,
                groups,
                clusters={name: tally.clusters() for name, tally in tallies.items()},
                allow_partial=allow_partial,
            ),
            corrections,
        ),
        usage=_usage(tallies.values()),
    )


def group_scores(
    tasks: Mapping[str, TaskScore],
    groups: Mapping[str, tuple[str, ...]],
    *,
    clusters: Mapping[str, Clusters],
    allow_partial: bool = False,
) -> dict[str, GroupScore]:
    """Average each group of which at least one task was run.

    With `allow_partial` an incomplete group is averaged over what there is, and stays marked.
    """
    found = {}
    for name, members in groups.items():
        here = [member for member in members if member in tasks]
        if not here:
            continue
        complete = len(here) == len(members) and all(tasks[one].is_complete for one in here)
        scored = {one: score for one in here if (score := tasks[one].score) is not None}
        usable = len(scored) == len(members) if not allow_partial else bool(scored)
        if not usable or not (complete or allow_partial):
            found[name] = GroupScore(score=None, tasks=members, complete=complete)
            continue
        parts = [clusters[one] for one in scored]
        drawn = group_interval(parts)
        found[name] = GroupScore(
            score=mean(scored.values()),
            tasks=members,
            complete=complete,
            stderr=average_stderr(parts),
            interval=limits_of(drawn),
            interval_method=drawn.method if drawn else None,
            closed_form=limits_of(average_interval(parts)),
        )
    return found


def _corrections(tallies: Mapping[str, Tally], labels: Labels) -> dict[str, Correction]:
    """Correct every task that has enough labels; sheets of 0.2 held only what was read."""
    given, judged = labels.by_sample, [tally.judged for tally in tallies.values()]
    drawn = {one.outcome for of in judged for name, one in of.items() if name in given}
    has_notes = any("note" in row.columns for row in labels.rows.values())
    unread = {*UNREAD} if has_notes or drawn & UNREAD else set()
    found = {name: correct(tally.labelled(given, unread)) for name, tally in tallies.items()}
    return {name: one for name, one in found.items() if one is not None}


def _with_corrections(
    groups: Mapping[str, GroupScore], corrections: Mapping[str, Correction]
) -> dict[str, GroupScore]:
    """Correct every group whose tasks are all corrected, and that has a score at all."""
    found = dict(groups)
    for name, group in groups.items():
        if group.score is not None and set(group.tasks) <= corrections.keys():
            score, interval = correct_average([corrections[task] for task in group.tasks])
            update = {"corrected": score, "corrected_interval": interval}
            found[name] = group.model_copy(update=update)
    return found


def _usage(tallies: Iterable[Tally]) -> dict[str, dict[str, float | int]]:
    listed = list(tallies)
    answered = [one for tally in listed for one in tally.answered.values()]
    judged = [one for tally in listed for one in tally.judged.values()]
    tokens, thought = sum(one.tokens for one in judged), sum(one.thought for one in judged)
    return {
        "candidate": {
            "requests": sum(one.requests for one in answered),
            "prompt_tokens": sum(one.prompt_tokens for one in answered),
            "completion_tokens": sum(one.completion_tokens or 0 for one in answered),
            "seconds": round(math.fsum(one.seconds for one in answered), 3),
        },
        "judge": {
            "calls": sum(one.calls for one in judged),
            "cached": sum(one.cached for one in judged),
            **({"completion_tokens": tokens, "thinking_tokens": thought} if tokens else {}),
            "seconds": round(math.fsum(one.seconds for one in judged), 3),
        },
    }


def _served(tallies: Iterable[Tally]) -> dict[str, int]:
    """Count the answers of each id, where servers named others than the one asked for."""
    answered = [one for tally in tallies for one in tally.answered.values()]
    served = Counter(one.served or "" for one in answered)
    return dict(sorted(served.items())) if served.keys() - {""} else {}


class Answered(NamedTuple):
    """The parts of a completion's line that scoring uses."""

    requests: int
    prompt_tokens: int
    completion_tokens: int | None
    seconds: float
    is_cut: bool
    cluster: str
    slices: tuple[tuple[str, str], ...]
    expects: str | None
    """`yes` or `no`, if that is the reference."""
    num_options: int
    served: str | None = None
    """The id that answered, where it is not the one asked for."""
    has_text: bool = True
    is_right_by_length: bool | None = None
    """Whether the likeliest option, by the length of its text, is the right one."""

    @classmethod
    def of(cls, line: Mapping[str, Any], entry: TaskEntry) -> Self:
        """Take it from the line; the task's entry says which columns are slices."""
        columns, options = line.get("columns", {}), line.get("options", ())
        sums = zip(line.get("log_likelihoods", ()), options, strict=False)
        likely = max(sums, key=lambda one: one[0] / (len(one[1]) or 1), default=None)
        tokens = line.get("completion_tokens")
        return cls(
            int(line.get("requests", 0)),
            int(line.get("prompt_tokens") or 0),
            None if tokens is None else int(tokens),
            float(line.get("seconds", 0.0)),
            ending_of(line.get("finish_reason")) == "length",
            # What has no image stands alone.
            columns.get(entry.cluster, line["sample_id"]),
            slices_of(columns, names=entry.slices, kind=entry.kind, reference=line["reference"]),
            said(line["reference"], whole=True),
            len(options),
            line.get("served_model"),
            bool((line.get("completion") or "").strip()),
            likely and likely[1] == line["reference"],
        )


class JudgedAs(NamedTuple):
    """The parts of a verdict's line that scoring uses."""

    outcome: Outcome
    score: float | None
    rules_score: float | None
    judge_score: float | None
    votes: tuple[Said, ...]
    calls: int
    cached: int
    seconds: float
    tokens: int
    thought: int
    tags: tuple[str, ...]
    says: str | None
    """`yes` or `no`, if the answer begins so."""

    @classmethod
    def of(cls, line: Mapping[str, Any]) -> Self:
        """Take it from the line."""
        votes = line.get("votes", ())
        return cls(
            Outcome(line["outcome"]),
            None if line["score"] is None else float(line["score"]),
            float(line["rule"]["score"]) if "rule" in line else None,
            line.get("judge_score"),
            tuple((vote["judge"], vote["prompt"], vote.get("points")) for vote in votes),
            sum(vote.get("calls", 0) for vote in votes),
            sum(vote.get("cached", False) for vote in votes),
            math.fsum(vote.get("seconds", 0.0) for vote in votes),
            sum(vote.get("tokens", 0) for vote in votes),
            sum(vote.get("thinking_tokens", 0) for vote in votes),
            tuple(line.get("error_tags", ())),
            said(line.get("answer") or ""),
        )

    def severity(self, harm: Mapping[str, float]) -> float:
        """Return the worst of its mistakes; what nobody names is `unknown`, by its share lost.

        An answer that says nothing (refused, cut, empty) states nothing that could harm.
        """
        is_stated = self.outcome in {Outcome.WRONG, Outcome.PARTIAL}
        unnamed = is_stated * (1.0 - (self.score or 0.0)) * harm.get("unknown", 0.0)
        return max((harm.get(tag, 0.0) for tag in self.tags), default=unnamed)


@dataclass(slots=True)
class Tally:
    """One task's samples."""

    entry: TaskEntry
    answered: dict[str, Answered] = field(default_factory=dict)
    judged: dict[str, JudgedAs] = field(default_factory=dict)

    def count_lost_as_wrong(self) -> None:
        """Score every sample that has no score 0; one of unknown slices counts in all of them."""
        every = tuple(dict.fromkeys(pair for one in self.answered.values() for pair in one.slices))
        unread = Answered(0, 0, None, 0.0, False, "", every, None, 0)  # noqa: FBT003
        lost = JudgedAs(Outcome.WRONG, 0.0, None, None, (), 0, 0, 0.0, 0, 0, (), None)
        num_unread = self.entry.num_selected - len(self.answered)
        for name in [*self.answered, *(f"unread {number}" for number in range(num_unread))]:
            if name not in self.judged or self.judged[name].score is None:
                one = self.answered.get(name, unread._replace(cluster=name))
                is_known = dict(one.slices).keys() >= set(self.entry.slices)
                self.answered[name] = one if is_known else one._replace(slices=every)
                self.judged[name] = lost

    def scored(self) -> list[tuple[Answered, float]]:
        """Pair each score with its completion."""
        return [
            (self.answered[name], one.score)
            for name, one in self.judged.items()
            if one.score is not None
        ]

    def clusters(self) -> Clusters:
        """Sum the scores by image or patient."""
        scored = self.scored()
        names = [one.cluster for one, _ in scored] if self.entry.cluster else None
        return clustered([score for _, score in scored], names)

    def labelled(self, given: Mapping[str, float], also: set[Outcome]) -> list[LabelledScore]:
        """Pair human labels with the scores; they speak for what was read, and `also` for these."""
        return [
            LabelledScore(
                score=one.score,
                label=given.get(name),
                is_read=one.outcome.is_read
                or (one.outcome in also and self.answered[name].has_text),
                cluster=self.answered[name].cluster,
            )
            for name, one in self.judged.items()
            if one.score is not None
        ]

    def score(self, settings: Mapping[str, Any]) -> TaskScore:
        """Return the task's row of the table; the judging's settings know scale and severities."""
        harm, points_range = settings.get("harm") or {}, range_of(settings, self.entry.kind)
        n, judged = self.entry.num_selected, self.judged.values()
        outcomes = Counter(one.outcome for one in judged)
        outcomes[Outcome.SKIPPED] += n - outcomes.total()
        scores = [one.score for one in judged if one.score is not None]
        rules = [one.rules_score for one in judged if one.rules_score is not None]
        total, clusters = math.fsum(scores), self.clusters()
        interval = task_interval(clusters)
        rows = [
            Row(one.slices, one.cluster, has and has.score, one.expects, has and has.says)
            for name, one in self.answered.items()
            for has in [self.judged.get(name)]
        ]
        is_graded = self.entry.kind == Kind.REPORT
        options = [one.num_options for one in self.answered.values()]
        norm = [one.is_right_by_length for one, _ in self.scored()]
        return TaskScore(
            version=self.entry.version,
            kind=self.entry.kind,
            limit=self.entry.limit if self.entry.rows is not None else None,
            synthetic=self.entry.synthetic,
            n=n,
            n_scored=len(scores),
            score=mean(scores),
            stderr=clusters.stderr if scores else None,
            rules_score=mean(rules),
            rules_n=len(rules),
            outcomes={outcome.value: outcomes[outcome] for outcome in Outcome},
            bounds=(total / n, (total + n - len(scores)) / n) if n else None,
            interval=limits_of(interval),
            interval_method=interval.method if interval else None,
            n_clusters=clusters.num_clusters if self.entry.cluster else None,
            slices=slice_scores(rows, with_clusters=self.entry.cluster is not None),
            agreement=agreement((ratings(one.votes) for one in judged), graded=is_graded),
            judge_effects=judge_effects((one.votes, points_range) for one in judged),
            agreement_with_rules=self._agreement_with_rules(graded=is_graded),
            error_tags=dict(sorted(Counter(tag for one in judged for tag in one.tags).items())),
            harm=mean(one.severity(harm) for one in judged if one.score is not None and harm),
            ledger=self._ledger(outcomes, total=total),
            yes_no=yes_no(rows),
            metrics={"acc_norm": mean(map(bool, norm))} if {*norm} - {None} else {},
            chance=mean(1 / number for number in options) if options and all(options) else None,
        )

    def _agreement_with_rules(self, *, graded: bool) -> Agreement | None:
        both = [
            {"judge": one.judge_score, "rules": one.rules_score}
            for one in self.judged.values()
            if one.judge_score is not None and one.rules_score is not None
        ]
        return agreement(both, graded=graded)

    def _ledger(self, outcomes: Mapping[Outcome, int], *, total: float) -> Ledger | None:
        n, answered, judged = self.entry.num_selected, self.answered.values(), self.judged.values()
        if not n:
            return None
        counted = [one.completion_tokens for one in answered if one.completion_tokens is not None]
        tokens = sum(counted) if counted else None
        return Ledger(
            cut_off=sum(one.is_cut for one in answered) / n,
            empty=outcomes[Outcome.EMPTY] / n,
            refused=outcomes[Outcome.REFUSED] / n,
            rejected=outcomes[Outcome.REJECTED] / n,
            failed=sum(outcomes[outcome] for outcome in FAILED) / n,
            completion_tokens=tokens,
            tokens_per_sample=None if tokens is None else tokens / len(counted),
            tokens_per_correct=None if tokens is None or total <= 0 else tokens / total,
            judge_calls=sum(one.calls for one in judged),
            candidate_seconds=round(math.fsum(one.seconds for one in answered), 3),
            judge_seconds=round(math.fsum(one.seconds for one in judged), 3),
        )


def range_of(settings: Mapping[str, Any], kind: str) -> float:
    """Return the range of the points of a vote, as the settings of a judging say."""
    role = "report" if kind == Kind.REPORT else "question"
    try:
        lowest, highest = settings["judge"][role]["scale"]
        return float(highest - lowest) or 1.0
    except (KeyError, TypeError, ValueError):  # rules, a dialogue, or a stranger's file
        return 1.0


def mean(values: Iterable[float]) -> float | None:
    """Return the mean, the same whatever the order of the values; None of nothing."""
    numbers = list(values)
    return math.fsum(numbers) / len(numbers) if numbers else None


_YES_NO = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)
_ANSWERED_FREELY = {Kind.OPEN, Kind.CLOSED}
_SHORT, _MEDIUM = 1, 3
REFERENCE = "reference"
"""The slice that every free-form task has: what sort of reference a question has."""


class Row(NamedTuple):
    """One sample, as slices see it."""

    slices: tuple[tuple[str, str], ...]
    cluster: str
    score: float | None
    expects: str | None
    """`yes` or `no`, if that is the reference."""
    says: str | None
    """`yes` or `no`, if the answer begins so."""


def slices_of(
    columns: Mapping[str, str], *, names: Sequence[str], kind: str, reference: str
) -> tuple[tuple[str, str], ...]:
    """Return column and value of each slice that a sample is in.

    >>> slices_of({"organ": "lung"}, names=["organ"], kind="open", reference="left upper lobe")
    (('organ', 'lung'), ('reference', '2 to 3 words'))
    """
    found = [(name, columns[name]) for name in names if name in columns]
    if kind in _ANSWERED_FREELY:
        found.append((REFERENCE, _sort_of(reference)))
    return tuple(found)


def sample_slices(entry: TaskEntry, asked: CompletionRecord) -> tuple[tuple[str, str], ...]:
    """Return the slices that a sample is in, as its run's scores name them."""
    return slices_of(asked.columns, names=entry.slices, kind=asked.kind, reference=asked.reference)


def said(text: str, *, whole: bool = False) -> str | None:
    """Return the yes or no that a text begins with; if `whole`, only if it says nothing else.

    >>> said("Yes, there is."), said("Yes, there is.", whole=True), said("Nodule")
    ('yes', None, None)
    """
    found = _YES_NO.match(text)
    if not found or (whole and text[found.end() :].strip(" .")):
        return None
    return found[1].lower()


def slice_scores(rows: Iterable[Row], *, with_clusters: bool) -> dict[str, dict[str, SliceScore]]:
    """Score every value of every column, in the order of the alphabet."""
    found: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        for column, value in row.slices:
            found.setdefault(column, {}).setdefault(value, []).append(row)
    return {
        column: {value: _slice(values[value], with_clusters) for value in sorted(values)}
        for column, values in sorted(found.items())
    }


def yes_no(rows: Iterable[Row]) -> YesNo | None:
    """Compare with always giving the more frequent answer; None without such questions."""
    asked = [row for row in rows if row.expects]
    if not asked:
        return None
    expected = Counter(row.expects for row in asked)
    answered = Counter(row.says for row in asked if row.says)
    scores = [row.score for row in asked if row.score is not None]
    majority = max(sorted(str(one) for one in expected), key=lambda one: expected[one])
    return YesNo(
        n=len(asked),
        score=clustered(scores).mean if scores else None,
        majority=expected[majority] / len(asked),
        majority_answer=majority,
        reference_yes=expected["yes"] / len(asked),
        answered_yes=answered["yes"] / answered.total() if answered else None,
        n_answered=answered.total(),
    )


def _slice(rows: Sequence[Row], with_clusters: bool) -> SliceScore:  # noqa: FBT001 (private)
    scored = [(row.score, row.cluster) for row in rows if row.score is not None]
    names = [name for _, name in scored] if with_clusters else None
    clusters = clustered([score for score, _ in scored], names)
    return SliceScore(
        n=len(rows),
        n_scored=len(scored),
        score=clusters.mean if scored else None,
        interval=limits_of(task_interval(clusters)),
    )


def _sort_of(reference: str) -> str:
    if said(reference, whole=True):
        return "yes or no"
    words = len(reference.split())
    if words <= _SHORT:
        return "1 word"
    return "2 to 3 words" if words <= _MEDIUM else "4 words or more"
