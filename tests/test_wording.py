"""What people read: one thing is not "1 things", and a missing number is said in words."""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from rich.console import Console
from scripted_servers import Run, Serve, candidate, judge

from medix_eval.evaluation.judge_changes import JudgeChanges, RunChange, changes_table
from medix_eval.records import CompletionRecord, Kind, Outcome, VerdictRecord, Vote
from medix_eval.report.exports import methods
from medix_eval.report.format import counted
from medix_eval.report.tables import notes, yes_no_text
from medix_eval.results.scores import Cost, MetricValue, YesNo
from medix_eval.results.store import read_run
from medix_eval.testing import write_run

ROOT = Path(__file__).resolve().parent.parent
HUB = ROOT / "tests" / "fixtures" / "hub"
Tracked = Callable[..., list[str]]
THINGS = (
    r"answer|benchmark|byte|call|character|column|completion|connection|error|fault|file|group|GPU"
    r"|image|judge|label|mark|model|option|problem|question|reading|request|row|rule|run|sample"
    r"|slice|step|task|token|turn|update|vote|warning"
)
COUNT_OF_THINGS = re.compile(rf" (?:[a-z]+ ){{0,2}}(?:(?:{THINGS})s|replies)\b")
OF_A_NUMBER = re.compile(r"len\(|num|count|total|\bn\b|n_|sum\(|more\b|max|requests|rows|size\b")
NEVER_ONE = {
    "{len(options)} options": "a choice has two at least",
    "{len(faults)} tasks cannot": "a single fault stays as it is",
    "{count} rows": "an id that is used once is no fault",
    "{len(choices)} judges can be split": "an even number",
    "{max(lengths)} tokens, the model takes": "more than a model takes",
    "{num} votes": "one vote is written out",
    "{len(other)} runs, such as": "one run is named",
    "{len(dots)} models": "a picture shows two at least",
    "{len(points)} models": "a picture shows two at least",
    "{task.n} of its samples": "one of its samples is right, too",
    "{config.num_generations} completions": "a group of GRPO has two at least",
    "{config.max_completion_length} tokens": "an answer in one token has no thinking",
}
A_GAP = re.compile(r"(?:^|[\s(“])[-–](?:[\s%.,;:)]|$)")
"""A dash in place of a number."""


@pytest.mark.parametrize("num", [0, 1, 2, 1000])
def test_one_thing_is_no_plural(num: int) -> None:
    assert counted(num, "row") == f"{num:,} row" + "s" * (num != 1)
    assert counted(num, "reply", "replies").endswith("reply" if num == 1 else "replies")


def test_no_message_counts_things_without_the_helper(tracked_files: Tracked) -> None:
    found = [
        f"{name}:{line}: {text}"
        for name in tracked_files("medix_eval", "training/medix_train")
        if name.endswith(".py")
        for line, text in counts_in((ROOT / name).read_text())
        if not text.startswith(tuple(NEVER_ONE))
    ]

    assert found == []


def test_a_message_that_counts_by_itself_is_found() -> None:
    code = 'f"{len(faults)} faults"\nf"{one.num_new} more rows"\nf"{name} samples"\nf"rows: {num}"'

    assert [line for line, _ in counts_in(code)] == [1, 2]


def counts_in(code: str) -> Iterator[tuple[int, str]]:
    """Find numbers in formatted texts that a plural follows."""
    for node in ast.walk(ast.parse(code)):
        parts = node.values if isinstance(node, ast.JoinedStr) else []
        for number, text in pairwise(parts):
            if isinstance(number, ast.FormattedValue) and isinstance(text, ast.Constant):
                value, said = ast.unparse(number.value), str(text.value)
                if OF_A_NUMBER.search(value) and COUNT_OF_THINGS.match(said):
                    yield number.lineno, "{" + value + "}" + said


def one_of(folder: Path, *, outcome: Outcome, answer: str = "", reference: str = "yes") -> Path:
    """Write a run of one sample; return its judging folder."""
    scored = {Outcome.CORRECT: 1.0, Outcome.WRONG: 0.0}.get(outcome)
    completion = CompletionRecord(
        task="mine@1",
        sample_id="1",
        row=0,
        kind=Kind.CLOSED,
        prompt="Is it?",
        reference=reference,
        completion=answer,
        finish_reason="stop",
    )
    vote = Vote(judge="openai:j", prompt="question_1", key="k", points=scored)
    verdict = VerdictRecord(
        task="mine@1", sample_id="1", outcome=outcome, score=scored, answer=answer, votes=(vote,)
    )
    return write_run(folder, [(completion, verdict)], groups={"all": ("mine",)})


def test_a_run_of_one_sample_is_told_of_as_one(tmp_path: Path) -> None:
    judged = one_of(tmp_path, outcome=Outcome.WRONG, answer="no")
    failed = one_of(tmp_path / "failed", outcome=Outcome.JUDGE_FAILED)

    texts = [(judged / name).read_text() for name in ("report.md", "report.html")]
    told = methods([read_run(judged)]) + methods([read_run(failed)])

    assert all("mean of 1 task" in text and "1 tasks" not in text for text in texts)
    assert "Of 1 sample, all have a verdict." in told
    assert "Of 1 sample, these count as wrong without a verdict: none; " in told
    assert "these have no score: judge failed 1." in told


def test_one_row_of_a_mirror_is_one_row(run: Run, tmp_path: Path) -> None:
    name = "GBaker/MedQA-USMLE-4-options-hf"
    shutil.copytree(HUB / name, tmp_path / name)
    file = tmp_path / name / "test.json"
    file.write_text(file.read_text().splitlines()[0] + "\n")
    (tmp_path / name / "medix-mirror.json").write_text(
        '{"source": "s", "revision": null, "synthetic": true, "rows": {}, "files": {}}'
    )

    _, out, _ = run("data", "check", "--data-root", tmp_path, "--tasks", "medqa")

    assert "medqa: 1 row, 0 images, ok" in out


# What there is no number for


@pytest.mark.parametrize(
    ("score", "says", "scored", "answers"),
    [
        (0.5, 0.25, "score 50.0", "answers in 25.0 %"),
        (0.0, 0.0, "score 0.0", "answers in 0.0 %"),
        (0.0, None, "score 0.0", "no answer begins with yes or no"),
        (None, 1.0, "none was scored", "answers in 100.0 %"),
        (None, None, "none was scored", "no answer begins with yes or no"),
    ],
)
def test_shares_that_were_not_measured_are_said_in_words(
    score: float | None, says: float | None, scored: str, answers: str
) -> None:
    asked = YesNo(
        n=4,
        score=score,
        majority=0.75,
        majority_answer="yes",
        reference_yes=0.75,
        answered_yes=says,
        n_answered=0 if says is None else 4,
    )

    always = "always “yes” would score 75.0. References say yes in 75.0 %"
    assert yes_no_text(asked) == f"4, {scored}; {always}, {answers}."


def test_reports_say_in_words_that_no_answer_was_yes_or_no(tmp_path: Path) -> None:
    judged = one_of(tmp_path, outcome=Outcome.JUDGE_FAILED, answer="perhaps")

    markdown, page = ((judged / f"report.{end}").read_text() for end in ("md", "html"))

    said = "1, none was scored; always “yes” would score 100.0."
    assert said in markdown
    assert said in page
    sentences = [line for line in markdown.splitlines() if not line.startswith(("|", "-"))]
    paragraphs = re.findall(r"<p>(.*?)</p>", page)
    assert [text for text in (*sentences, *paragraphs) if A_GAP.search(text)] == []


def test_a_cost_without_a_correct_answer_and_a_metric_without_a_value(tmp_path: Path) -> None:
    scores = read_run(one_of(tmp_path, outcome=Outcome.WRONG)).scores
    cost = {"currency": "USD", "candidate": 0.5, "judge": 0.25, "per_correct": None}
    costly = scores.model_copy(update={"cost": Cost.model_validate(cost)})

    said = notes(costly)

    assert "Cost: 0.5 USD for the model, 0.25 for the judge; no fully correct answer." in said
    assert MetricValue(value=None, label="ECE").shown("ece") == "ECE not measured"
    assert MetricValue(value=0.0, label="ECE").shown("ece") == "ECE 0"


@pytest.mark.parametrize(("tau", "said"), [(None, "tau is not defined: "), (-1.0, "tau -1.00\n")])
def test_an_order_that_cannot_be_compared_is_said_in_words(tau: float | None, said: str) -> None:
    runs = [
        RunChange(model=name, run=name, judged_before=None, judged_after="x", tasks={})
        for name in "ab"
    ]
    changes = JudgeChanges(
        runs=runs,
        ranked_by=["vqa"],
        kendall_tau=tau,
        num_failures=1,
        lost="judge failed 1",
        warnings=[],
    )
    console = Console(width=200, no_color=True)

    with console.capture() as shown:
        console.print(changes_table(changes))

    assert said in shown.get()
    assert (
        "failed samples: 1; run the same command to retry; without a score: judge failed 1\n"
        in shown.get()
    )


def test_a_scorecard_without_a_verdict_names_what_was_not_measured(
    run: Run, serve: Serve, tmp_path: Path
) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text(
        "sample_id,label,question,reference,answer\n1,1,Which side?,left,left\n2,0,Which?,left,no\n"
    )

    _, table, _ = run(
        "judge-check", *judge(serve(lambda _: "hm")), "--labels", labels, "--out", tmp_path / "out"
    )

    told = " ".join(table.split())
    assert "accuracy not measured, balanced not measured, macro F1 not measured" in told
    assert "kappa not defined false accept not measured, false reject not measured;" in told
    (card,) = (tmp_path / "out").rglob("scorecard.svg")
    assert "kappa not defined" in card.read_text()


def test_a_plan_of_one_request_has_no_plural(serve: Serve, run: Run, tmp_path: Path) -> None:
    argv = [*candidate(serve(lambda _: "A")), "--protocol", "rules", "--tasks", "medmcqa"]

    _, out, _ = run(*argv, "--limit", "1", "--dry-run", "--data-root", HUB, "--out", tmp_path)

    assert re.search(r"\b1 [a-z]+s\b", out) is None
    assert "model openai:scripted: requests 1, images 0" in out
