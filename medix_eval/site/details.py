"""What a page says in words and figures: facts, settings, slices, history; all of it plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medix_eval.report.format import NOTHING, percent, short, span
from medix_eval.results.scores import TaskScore, losses
from medix_eval.site.boards import Board, Entry, Rules, Standing, find_scorecard
from medix_eval.site.columns import coverage_text, group_label, size_cell
from medix_eval.site.measured import Measured

_MOST_SLICES = 40
_DATA_CLASSES = {
    "public": "public",
    "gated": "gated (terms to accept)",
    "dua": "under a data use agreement",
}


def heading(board: Board) -> str:
    """Return the title of a board."""
    return {
        Standing.REAL: "Which model answers medical questions best?",
        Standing.IMPORTED: "Results that others submitted",
        Standing.SYNTHETIC: "A board of synthetic data",
        Standing.DEMO: "The phantom benchmark",
    }[board.standing]


def lede(board: Board) -> str:
    """Say what the figures of a board have in common."""
    if board.standing is Standing.IMPORTED:
        return (
            "Every score is recomputed from the submitted samples. Which judge gave the "
            "verdicts, and with which settings, could not be checked."
        )
    return (
        "Every figure on this page was made by one protocol, one judge and one state of the data."
    )


def rules_text(rules: Rules, standing: Standing) -> str:
    """Say when a rank is withheld."""
    if standing is Standing.IMPORTED:
        return "an imported result has no rank: its judge and settings are stated by the submitter"
    text = (
        "the model has not completed all benchmarks, samples failed, more than "
        f"{100 * rules.max_unscored:g} % of the samples have no score, or the server rejected "
        f"more than {100 * rules.max_rejected:g} % of a benchmark"
    )
    wanted = rules.scorecard.model_dump().items()
    needed = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in wanted)
    if rules.needs_scorecard:
        text += f", or the judge’s scorecard does not show {needed} or better"
    return text


def scorecard_text(board: Board) -> str:
    """Say what is known about the judge."""
    if not board.judges:
        return "not needed: rules decide, or leave a sample unjudged"
    card = find_scorecard(board)
    if card is None:
        return "none: the reliability of this judge was not measured"
    overall = card.overall
    said = [f"labelled answers: {overall.n_decided:,}"]
    if overall.accuracy.value is not None:
        said.append(f"accuracy {overall.accuracy.value:.3f}")
    if overall.false_accept.value is not None:
        said.append(f"wrong answers accepted {percent(overall.false_accept.value)} %")
    return ", ".join(said)


def score_texts(entry: Entry, name: str) -> dict[str, Any]:
    """Write a benchmark or an average of an entry: its score and interval, and who lost samples."""
    score = entry.part(name)
    texts: dict[str, Any] = {
        "score": NOTHING,
        "span": score.interval if score else None,
        "span_text": span(score.interval if score else None, NOTHING),
        "scored": "",
        "rules": "",
        "others": "" if score is None or getattr(score, "complete", True) else "incomplete",
    }
    if score and score.score is not None:
        texts["score"] = percent(score.score) + entry.run.scores.mark_of(name)
    if isinstance(score, TaskScore):
        rules = f"{percent(score.rules_score, NOTHING)} of {score.rules_n:,}"
        texts["rules"] = rules if score.rules_n else ""
        texts |= {"scored": f"{score.n_scored:,} of {score.n:,}", "others": losses(score)}
    return texts


def model_facts(entry: Entry, *, num_tasks: int) -> list[tuple[str, str]]:
    """Return what is known about a model, as text."""
    facts = entry.facts
    words = {True: "open", False: "closed", None: "not known"}
    training = facts.training_samples
    tokens = entry.tokens_per_sample
    return [
        ("Full name", short(entry.name, 400)),
        ("Size", size_cell(facts.parameters_b).text),
        ("Base model", facts.base or NOTHING),
        ("Training samples", NOTHING if training is None else f"{training:,}"),
        (
            "Input",
            {"image+text": "images and text", "text": "text"}.get(facts.inputs or "", NOTHING),
        ),
        ("Weights", words[facts.open_weights]),
        ("Training data", words[facts.open_data]),
        ("Licence", facts.licence or NOTHING),
        ("Source of these facts", facts.source or NOTHING),
        ("Complete benchmarks", coverage_text(entry, num_tasks)),
        ("Tokens per answer", NOTHING if tokens is None else f"{tokens:.0f}"),
        ("Run started", entry.date),
    ]


def settings_of(entry: Entry, board: Board) -> list[tuple[str, str]]:
    """Return what made the figures of an entry."""
    scores, manifest = entry.run.scores, entry.run.manifest
    generation, protocol = manifest.generation, entry.run.protocol
    model = generation.get("model", {})
    engine = model.get("engine", {}) if isinstance(model, dict) else {}
    lines = [
        ("Protocol", f"{protocol['name']}, digest {protocol['digest'][:16]}"),
        ("Judge", board.judge),
        ("Completions", f"digest {scores.generation_digest[:16]}"),
        ("Judging", f"digest {scores.judging_digest[:16]}"),
        ("Sampling", ", ".join(f"{k} {v}" for k, v in generation.get("generation", {}).items())),
        ("Engine", " ".join(str(value) for value in engine.values()) or NOTHING),
        ("Versions", ", ".join(f"{name} {found}" for name, found in manifest.versions.items())),
    ]
    repeated = [one for one in board.repetitions if one.identity == entry.identity]
    if repeated:
        told = [
            f"{percent(one.mean_score, 'none')} with seed {one.seed}" for one in (entry, *repeated)
        ]
        lines.append(("Mean of its benchmarks", f"{told[0]}, shown here; {', '.join(told[1:])}"))
    return [(key, short(value, 400)) for key, value in lines]


def task_facts(
    line: Mapping[str, Any], entry: Entry | None, *, task: str, measured: Measured
) -> list[tuple[str, str]]:
    """Return what a benchmark is."""
    groups = [group_label(name) for name, tasks in measured.board.groups.items() if task in tasks]
    facts = [
        ("Asks for", line["kind"]),
        ("Input", line["modality"]),
        ("Samples", line["num_rows"]),
        ("Part of", ", ".join(groups) or "no average"),
        ("Data", _DATA_CLASSES.get(line["data_class"], NOTHING)),
        ("Licence", line["licence"]),
    ]
    if entry is not None:
        source = entry.run.entry(task).source
        facts += [
            ("Dataset", source.get("path") or "generated when it is run"),
            ("Revision", source.get("revision") or "not pinned"),
            ("Task version", entry.run.entry(task).version),
        ]
    return facts


def slices_side_by_side(scores: Sequence[TaskScore]) -> list[dict[str, Any]]:
    """Lay the slices of several models side by side, the largest slices of a column first."""
    names = {
        (column, value)
        for score in scores
        for column in score.slices
        for value in score.slices[column]
    }
    lines: list[dict[str, Any]] = []
    for column, value in names:
        found = [score.slices.get(column, {}).get(value) for score in scores]
        known = [one for one in found if one is not None]
        lines.append(
            {
                "column": column,
                "value": value,
                "n": max(one.n for one in known),
                "is_small": all(one.is_small for one in known),
                "scores": [one.score if one else None for one in found],
            }
        )
    lines.sort(key=lambda line: (line["column"], -line["n"], line["value"]))
    return lines[:_MOST_SLICES]


def records(
    entries: Sequence[Entry], earlier: Sequence[Entry], *, task: str
) -> list[dict[str, str]]:
    """Return each time a score was the highest so far."""
    steps: list[dict[str, str]] = []
    best = -1.0
    every = [entry for entry in (*entries, *earlier) if task in entry.tasks]
    for entry in sorted(every, key=lambda entry: entry.run.manifest.started):
        score = entry.score(task).score
        if score is not None and score > best:
            best = score
            steps.append({"date": entry.date, "name": entry.name, "score": percent(score)})
    return steps
