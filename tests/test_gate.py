"""A gate opens for what is measured and good enough, and for nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medix_eval.cli.app import main
from medix_eval.records import CompletionRecord, Kind, Outcome, VerdictRecord, Vote
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
    assert said[1] == "NOT MET  first: score ≥ 0.875: 0.800, short by 0.075"


def test_a_control_misses_one_rule_and_not_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judged = write_run(tmp_path / "control", samples(wrong=0))
    files = judged.parents[1] / "run.json", judged / "scores.json"
    manifest, scores = (json.loads(file.read_text()) for file in files)
    manifest["generation"]["control"] = scores["control"] = "no-image"
    for file, content in zip(files, (manifest, scores), strict=True):
        file.write_text(json.dumps(content))

    code = gate(tmp_path, FLOOR, judged)

    missed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("NOT")]
    assert code == 5
    assert missed == ["NOT MET  the questions are unchanged yes (control no-image)"]


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
        "first: score", "NO", "≥ 0.900", "0.800", "0.100", "",
    ]  # fmt: skip


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


def gate(folder: Path, policy: str, *arguments: Path | str) -> int:
    file = folder / "policy.yaml"
    file.write_text(f"name: ward\n{policy}\n", encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        main(["gate", str(file), *map(str, arguments)])
    return int(str(ended.value.code))
