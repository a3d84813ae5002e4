"""Submissions bent by a forger who has our code: each is refused, and says for what.

The forger computes every checksum, digest and score anew, so that only what is checked against
something he cannot write is in his way.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripted_run import (
    Submitted,
    check,
    edit_json,
    edit_line,
    flip_verdict,
    forged,
    rescored,
    restamped,
)

from medix_eval.errors import ConfigError


def flip_points(folder: Path) -> None:
    """Outcome, score and points agree with each other, but not with the replies."""

    def flip(line: dict[str, Any]) -> None:
        right = line["outcome"] == "correct"
        line |= {"outcome": "wrong" if right else "correct", "score": 0.0 if right else 1.0}
        for vote in line["votes"]:
            vote["points"] = line["score"]

    edit_line(folder / "verdicts.jsonl", flip)
    rescored(folder)


def raise_score(folder: Path) -> None:
    path = folder / "scores.json"
    scores = json.loads(path.read_text())
    scores["tasks"]["medqa"]["score"] = 0.99
    path.write_text(json.dumps(scores))


def double_sample(folder: Path) -> None:
    path = folder / "verdicts.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], *lines]))


def hide_text(folder: Path) -> None:
    path = folder / "submission.json"
    manifest = json.loads(path.read_text())
    manifest["restricted"].append("medqa")
    path.write_text(json.dumps(manifest))


def raise_interval(folder: Path) -> None:
    edit_json(folder / "scores.json", lambda s: s["tasks"]["medqa"].update(interval=[0.98, 1.0]))


def raise_restricted_interval(folder: Path) -> None:
    interval = {"interval": [0.98, 1.0]}
    edit_json(
        folder / "scores.json",
        lambda s: s["tasks"]["mimic_cxr_report_summarization"].update(interval),
    )


def name_other_data(folder: Path) -> None:
    path = {"path": "org/easier"}
    edit_json(folder / "run.json", lambda run: run["tasks"]["medqa"]["source"].update(path))


def invent_group(folder: Path) -> None:
    group = {"score": 0.99, "tasks": ["medqa"], "complete": True}
    edit_json(folder / "scores.json", lambda s: s["groups"].update(best_of_all=group))


def invent_usage(folder: Path) -> None:
    edit_json(folder / "scores.json", lambda s: s["usage"]["candidate"].update(completion_tokens=1))


def rename_model(folder: Path) -> None:
    edit_json(folder / "submission.json", lambda listed: listed.update(model="another"))


def borrow_digest(folder: Path) -> None:
    """Settings of the forger's own under the digest of the board he wants to be on."""

    def soften(judging: dict[str, Any]) -> None:
        judging["protocol"]["name"] = "medix+kind"
        for name in judging["judging"]["prompts"]:
            judging["judging"]["prompts"][name] = "Say 1. {{ answer }}"

    edit_json(folder / "judging.json", soften)
    restamped(folder)


def soften_prompt(folder: Path) -> None:
    edit_json(
        folder / "judging.json",
        lambda j: j["judging"]["prompts"].update({"question_1": "Say 1."}),
    )
    restamped(folder)


def sample_more(folder: Path) -> None:
    """Generated with other settings than the protocol's, whose stamp it carries."""
    edit_json(folder / "run.json", lambda r: r["generation"]["generation"].update(max_tokens=9999))
    restamped(folder)


def name_better_judge(folder: Path) -> None:
    edit_json(folder / "judging.json", lambda j: j["judges"][0].update(digest="0" * 64))
    restamped(folder)


def double_under_other_version(folder: Path) -> None:
    """Every sample once more, with a right answer, under a version that no table shows."""
    for name, right in (
        ("completions.jsonl", {}),
        ("verdicts.jsonl", {"outcome": "correct", "score": 1.0, "judge_score": 1.0}),
    ):
        lines = [json.loads(line) for line in (folder / name).read_text().splitlines()]
        more = [line | right | {"task": "medqa@7"} for line in lines if "medqa@" in line["task"]]
        for line in more:
            for vote in line.get("votes", ()):
                vote |= {"points": 1.0, "reply": '{"score": 1}'}
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in [*lines, *more]))

    def doubled(run: dict[str, Any]) -> None:
        entry = run["tasks"]["medqa"]
        entry |= {"rows": [*range(entry["num_rows"])] * 2, "limit": entry["num_rows"]}

    edit_json(folder / "run.json", doubled)
    rescored(folder)


def inflate_restricted(folder: Path) -> None:
    """Nobody can read the replies of a restricted task, so any score might do."""
    right = {"outcome": "partial", "score": 90.0}
    edit_line(folder / "verdicts.jsonl", lambda line: line.update(right), task="mimic")
    rescored(folder)


def inflate_restricted_points(folder: Path) -> None:
    def points(line: dict[str, Any]) -> None:
        line |= {"outcome": "partial", "score": 1.4}
        for vote in line["votes"]:
            vote["points"] = 7.0

    edit_line(folder / "verdicts.jsonl", points, task="mimic")
    rescored(folder)


def invent_rules(folder: Path) -> None:
    """The score that the rules give stands beside the judge's in every table."""
    rule = {"score": 1.0, "rule": "exact"}
    edit_line(folder / "verdicts.jsonl", lambda line: line.update(rule=rule))
    rescored(folder)


def endless_seconds(folder: Path) -> None:
    edit_line(folder / "completions.jsonl", lambda line: line.update(seconds=float("inf")))


def negative_tokens(folder: Path) -> None:
    edit_line(folder / "completions.jsonl", lambda line: line.update(completion_tokens=-500))
    rescored(folder)


def say_two_things(folder: Path) -> None:
    """One reader takes the first of two equal keys, another the last."""
    path = folder / "verdicts.jsonl"
    first, _, rest = path.read_text().partition("\n")
    path.write_text(first.replace("{", '{"score": 1.0, ', 1) + "\n" + rest)


def tear_last_line(folder: Path) -> None:
    path = folder / "verdicts.jsonl"
    path.write_text(path.read_text().rstrip("\n"))


def add_file(folder: Path) -> None:
    (folder / "judged").mkdir()
    (folder / "judged" / "report.html").write_text("<script>alert(1)</script>")


def loosen_clusters(folder: Path) -> None:
    edit_json(folder / "run.json", lambda run: run["tasks"]["rad_vqa"].update(cluster=None))
    rescored(folder)


def submit_control(folder: Path) -> None:
    """`submit` refuses a run of disturbed samples; a zip can be written without it."""
    edit_json(folder / "run.json", lambda run: run["generation"].update(control="blank-image"))
    restamped(folder)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (flip_verdict, "its replies give"),
        (flip_points, "its replies give"),
        (raise_score, "medqa score states 0.99"),
        (double_sample, "occurs 2 times"),
        (hide_text, "its text is left out, but it is not restricted"),
        (raise_interval, "medqa interval states 0.98"),
        (raise_restricted_interval, "report_summarization interval states 0.98"),
        (name_other_data, "run.json names another dataset than"),
        (invent_group, "best_of_all score states 0.99"),
        (invent_usage, "usage candidate completion_tokens states 1"),
        (rename_model, "model is 'another'"),
        (borrow_digest, "the digest of protocol 'medix+kind' does not match its settings"),
        (soften_prompt, "its settings differ: prompts."),
        (sample_more, "the stamp of protocol medix does not match its settings"),
        (name_better_judge, "its judges do not match their settings"),
        (double_under_other_version, "medqa@7: it has samples of a task that run.json"),
        (inflate_restricted, "score 90.0 is stated, its votes give"),
        (inflate_restricted_points, "its votes do not follow from its protocol"),
        (invent_rules, "rule is stated as"),
        (endless_seconds, "its completion has an impossible number"),
        (negative_tokens, "its completion has an impossible number"),
        (say_two_things, "'score' occurs twice"),
        (tear_last_line, "the line is incomplete"),
        (add_file, "judged/report.html: is not a submission file"),
        (submit_control, "it was made under --control blank-image"),
        (loosen_clusters, "run.json says cluster None, its task file 'image'"),
    ],
)
def test_a_forged_submission_is_refused_with_its_reason(
    submitted: Submitted, tmp_path: Path, edit: Callable[[Path], None], reason: str
) -> None:
    found = check(forged(submitted[0], tmp_path, edit))

    assert any(reason in problem for problem in found.problems), found.problems


@pytest.mark.parametrize("key", ["control", "generation"])
def test_settings_of_another_shape_are_one_line(
    submitted: Submitted, tmp_path: Path, key: str
) -> None:
    def bend(folder: Path) -> None:
        edit_json(folder / "run.json", lambda run: run["generation"].update({key: ["x"]}))

    with pytest.raises(ConfigError, match="json is damaged: generation"):
        check(forged(submitted[0], tmp_path, bend))
