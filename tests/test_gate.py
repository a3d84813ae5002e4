"""A gate opens for what is measured and good enough, and for nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from statsmodels.stats.proportion import proportion_confint

from medix_eval.cli.app import main
from medix_eval.records import CompletionRecord, Kind, Outcome, VerdictRecord, Vote
from medix_eval.results.store import RunManifest
from medix_eval.testing import write_run


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        pytest.param("floors: [{task: first, at_least: 0.8}]", 0, id="reached"),
        pytest.param("floors: [{task: first, at_least: 0.81}]", 5, id="not-reached"),
        pytest.param("floors: [{task: first, at_least: 0.5, by: interval}]", 0, id="surely"),
        pytest.param("floors: [{task: first, at_least: 0.7, by: interval}]", 5, id="not-surely"),
        pytest.param("floors: [{task: first, at_least: 0.8, by: bounds}]", 0, id="worst-case"),
        pytest.param("floors: [{task: other, at_least: 0.0}]", 5, id="task-not-run"),
        pytest.param("floors: [{group: none, at_least: 0.0}]", 5, id="group-not-run"),
        pytest.param("floors: [{group: all_of_it, at_least: 0.8}]", 0, id="group"),
        pytest.param(
            "floors: [{task: first, slice: {side: left}, at_least: 0.7}]", 5, id="weak-slice"
        ),
        pytest.param(
            "floors: [{task: first, slice: {side: right}, at_least: 0.9}]", 0, id="strong-slice"
        ),
        pytest.param(
            "floors: [{task: first, slice: {side: both}, at_least: 0}]", 5, id="no-such-slice"
        ),
        pytest.param("limits: {cut_off: 0.1}", 0, id="few-cut-off"),
        pytest.param("limits: {cut_off: 0.01}", 5, id="too-many-cut-off"),
        pytest.param("limits: {failed: 0}", 0, id="nothing-failed"),
        pytest.param("judge: {votes_kappa_at_least: 0.9}", 0, id="votes-agree"),
        pytest.param("judge: {rules_kappa_at_least: 0.0}", 5, id="rules-said-nothing"),
    ],
)
def test_a_rule_is_met_or_not(policy: str, code: int, run: Path, tmp_path: Path) -> None:
    assert gate(tmp_path, policy, run) == code


@pytest.mark.parametrize(("margin", "code"), [(0.5, 0), (0.01, 5)])
def test_a_run_may_not_fall_behind_its_baseline(
    margin: float, code: int, run: Path, tmp_path: Path
) -> None:
    before = write_run(tmp_path, samples(wrong=6), model="before")
    rule = f"baseline: {before}\nnon_inferiority: [{{task: first, margin: {margin}}}]"

    assert gate(tmp_path, rule, run) == code


@pytest.mark.parametrize(("margin", "code"), [(0.1, 0), (0.01, 5)])
def test_forty_equal_answers_show_no_smaller_margin_than_they_can(
    margin: float, code: int, run: Path, tmp_path: Path
) -> None:
    rule = f"non_inferiority: [{{task: first, margin: {margin}}}]"

    assert gate(tmp_path, rule, run, "--baseline", str(run)) == code


def test_a_limited_run_passes_only_where_the_policy_says_so(tmp_path: Path) -> None:
    limited = write_run(tmp_path, samples(wrong=0), limit=40, rows=list(range(40)), num_rows=90)

    assert gate(tmp_path, FLOOR, limited) == 5
    assert gate(tmp_path, f"{FLOOR}\nallow_limited: true", limited) == 0


def test_synthetic_data_passes_only_where_the_policy_says_so(tmp_path: Path) -> None:
    synthetic = write_run(tmp_path, samples(wrong=0), synthetic=True)

    assert gate(tmp_path, FLOOR, synthetic) == 5
    assert gate(tmp_path, f"{FLOOR}\nallow_synthetic: true", synthetic) == 0


def test_a_missed_rule_says_by_how_much(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gate(tmp_path, "floors: [{task: first, at_least: 0.875}]", run)
    said = capsys.readouterr().out.splitlines()

    assert said[0] == "scripted: rules met: 2 of 3"
    assert said[1] == "NOT MET  first: score, worst case ≥ 0.875: 0.800, short by 0.075"


def test_a_control_misses_one_rule_and_not_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judged = write_run(tmp_path / "control", samples(wrong=0))
    files = judged.parents[1] / "run.json", judged / "scores.json"
    manifest, scores = (json.loads(file.read_text()) for file in files)
    manifest["generation"]["control"] = scores["control"] = "no-image"
    sealed = RunManifest.model_validate(manifest).sealed()
    for file, content in zip(files, (sealed, scores), strict=True):
        file.write_text(json.dumps(content))

    code = gate(tmp_path, FLOOR, judged)

    missed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("NOT")]
    assert code == 5
    assert missed == ["NOT MET  the questions are unchanged: yes (control no-image)"]


def test_json_holds_every_check(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gate(tmp_path, "floors: [{task: first, at_least: 0.875}]", run, "--json")

    (listed,) = json.loads(capsys.readouterr().out)["runs"]
    assert [check["is_met"] for check in listed["checks"]] == [False, True, True]
    assert listed["checks"][0]["short_by"] == pytest.approx(0.075)


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ("floors: [{task: a, at_least: 60}]", "floors.0.at_least"),
        ("floors: [{task: a, group: b, at_least: 0.6}]", "either a task or a group"),
        ("flors: []", "unknown key 'flors'"),
        ("flors: []", "keys are name, floors, baseline, non_inferiority, limits, judge, allow_"),
        ("limits: {unjugded: 0.1}", "unknown key 'limits.unjugded'"),
        (
            "limits: {unjugded: 0.1}",
            "keys are failed, cut_off, truncated, unparsed, refused, empty",
        ),
        ("allow_limited: true", "the policy has no rules"),
        ("non_inferiority: [{task: first, margin: 0.1}]", "needs a baseline"),
    ],
)
def test_a_policy_that_means_nothing_is_refused(
    policy: str, said: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gate(tmp_path, policy, run) == 2
    assert said in capsys.readouterr().err


def test_the_page_for_the_committee(visit: Any, run: Path, tmp_path: Path) -> None:
    page = tmp_path / "gate.html"
    gate(tmp_path, "floors: [{task: first, at_least: 0.9}]", run, "--page", str(page))

    for dark in (False, True):
        visited = visit(page, dark=dark)
        assert visited.violations() == []
        assert visited.is_clean
    assert visited.page.locator("tbody tr").first.inner_text().split("\t") == [
        "first: score, worst case", "NO", "≥ 0.900", "0.800", "0.100", "",
    ]  # fmt: skip


LAZY = """
floors:
  - {group: all_of_it, at_least: 0.6}
  - {task: first, at_least: 0.6}
  - {task: first, slice: {side: left}, at_least: 0.55, by: interval}
non_inferiority: [{task: first, margin: 0.1}, {group: all_of_it, margin: 0.1}]
limits: {failed: 0.0, cut_off: 0.02}
"""


def test_a_model_that_answers_two_of_five_opens_no_gate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = ended(tmp_path, ["correct"] * 70 + ["wrong"] * 30, model="whole")
    lazy = ended(tmp_path, ["correct"] * 40 + ["unjudged"] * 60)

    code = gate(tmp_path, LAZY, lazy, "--baseline", str(whole))

    said = capsys.readouterr().out.splitlines()
    assert (code, said[0]) == (5, "scripted: rules met: 4 of 9")
    lost = "(samples without a score: rules undecided 60)"
    assert said[1].endswith(f"worst case ≥ 0.600: 0.400, short by 0.200 {lost}")
    assert gate(tmp_path, LAZY, whole, "--baseline", str(whole)) == 0


def test_a_policy_may_leave_out_what_has_no_score_if_it_says_so(tmp_path: Path) -> None:
    whole = ended(tmp_path, ["correct"] * 70 + ["wrong"] * 30, model="whole")
    lazy = ended(tmp_path, ["correct"] * 40 + ["unjudged"] * 60)
    stated = LAZY.replace("0.6}", "0.6, by: score}").replace("0.1}", "0.1, unscored: leave_out}")
    stated = stated.replace("by: interval", "by: interval, unscored: leave_out")

    assert gate(tmp_path, stated, lazy, "--baseline", str(whole)) == 0
    assert gate(tmp_path, f"{stated[:-2]}, unjudged: 0.59}}", lazy, "--baseline", str(whole)) == 5


LOST = [
    "unjudged", "judge_failed", "request_failed", "skipped", "truncated", "unparsed", "refused",
    "empty", "rejected",
]  # fmt: skip


@pytest.mark.parametrize("outcome", LOST)
def test_every_outcome_that_loses_a_sample_has_a_limit(outcome: str, tmp_path: Path) -> None:
    run = ended(tmp_path, ["correct"] * 95 + [outcome] * 5)

    assert gate(tmp_path, f"limits: {{{outcome}: 0.05}}", run) == 0
    assert gate(tmp_path, f"limits: {{{outcome}: 0.049}}", run) == 5
    others = ", ".join(f"{other}: 0" for other in LOST if other != outcome)
    assert gate(tmp_path, f"limits: {{{others}}}", run) == 0


@pytest.mark.parametrize("outcome", LOST[:4])
def test_limits_on_other_things_open_for_no_run_with_samples_without_a_score(
    outcome: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ended(tmp_path, ["correct"] * 95 + [outcome] * 5)
    whole = ended(tmp_path, ["correct"] * 95 + ["refused"] * 5, model="whole")

    assert gate(tmp_path, "limits: {cut_off: 0.5, refused: 0.5}", run) == 5
    assert "NOT MET  every sample has a score: yes (" in capsys.readouterr().out
    assert gate(tmp_path, "limits: {cut_off: 0.5, refused: 0.5}", whole) == 0
    assert "met      every sample has a score: yes" in capsys.readouterr().out
    assert gate(tmp_path, f"limits: {{{outcome}: 0.05}}", run) == 0
    floors = "floors: [{task: first, at_least: 0.9}]"
    assert gate(tmp_path, f"{floors}\nlimits: {{cut_off: 0.5}}", run) == 0


@pytest.mark.parametrize("outcome", LOST[:4])
def test_the_worst_case_is_worked_out_by_hand(
    outcome: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # 100 samples, 50 a side: 60 right, 20 wrong, 20 lost; on the left (even rows) 30, 10 and 10.
    run = ended(tmp_path, ["correct"] * 60 + ["wrong"] * 20 + [outcome] * 20)
    low, _ = proportion_confint(60, 100, method="wilson")
    low_left, _ = proportion_confint(30, 50, method="wilson")
    wanted = [0.6, low, 0.6, low_left]
    floors = [
        "{task: first, at_least: 1}",
        "{task: first, at_least: 1, by: interval}",
        "{task: first, slice: {side: left}, at_least: 1}",
        "{task: first, slice: {side: left}, at_least: 1, by: interval}",
    ]

    gate(tmp_path, f"floors: [{', '.join(floors)}]", run, "--json")

    (listed,) = json.loads(capsys.readouterr().out)["runs"]
    assert [one["measured"] for one in listed["checks"][:4]] == pytest.approx(wanted)


def test_a_group_in_the_worst_case_is_the_mean_of_its_tasks_worst_cases(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = ["correct"] * 10, ["correct"] * 10 + ["unjudged"] * 30
    run = ended(tmp_path, one, other)

    gate(tmp_path, "floors: [{group: all_of_it, at_least: 0.63}]", run)

    assert "score, worst case ≥ 0.630: 0.625" in capsys.readouterr().out  # (1 + 0.25) / 2


def test_samples_that_were_never_asked_may_be_of_any_slice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ended(tmp_path, ["correct"] * 40, num_rows=50)

    gate(tmp_path, "floors: [{task: first, slice: {side: left}, at_least: 0.7}]", run)

    assert "≥ 0.700: 0.667" in capsys.readouterr().out  # 20 of 20 + 10


@pytest.mark.parametrize(
    ("before", "after", "difference"),
    [
        pytest.param(["correct"] * 100, ["correct"] * 90 + ["unjudged"] * 10, -0.1, id="run"),
        pytest.param(["wrong"] * 90 + ["unjudged"] * 10, ["wrong"] * 100, -0.1, id="baseline"),
        pytest.param(["wrong"] * 90 + ["skipped"] * 10, ["wrong"] * 90 + ["unjudged"] * 10, -0.1,
                     id="both"),
        pytest.param(["correct"] * 90, ["correct"] * 90, -0.1, id="asked-by-neither"),
    ],
)  # fmt: skip
def test_a_run_is_compared_with_its_baseline_in_the_worst_case(
    before: list[str],
    after: list[str],
    difference: float,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    baseline = ended(tmp_path, before, model="before", num_rows=100)
    run = ended(tmp_path, after, num_rows=100)
    rules = "[{task: first, margin: 0.05}, {task: first, margin: 0.05, unscored: leave_out}]"

    gate(tmp_path, f"non_inferiority: {rules}", run, "--baseline", str(baseline), "--json")

    (listed,) = json.loads(capsys.readouterr().out)["runs"]
    worst, stated = listed["checks"][:2]
    reach = 1.98 * (0.1 * 0.9 / 99) ** 0.5
    assert worst["measured"] == pytest.approx(difference - reach, abs=0.01)
    assert (worst["is_met"], stated["is_met"]) == (False, True)


@pytest.mark.parametrize(
    "policy",
    [
        "floors: [{task: first, at_least: 0}]",
        "floors: [{task: first, at_least: 0, by: score}]",
        "floors: [{task: first, slice: {side: left}, at_least: 0}]",
        "floors: [{group: all_of_it, at_least: 0}]",
    ],
)
def test_a_run_without_a_single_score_reaches_no_floor(policy: str, tmp_path: Path) -> None:
    assert gate(tmp_path, policy, ended(tmp_path, ["unjudged"] * 40)) == 5


def test_a_baseline_that_was_perturbed_or_asked_less_opens_no_gate(tmp_path: Path) -> None:
    run = ended(tmp_path, ["correct"] * 40)
    control = ended(tmp_path / "control", ["correct"] * 40, model="control")
    file = control.parents[1] / "run.json"
    manifest = json.loads(file.read_text())
    manifest["generation"]["control"] = "no-image"
    file.write_text(json.dumps(RunManifest.model_validate(manifest).sealed()))
    part = ended(tmp_path, ["correct"] * 40, model="part", limit=40, rows=list(range(40)))
    rule = "non_inferiority: [{task: first, margin: 0.5}]"

    assert gate(tmp_path, rule, run, "--baseline", str(run)) == 0
    assert gate(tmp_path, rule, run, "--baseline", str(control)) == 5
    assert gate(tmp_path, rule, run, "--baseline", str(part)) == 5


def test_a_baseline_whose_rows_are_in_another_order_was_asked_the_same(tmp_path: Path) -> None:
    rows = [*range(20, 40), *range(20)]
    run = ended(tmp_path, ["correct"] * 40, limit=40, rows=rows)
    baseline = ended(tmp_path, ["correct"] * 40, model="b", limit=40, rows=sorted(rows))
    rule = "non_inferiority: [{task: first, margin: 0.5}]\nallow_limited: true"

    assert gate(tmp_path, rule, run, "--baseline", str(baseline)) == 0


FLOOR = "floors: [{task: first, at_least: 0.5}]"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty samples, 0.8 right; all that are wrong are on the left, and one was cut off."""
    groups = {"all_of_it": ("first",)}
    folder = tmp_path_factory.mktemp("run")
    return write_run(folder, samples(wrong=8), groups=groups, slices=["side"])


def samples(*, wrong: int) -> list[tuple[CompletionRecord, VerdictRecord]]:
    return [sample(row, right=row >= wrong) for row in range(40)]


def sample(row: int, *, right: bool) -> tuple[CompletionRecord, VerdictRecord]:
    points = float(right)
    return (
        CompletionRecord(
            task="first@1",
            sample_id=f"id-{row}",
            row=row,
            kind=Kind.MULTIPLE_CHOICE,
            prompt="Which?",
            reference="B",
            columns={"side": "left" if row < 20 else "right"},
            completion="B",
            finish_reason="length" if row == 0 else "stop",
        ),
        VerdictRecord(
            task="first@1",
            sample_id=f"id-{row}",
            outcome=Outcome.CORRECT if right else Outcome.WRONG,
            score=points,
            judge_score=points,
            answer="B",
            votes=tuple(
                Vote(judge="judge", prompt=f"p{at}", key="k", points=points) for at in (1, 2)
            ),
        ),
    )


def ended(folder: Path, *tasks: list[str], model: str = "scripted", **entry: Any) -> Path:
    """Write a run whose samples ended so, in the order of their rows: task first, then second."""
    names = ("first", "second")[: len(tasks)]
    listed = []
    for task, outcomes in zip(names, tasks, strict=True):
        for row, name in enumerate(outcomes):
            completion, verdict = sample(row, right=name == "correct")
            outcome = Outcome(name)
            told = {"task": f"{task}@1", "sample_id": f"{task}-{row}"}
            side = {"columns": {"side": "right" if row % 2 else "left"}, "finish_reason": "stop"}
            score = float(name == "correct") if outcome.is_scored else None
            changed = {"outcome": outcome, "score": score, "judge_score": None, "votes": ()}
            listed.append(
                (
                    completion.model_copy(update=told | side),
                    verdict.model_copy(update=told | changed),
                )
            )
    groups = {"all_of_it": names}
    return write_run(folder, listed, model=model, groups=groups, slices=["side"], **entry)


def gate(folder: Path, policy: str, *arguments: Path | str) -> int:
    file = folder / "policy.yaml"
    file.write_text(f"name: ward\n{policy}\n", encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        main(["gate", str(file), *map(str, arguments)])
    return int(str(ended.value.code))


def test_a_page_into_a_folder_that_is_not_there_is_told_as_that(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "no such folder" / "gate.html"
    judged = ended(tmp_path, ["correct"] * 40)

    code = gate(tmp_path, FLOOR, judged, "--page", str(page))

    assert code == 2
    assert f"error: {page} was not written: its folder is not there" in capsys.readouterr().err
