"""Scores and comparisons as tables: in the terminal, as Markdown and as CSV."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from typing import TYPE_CHECKING, Any

from medix_eval.records import Outcome
from medix_eval.report.format import (
    counted,
    csv_of,
    decimal,
    p_value,
    percent,
    points,
    span,
    stacked,
    strong,
    table,
    with_span,
)
from medix_eval.results.comparison import Comparison, Contest, Pair
from medix_eval.results.scores import MARKED, Scores, SliceScore, TaskScore, YesNo, losses, whose
from medix_eval.results.statistics import Difference
from medix_eval.storage.bundled import bundled, read_mapping

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_SYNTHETIC = "SYNTHETIC: made-up rows stand in for a benchmark; numbers say nothing about it."
_TEXT_ONLY = "TEXT ONLY: the model accepts no images; it was asked about them without seeing them."
_PARTIAL = "A group has a score only when all its tasks are complete (--allow-partial prints it)."
_WARN_ABOVE = 0.05
"""The share of samples cut off or failed above which a table warns."""
_LISTED = 12
"""Changed samples that a comparison lists; all are in the JSON."""


@dataclass(frozen=True, slots=True)
class _Table:
    header: tuple[str, ...]
    tasks: list[tuple[str, ...]]
    groups: list[tuple[str, ...]]
    notes: list[str]


def _title(scores: Scores) -> str:
    """Return one line that says what was measured, and by whom."""
    judges = ", ".join(str(judge["id"]) for judge in scores.judges) or "no language model"
    stamp = "SYNTHETIC DATA · " if scores.synthetic and not _stamped(scores) else ""
    stamp += "TEXT ONLY · " if scores.text_only else ""
    stamp += f"CONTROL {scores.control} · " if scores.control else ""
    return f"{stamp}{scores.model} · protocol {scores.protocol['name']} · judged by {judges}"


def _stamped(scores: Scores) -> list[str]:
    """Return the tasks and groups that are of synthetic data, where others are not."""
    found = [name for name in (*scores.tasks, *scores.groups) if scores.is_synthetic(name)]
    return found if not all(task.synthetic for task in scores.tasks.values()) else []


def scores_table(scores: Scores) -> RenderableType:
    """Return the scores of one run for a terminal, with what a control took away."""
    rows = _rows(scores)
    tables = [
        table(cols, shown.tasks, shown.groups, title=head, words=cols[-1:], broken=cols[:1])
        for head, shown in ((_title(scores), rows), *_effect(scores))
        for cols in [shown.header]
    ]
    return stacked(*tables, notes=rows.notes)


def as_markdown(scores: Scores) -> str:
    """Return `report.md`: the table, the notes and what made the numbers."""
    rows = _rows(scores)
    lines = [f"# {_title(scores)}", "", *_markdown(rows.header, [*rows.tasks, *rows.groups]), ""]
    for head, effect in _effect(scores):
        lines += [f"## {head}", "", *_markdown(effect.header, [*effect.tasks, *effect.groups]), ""]
    lines += [f"{note}\n" for note in rows.notes]
    for name, task in scores.tasks.items():
        lines += _slices(name, task)
    lines += _judges_agree(scores)
    usage = scores.usage
    lines += [
        "| what | value |",
        "|---|---|",
        f"| run | `{scores.run}` |",
        f"| protocol | {scores.protocol['name']} `{scores.protocol['digest'][:8]}` |",
        f"| generation | `{scores.generation_digest[:8]}` |",
        f"| judging | `{scores.judging_digest[:8]}` |",
        *(f"| judge | {judge['id']} `{judge['digest'][:8]}` |" for judge in scores.judges),
        f"| candidate requests | {usage['candidate']['requests']} |",
        f"| tokens written | {usage['candidate']['completion_tokens']} |",
        f"| judge calls | {usage['judge']['calls']}, {usage['judge']['cached']} from the cache |",
        *(f"| judge's tokens | {told} |" for told in judge_tokens(usage["judge"])),
    ]
    return "\n".join(lines) + "\n"


def as_csv(scores: Scores) -> str:
    """Return `scores.csv`: one line per task, every outcome in its own column."""
    fields = ["task", "version", "kind", "n", "n_scored", "score", "stderr", "low", "high"]
    fields += ["interval_low", "interval_high", "n_clusters"]
    fields += ["rules_score", "rules_n", *(outcome.value for outcome in Outcome)]
    metrics = dict.fromkeys(name for task in scores.tasks.values() for name in task.metrics)
    fields += [f"metric_{name}" for name in metrics]
    rows: list[dict[str, Any]] = []
    for name, task in scores.tasks.items():
        low, high = task.bounds or (None, None)
        row = task.model_dump(include=set(fields)) | {"task": name, "low": low, "high": high}
        row |= task.outcomes | ends("interval", task.interval)
        rows.append(row | {f"metric_{one}": v.value for one, v in task.metric_values.items()})
    for name, group in scores.groups.items():
        n = sum(scores.tasks[task].n for task in group.tasks if task in scores.tasks)
        row = {"task": name, "kind": "group", "n": n, "score": group.score, "stderr": group.stderr}
        rows.append(row | ends("interval", group.interval))
    return csv_of(fields, rows)


def ends(name: str, pair: tuple[float, float] | None) -> dict[str, float]:
    """Return both ends of an interval as columns, if there is one."""
    return {f"{name}_low": pair[0], f"{name}_high": pair[1]} if pair else {}


def _rows(scores: Scores) -> _Table:
    """Lay the scores out as text, in percent."""
    judged, stamped = bool(scores.judges), _stamped(scores)
    header = ["task", "score", "95 %", *(["corrected"] if scores.labels else []), "n", "scored"]
    header += [*(["rules"] if judged else []), "lost"]
    tasks = [
        (
            f"{name}@{task.version}" + (f" (limit {task.limit})" if task.limit else ""),
            percent(task.score) + task.mark,
            span(task.interval),
            *([_corrected(task)] if scores.labels else []),
            str(task.n),
            str(task.n_scored),
            *([f"{percent(task.rules_score)} of {task.rules_n}" if task.rules_n else "-"] * judged),
            ("SYNTHETIC " if name in stamped else "") + losses(task, f"bounds {span(task.bounds)}"),
        )
        for name, task in scores.tasks.items()
    ]
    groups = []
    for name, group in scores.groups.items():
        here = [scores.tasks[task] for task in group.tasks if task in scores.tasks]
        missing = len(group.tasks) - len(here)
        said = ["SYNTHETIC"] if name in stamped else []
        said += [f"mean of {counted(len(group.tasks), 'task')}"]
        said += [f"{missing} not run"] if missing else []
        said += ["incomplete"] if not group.complete and not missing else []
        groups.append(
            (
                name,
                percent(group.score) + ("" if group.score is None else scores.mark_of(name)),
                span(group.interval),
                *([with_span(group.corrected, group.corrected_interval)] if scores.labels else []),
                str(sum(task.n for task in here)),
                str(sum(task.n_scored for task in here)),
                *([""] if judged else []),
                ", ".join(said),
            )
        )
    return _Table(tuple(header), tasks, groups, [*notes(scores), *daggers(scores)])


def _effect(scores: Scores) -> list[tuple[str, _Table]]:
    """Lay out what a control took away; nothing where there is none or no plain run beside it."""
    found = scores.effect
    if found is None:
        return []
    header = ("task", found.name, "95 %", "p", "n", "changed", "95 % of the samples")
    tasks: list[tuple[str, ...]] = [
        (name, *_difference(one), str(one.n), percent(found.changed[name].share),
         span(found.changed[name].interval))
        for name, one in found.tasks.items()
    ]  # fmt: skip
    groups: list[tuple[str, ...]] = [
        (name, *_difference(one), str(one.n), "", "") for name, one in found.groups.items()
    ]
    head = f"{found.name}: plain minus {scores.control}, sample by sample"
    return [(head[0].upper() + head[1:], _Table(header, tasks, groups, []))]


def _difference(one: Difference, none: str = "") -> tuple[str, str, str]:
    return points(one.difference), span(one.interval, none, show=points), p_value(one.p)


def _served(models: Mapping[str, int]) -> list[str]:
    each = (f"{served or 'as asked for'} {number}" for served, number in models.items())
    return [f"Answers by the id in the server's replies: {', '.join(each)}."] if models else []


def notes(scores: Scores) -> list[str]:
    """Return what a reader must know beside the table."""
    said = [*_warnings(scores), *_metrics(scores), *_served(scores.served_models)]
    said += [*_apart(scores), *_specialties(scores)]
    harm = {name: task.harm for name, task in scores.tasks.items() if task.harm is not None}
    if harm:
        each = ", ".join(f"{name} {percent(severity)}" for name, severity in harm.items())
        said.append(f"Errors weighted by severity (0 to 100, never in the score): {each}.")
    if note := scores.protocol.get("note"):
        said.append(f"{scores.protocol['name']}: {note}")
    if cost := scores.cost:
        each = "no" if cost.per_correct is None else f"{cost.per_correct:.4g} for each"
        said.append(
            f"Cost: {cost.candidate:.4g} {cost.currency} for the model, {cost.judge:.4g} for the "
            f"judge; {each} fully correct answer."
        )
    if scores.synthetic:
        said.append(" ".join([_SYNTHETIC, ", ".join(_stamped(scores))]).strip())
    if scores.text_only:
        said.append(_TEXT_ONLY)
    if scores.control:
        said += [f"CONTROL {scores.control}: the samples were perturbed; not a score of the model."]
    if effect := scores.effect:
        num_left_out = sum(scores.tasks[name].n - one.n for name, one in effect.tasks.items())
        if num_left_out:
            said.append(
                f"Samples not scored in both runs, and not in the {effect.name}: {num_left_out}. "
                "Answers that are missing because of the control are not counted."
            )
    if any(not group.complete for group in scores.groups.values()):
        said.append(_PARTIAL)
    return said


def daggers(scores: Scores) -> list[str]:
    """Say what a dagger after a score means, if there is one, and whose loss it is."""
    marks = [task.mark for task in scores.tasks.values()]
    marks += [scores.mark_of(name) for name, one in scores.groups.items() if one.score is not None]
    lost = whose(scores.tasks.values(), scored=False)
    told = f" No score: {lost}; the bounds show how far the score could move." if lost else ""
    return [f"† {MARKED}.{told}"] if any(marks) else []


def _metrics(scores: Scores) -> list[str]:
    """Say what metrics from outside found."""
    return [
        f"{name}: {', '.join(one.shown(metric) for metric, one in task.metric_values.items())}."
        for name, task in scores.tasks.items()
        if task.metrics
    ]


def _apart(scores: Scores) -> list[str]:
    """Say the score without what cannot be answered, and how many reports say nothing is found."""
    said = []
    for name, task in scores.tasks.items():
        asked, written = (task.slices.get(one, {}) for one in ("needs_absent_image", "normality"))
        if {"yes", "no"} <= asked.keys():
            rest = with_span(asked["no"].score, asked["no"].interval)
            rows = counted(asked["yes"].n, "question")
            said.append(f"{name}: {rest} without {rows} about a picture that is not there.")
        if "normal" in written:
            share = percent(written["normal"].n / sum(one.n for one in written.values()))
            said.append(
                f"{name}: normal are {share} % of the references (--control always-normal)."
            )
    return said


def _specialties(scores: Scores) -> list[str]:
    """Pool the samples of each specialty that several tasks ask about."""
    parts: dict[str, SliceScore | TaskScore] = dict(scores.tasks)
    for name, task in scores.tasks.items():
        for column, values in task.slices.items():
            parts |= {f"{name}/{column}/{value}": one for value, one in values.items()}
    known = read_mapping(bundled("tasks") / "slices" / "_specialties.yaml", what="specialties")
    found = []
    for specialty, sources in known.items():
        here = {one: parts[one] for one in sources if one in parts and parts[one].n_scored}
        if len({source.partition("/")[0] for source in here}) > 1:
            n = sum(one.n_scored for one in here.values())
            total = fsum((one.score or 0.0) * one.n_scored for one in here.values())
            found.append(f"{specialty} {percent(total / n)} (n {n:,})")
    return [f"By specialty, all tasks together: {', '.join(found)}."] if found else []


def _warnings(scores: Scores) -> list[str]:
    found = []
    for name, task in scores.tasks.items():
        if task.ledger and task.ledger.cut_off > _WARN_ABOVE:
            share = percent(task.ledger.cut_off)
            found.append(f"WARNING {name}: {share} % of the completions hit the token limit.")
        if task.ledger and task.ledger.failed > _WARN_ABOVE:
            share = percent(task.ledger.failed)
            found.append(f"WARNING {name}: {share} % of the samples failed.")
    return found


def _slices(name: str, task: TaskScore) -> list[str]:
    """Lay the slices of a task out as Markdown; what is too small to judge is in italics."""
    rows = [
        (column, _value(value, one), percent(one.score), span(one.interval), str(one.n))
        for column, values in task.slices.items()
        for value, one in values.items()
        if len(values) > 1
    ]
    lines = [f"## {name} by slice", ""] if rows or task.yes_no else []
    if worst := task.worst_slice:
        column, value, one = worst
        lines += [f"Worst slice: {column} {value}, {with_span(one.score, one.interval)}.", ""]
    if asked := task.yes_no:
        lines += [f"Yes-or-no questions: {yes_no_text(asked)}", ""]
    if rows:
        lines += [*_markdown(("slice", "value", "score", "95 %", "n"), rows), ""]
    return lines


def yes_no_text(asked: YesNo) -> str:
    """Say how yes-or-no questions were answered, and what needs no knowledge to score on them."""
    score = "none was scored" if asked.score is None else f"score {percent(asked.score)}"
    answers = "no answer begins with yes or no"
    if asked.answered_yes is not None:
        answers = f"answers in {percent(asked.answered_yes)} %"
    always = f"always “{asked.majority_answer}” would score {percent(asked.majority)}"
    references = f"References say yes in {percent(asked.reference_yes)} %"
    return f"{asked.n}, {score}; {always}. {references}, {answers}."


def _value(value: str, one: SliceScore) -> str:
    text = value.replace("|", "\\|").replace("\n", " ")
    return f"*{text}* (few)" if one.is_small else text


def _judges_agree(scores: Scores) -> list[str]:
    """Say how far the judge's votes agree with each other and with the rules."""
    rows = [
        (name, what, str(one.n), percent(one.agree), decimal(one.cohen_kappa),
         decimal(one.fleiss_kappa), decimal(one.krippendorff_alpha))
        for name, task in scores.tasks.items()
        for what, one in (("votes", task.agreement), ("rules", task.agreement_with_rules))
        if one is not None
    ]  # fmt: skip
    header = ("task", "judge and", "n", "agree", "Cohen κ", "Fleiss κ", "Krippendorff")
    said = ["## Agreement of the judge", "", *_markdown(header, rows), ""] if rows else []
    effects = {name: task.judge_effects for name, task in scores.tasks.items()}
    lines = [f"- {name}: {gains(found)}" for name, found in effects.items() if found]
    head = ["What a vote gains by order and wording of its prompt:", ""] if lines else []
    return [*said, *head, *lines, *([""] if lines else [])]


def gains(effects: Mapping[str, Difference]) -> str:
    """Say what order and wording of a prompt do to a vote, in points with 95 % intervals."""
    shown = {name: span(one.interval, "-", show=points) for name, one in effects.items()}
    return ", ".join(f"{name} {points(effects[name].difference)} ({shown[name]})" for name in shown)


def judge_tokens(usage: Mapping[str, float | int]) -> list[str]:
    """Say what a judge wrote, and how much of it was thinking, where its server counts."""
    written, thought = (usage.get(f"{one}_tokens", 0) for one in ("completion", "thinking"))
    return [f"{written:,} written, about {thought:,} of them thinking"] if written else []


def _corrected(task: TaskScore) -> str:
    if task.corrected is None:
        return "uncalibrated"
    return with_span(task.corrected.score, task.corrected.interval)


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---" if number in {0, len(header) - 1} else "---:" for number in range(len(header))]
    return [f"| {' | '.join(row)} |" for row in (header, rule, *rows)]


def comparison_table(comparison: Comparison) -> RenderableType:
    """Return who is best, and how each run differs from the baseline."""
    stamps = [_SYNTHETIC] if comparison.synthetic else []
    stamps += [f"FORCED, not comparable: {found}" for found in comparison.mismatches]
    parts: list[RenderableType] = [*_head(comparison), *map(strong, stamps)]
    parts.append(_contests(comparison))
    for pair in comparison.pairs:
        parts += [_differences(pair), *_clear_slices(pair), *_changed(pair)]
    contests = {**comparison.tasks, **comparison.groups}
    open_ones = {name: one.best_withheld for name, one in contests.items() if one.best_withheld}
    notes = (
        *(f"No best in {name}: {why}." for name, why in open_ones.items()),
        "* best; = may be as good: the interval of its paired difference from the best includes 0.",
        (
            "in brackets: over all samples of the run, those without a score counted as wrong, "
            "then as right."
        ),
        "p: McNemar's exact test, or sign flips by image or patient; Holm: adjusted for all tasks.",
        "detectable: the smallest true difference that this many samples show with 80 % power.",
    )
    return stacked(*parts, notes=notes)


def _head(comparison: Comparison) -> list[str]:
    settings = [run.settings for run in comparison.runs]
    vary = [name for name in ("control", "seed") if len({str(s.get(name)) for s in settings}) > 1]
    return [
        f"{run.letter} = {run.model}"
        + "".join(f" · {name} {run.settings.get(name, 'none')}" for name in vary)
        + f" · protocol {run.protocol['name']} · {run.run}"
        for run in comparison.runs
    ]


def _contests(comparison: Comparison) -> Table:
    header = ["task", "shared", "left out", *(run.letter for run in comparison.runs)]
    tasks, groups = (map(_contest, one.items()) for one in (comparison.tasks, comparison.groups))
    return table(header, tasks, groups, broken=[header[0], *header[3:]])


def _contest(named: tuple[str, Contest]) -> list[str]:
    name, one = named
    scores = [f"{percent(score)}{one.mark(at) or ' '}" for at, score in enumerate(one.scores)]
    if one.n_left_out:
        shown = (" to ".join(dict.fromkeys(map(percent, pair))) for pair in one.bounds)
        scores = [f"{text} ({both})" for text, both in zip(scores, shown, strict=True)]
    return [name, str(one.n), str(one.n_left_out), *scores]


def _differences(pair: Pair) -> Table:
    header = ["task", f"{pair.letter} - A", "95 %", "p", "Holm", "detectable", "won", "lost"]
    won, lost = (Counter(one.task for one in changed) for changed in (pair.won, pair.lost))
    return table(
        header,
        [(name, *_cells(one), str(won[name]), str(lost[name])) for name, one in pair.tasks.items()],
        [(name, *_cells(one), "", "") for name, one in pair.groups.items()],
        broken=header[:1],
    )


def _cells(one: Difference) -> tuple[str, ...]:
    return (*_difference(one, "-"), p_value(one.p_holm), percent(one.minimum_detectable))


def _clear_slices(pair: Pair) -> list[str]:
    """List the slices on which the runs clearly differ, and say of how many."""
    every = [
        (f"{task}, {column} {value}", one)
        for task, columns in pair.slices.items()
        for column, values in columns.items()
        for value, one in values.items()
    ]
    clear = [(name, one) for name, one in every if one.is_clear]
    lines = [
        f"  {name}, n {one.n}: {with_span(one.difference, one.interval, show=points)}"
        for name, one in clear
    ]
    said = f"slices on which {pair.letter} differs: {len(clear)} of {len(every)}; 1 of 20 by chance"
    return [said + (":" if lines else ""), *lines] if every else []


def _changed(pair: Pair) -> list[str]:
    lines = []
    for what, changed in (("fixed", pair.won), ("broke", pair.lost)):
        lines.append(f"{pair.letter} {what} {len(changed)}{':' if changed else ''}")
        lines += [
            f"  {one.task} {one.sample_id}  {one.before:.2f} -> {one.after:.2f}"
            for one in changed[:_LISTED]
        ]
        left = len(changed) - _LISTED
        lines += [f"  and {left} more; --json lists all"] if left > 0 else []
    return [*lines, ""]
