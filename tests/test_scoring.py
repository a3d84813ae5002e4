"""What a run folder's lines come to: scores, slices, losses, agreement, corrections."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from medix_eval.cli.flags import print_scores
from medix_eval.errors import ConfigError
from medix_eval.records import CompletionRecord, Kind, Outcome, RuleVerdict, VerdictRecord, Vote
from medix_eval.report.tables import as_csv, as_markdown
from medix_eval.results.labels import read_labels
from medix_eval.results.scores import Scores
from medix_eval.results.scoring import score_run
from medix_eval.results.statistics import clustered, task_interval
from medix_eval.results.store import JudgingManifest, RunManifest, TaskEntry

Sample = dict[str, Any]


def entry(samples: Sequence[Sample], **changes: Any) -> TaskEntry:
    fixed: dict[str, Any] = {
        "version": "1", "digest": "d", "source": {}, "synthetic": False, "data_class": "public",
        "modality": "image", "kind": "open", "limit": None, "seed": 0, "rows": None,
        "num_rows": len(samples), "cluster": "image", "slices": ["organ"],
    }  # fmt: skip
    return TaskEntry(**fixed | changes)


def scored(folder: Path, *, labels: Path | None = None, **tasks: Sequence[Sample]) -> Scores:
    """Write a run of these samples and score it."""
    completions, verdicts = [], []
    for task, samples in tasks.items():
        for row, one in enumerate(samples):
            name = f"{task}{row}"
            score = one.get("score", 1.0)
            outcome = Outcome.WRONG if score == 0 else Outcome.CORRECT
            completions.append(
                CompletionRecord(
                    task=f"{task}@1",
                    sample_id=name,
                    row=row,
                    kind=Kind.OPEN,
                    prompt="?",
                    reference=one.get("reference", "left lung"),
                    columns=one.get("columns", {}),
                    completion=one.get("completion", "..."),
                    finish_reason=one.get("finish_reason", "stop"),
                    completion_tokens=one.get("tokens"),
                ).model_dump_json(exclude_defaults=True)
            )
            verdicts.append(
                VerdictRecord(
                    task=f"{task}@1",
                    sample_id=name,
                    outcome=one.get("outcome", outcome),
                    score=score,
                    answer=one.get("answer"),
                    votes=tuple(
                        Vote(judge="j", prompt=prompt, key="k", points=points)
                        for prompt, points in one.get("votes", {}).items()
                    ),
                    judge_score=score if "votes" in one else None,
                    rule=RuleVerdict(score=one["rule"], rule="r") if "rule" in one else None,
                ).model_dump_json(exclude_defaults=True)
            )
    folder.mkdir(exist_ok=True)
    (folder / "completions.jsonl").write_text("\n".join(completions) + "\n")
    (folder / "verdicts.jsonl").write_text("\n".join(verdicts) + "\n")
    run = RunManifest(
        model="m", generation_digest="g" * 64, generation={}, limits={}, versions={}, hardware={},
        started="", tasks={name: entry(samples) for name, samples in tasks.items()},
    )  # fmt: skip
    judging = JudgingManifest(
        protocol={"name": "p", "digest": "p" * 64}, judges=[], judging_digest="j" * 64,
        judging={}, tasks=list(tasks),
    )  # fmt: skip
    return score_run(
        folder,
        folder,
        manifest=run,
        judging=judging,
        groups={"all": tuple(tasks)},
        labels=read_labels(labels) if labels else None,
    )


def test_an_interval_keeps_the_questions_of_one_image_together(tmp_path: Path) -> None:
    values = [float(image % 3 > 0) for image in range(60) for _ in range(4)]
    images = [str(image) for image in range(60) for _ in range(4)]
    samples: list[Sample] = [
        {"score": score, "columns": {"image": image}}
        for score, image in zip(values, images, strict=True)
    ]

    task = scored(tmp_path, vqa=samples).tasks["vqa"]

    expected = task_interval(clustered(values, images))
    assert expected is not None
    assert task.interval == (expected.low, expected.high)
    assert task.interval_method == "Wilson, clustered"
    assert task.n_clusters == 60
    assert task.stderr == clustered(values, images).stderr


def test_a_group_has_an_interval_drawn_and_in_closed_form(tmp_path: Path) -> None:
    half = [{"score": float(at % 2)} for at in range(200)]

    group = scored(tmp_path, one=half, two=half).groups["all"]

    assert group.stderr == pytest.approx(0.5 / 199**0.5 / 2**0.5)
    assert group.interval == pytest.approx((0.45, 0.55), abs=0.005)
    assert group.closed_form == pytest.approx(group.interval, abs=0.005)


def test_the_worst_slice_is_named_if_it_is_large_enough(tmp_path: Path) -> None:
    lungs: list[Sample] = [{"score": 1.0, "columns": {"organ": "lung"}}] * 40
    livers: list[Sample] = [
        {"score": float(at % 2), "columns": {"organ": "liver"}} for at in range(40)
    ]
    eyes: list[Sample] = [{"score": 0.0, "columns": {"organ": "eye"}}] * 29

    scores = scored(tmp_path, vqa=[*lungs, *livers, *eyes])

    task = scores.tasks["vqa"]
    assert {name: one.score for name, one in task.slices["organ"].items()} == {
        "eye": 0.0, "liver": 0.5, "lung": 1.0,
    }  # fmt: skip
    assert task.worst_slice is not None
    assert task.worst_slice[:2] == ("organ", "liver")
    assert "| organ | *eye* (few) | 0.0 |" in as_markdown(scores)


def test_yes_or_no_questions_show_what_always_yes_would_score(tmp_path: Path) -> None:
    yes: list[Sample] = [{"reference": "yes", "answer": "Yes, there is", "score": 1.0}] * 6
    no: list[Sample] = [{"reference": "No.", "answer": "yes", "score": 0.0}] * 3
    free: list[Sample] = [{"reference": "left lung", "answer": "No idea", "score": 0.0}]

    found = scored(tmp_path, vqa=[*yes, *no, *free]).tasks["vqa"].yes_no

    assert found is not None
    assert (found.n, found.majority_answer) == (9, "yes")
    assert found.majority == found.reference_yes == found.score == pytest.approx(2 / 3)
    assert found.answered_yes == 1.0


def test_the_ledger_counts_what_was_lost_and_what_a_right_answer_costs(tmp_path: Path) -> None:
    samples: list[Sample] = [
        {"tokens": 10, "score": 1.0},
        {"tokens": 100, "score": 0.0, "outcome": Outcome.TRUNCATED, "finish_reason": "length"},
        {"tokens": 60, "score": 1.0, "finish_reason": "length"},
        {"tokens": 10, "score": 0.0, "outcome": Outcome.REFUSED},
        {"score": None, "outcome": Outcome.REQUEST_FAILED},
    ]

    scores = scored(tmp_path, vqa=samples)

    ledger = scores.tasks["vqa"].ledger
    assert ledger is not None
    assert (ledger.cut_off, ledger.refused, ledger.failed) == (0.4, 0.2, 0.2)
    assert (ledger.completion_tokens, ledger.tokens_per_sample) == (180, 45.0)
    assert ledger.tokens_per_correct == 90.0
    assert "WARNING vqa: 40.0 % of the completions hit the token limit." in as_markdown(scores)
    warning = "WARNING vqa: 20.0 % of the samples failed."
    assert warning in as_markdown(scores)
    lost = "no score: server failed 1, bounds 40.0 to 60.0"
    wrong = "counted wrong: model cut off 1, model refused 1"
    assert f"| {lost} · {wrong} |" in as_markdown(scores)


@pytest.mark.parametrize(
    ("outcomes", "told"),
    [
        (["correct"], ""),
        (["correct", "unjudged"], "no score: rules undecided 1, bounds 50.0 to 100.0"),
        (["correct", "empty"], "counted wrong: model empty 1"),
        (
            ["rejected", "skipped", "skipped"],
            "no score: not asked 2, bounds 0.0 to 66.7 · counted wrong: rejected by the server 1",
        ),
    ],
)
def test_a_lost_sample_is_either_without_a_score_or_wrong(
    outcomes: list[str], told: str, tmp_path: Path
) -> None:
    points = {"correct": 1.0, "empty": 0.0, "rejected": 0.0}
    samples = [{"outcome": Outcome(name), "score": points.get(name)} for name in outcomes]

    lines = as_markdown(scored(tmp_path, vqa=samples)).splitlines()

    (row,) = [line for line in lines if line.startswith("| vqa@1 ")]
    assert row.split("|")[-2].strip() == told


def test_every_dagger_in_a_table_is_explained(tmp_path: Path) -> None:
    scores = scored(tmp_path, vqa=[{}, {}])
    part = scores.model_copy(
        update={
            "tasks": {"vqa": scores.tasks["vqa"].model_copy(update={"limit": 2})},
            "groups": {"all": scores.groups["all"].model_copy(update={"complete": False})},
        }
    )

    assert "†" not in as_markdown(scores)
    assert "| all | 100.0† |" in as_markdown(part)
    assert "† some samples have no score, only some were asked, or" in as_markdown(part)


def test_answers_without_a_token_count_have_no_cost(tmp_path: Path) -> None:
    ledger = scored(tmp_path, vqa=[{}]).tasks["vqa"].ledger

    assert ledger is not None
    assert ledger.completion_tokens is ledger.tokens_per_sample is None


def test_votes_are_compared_with_each_other_and_the_judge_with_the_rules(tmp_path: Path) -> None:
    agreed: list[Sample] = [{"votes": {"a": 1.0, "b": 1.0}, "rule": 1.0, "score": 1.0}] * 6
    split: list[Sample] = [{"votes": {"a": 1.0, "b": 0.0, "c": 0.0}, "rule": 1.0, "score": 0.0}] * 2
    wrong: list[Sample] = [{"votes": {"a": 0.0, "b": 0.0}, "score": 0.0}] * 2

    scores = scored(tmp_path, vqa=[*agreed, *split, *wrong])

    task = scores.tasks["vqa"]
    assert task.agreement is not None
    assert task.agreement_with_rules is not None
    assert (task.agreement.raters, task.agreement.agree) == (("a", "b"), 0.8)
    assert (task.agreement_with_rules.n, task.agreement_with_rules.agree) == (8, 0.75)
    assert re.search(r"\| vqa \| votes \| 10 \| 80.0 \| 0.55 ", as_markdown(scores))


def labelled(path: Path, labels: dict[str, float]) -> Path:
    path.write_text("sample_id,label\n" + "".join(f"{n},{v}\n" for n, v in labels.items()))
    return path


def test_labels_take_the_judges_errors_out(tmp_path: Path) -> None:
    lenient = [{"score": 1.0}] * 200
    labels = labelled(tmp_path / "l.csv", {f"vqa{at}": float(at % 4 > 0) for at in range(80)})

    scores = scored(tmp_path / "run", labels=labels, vqa=lenient)

    found = scores.tasks["vqa"].corrected
    assert found is not None
    assert (found.n_labels, found.judge_accuracy) == (80, 0.75)
    assert found.score == pytest.approx(0.75)
    assert found.interval[0] < 0.7
    assert found.interval[1] < 0.9
    assert scores.groups["all"].corrected == pytest.approx(0.75)
    assert "| 75.0 (" in as_markdown(scores)


def test_a_cut_answer_that_people_call_right_moves_the_corrected_score(tmp_path: Path) -> None:
    cut: Sample = {"outcome": Outcome.TRUNCATED, "score": 0.0, "completion": "The answer is A"}
    blank: Sample = {"outcome": Outcome.EMPTY, "score": 0.0, "completion": " "}
    samples: list[Sample] = [{"score": 1.0}] * 50 + [cut] * 50 + [blank] * 100
    right = {f"vqa{at}": 1.0 for at in range(30)}
    some_cut = {f"vqa{at}": float(at % 2) for at in range(50, 80)}

    old = scored(tmp_path / "a", labels=labelled(tmp_path / "a.csv", right), vqa=samples)
    new = scored(tmp_path / "b", labels=labelled(tmp_path / "b.csv", right | some_cut), vqa=samples)

    corrected = [one.tasks["vqa"].corrected for one in (old, new)]
    assert corrected[0] is not None
    assert corrected[1] is not None
    # A sheet of 0.2 drew no such answer, so its labels say nothing of them.
    assert corrected[0].score == pytest.approx(0.25)
    # Half of the cut ones are right; what the model left blank is wrong without a label.
    assert corrected[1].score == pytest.approx((50 + 25) / 200, abs=0.02)


def test_a_task_without_labels_is_uncalibrated_and_so_is_its_group(tmp_path: Path) -> None:
    labels = labelled(tmp_path / "l.csv", {f"one{at}": 1.0 for at in range(40)})

    scores = scored(tmp_path / "run", labels=labels, one=[{}] * 50, two=[{}] * 50)

    assert scores.tasks["one"].corrected is not None
    assert scores.tasks["two"].corrected is None
    assert scores.groups["all"].corrected is None
    assert "uncalibrated" in as_markdown(scores)


def test_labels_of_another_run_are_refused(tmp_path: Path) -> None:
    labels = labelled(tmp_path / "l.csv", {"elsewhere": 1.0})

    with pytest.raises(ConfigError, match=r"l\.csv labels 'elsewhere', which .* does not have"):
        scored(tmp_path / "run", labels=labels, vqa=[{}])


def test_the_csv_has_the_intervals(tmp_path: Path) -> None:
    text = as_csv(scored(tmp_path, vqa=[{"score": float(at % 2)} for at in range(50)]))

    header, task, group = text.splitlines()
    found = dict(zip(header.split(","), task.split(","), strict=True))
    assert float(found["interval_low"]) < 0.5 < float(found["interval_high"])
    assert group.startswith("all,")


def test_the_terminal_shows_which_data_stands_in_for_a_benchmark(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A terminal's markup is in square brackets, too, and must not swallow the name."""
    renamed: dict[str, Any] = {"medqa[fallback=qiaojin]": [{}]}
    print_scores(scored(tmp_path, **renamed), as_json=False)

    assert "medqa[fallback=qiaojin]@1" in capsys.readouterr().out
