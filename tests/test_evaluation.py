"""Whole evaluations through the command line, against a scripted server on the real wire."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

from scripted_servers import Run, Serve, candidate, judge, records, strict

from medix_eval.records import Outcome
from medix_eval.testing import Reply, prompt_text


def test_a_question_costs_two_calls_and_a_report_three(evaluate: Run, serve: Serve) -> None:
    answering, judging = serve(lambda _: "no idea"), serve(strict)
    tasks = "medqa,rad_vqa,mimic_cxr_report_generation"

    code, out, _ = evaluate(*candidate(answering), *judge(judging), "--tasks", tasks, "--no-cache")

    scores = json.loads(out)
    n = {name: task["n"] for name, task in scores["tasks"].items()}
    questions, reports = n["medqa"] + n["rad_vqa"], n["mimic_cxr_report_generation"]
    assert code == 0
    assert len(answering.requests) == questions + reports
    assert len(judging.requests) == 2 * questions + 3 * reports
    assert scores["usage"]["judge"] | {"seconds": 0} == {
        "calls": 2 * questions + 3 * reports,
        "cached": 0,
        "seconds": 0,
        "completion_tokens": 2 * (2 * questions + 3 * reports),
        "thinking_tokens": 0,
    }


def test_votes_that_disagree_cost_a_third_call(evaluate: Run, serve: Serve, tmp_path: Path) -> None:
    def split(body: dict[str, Any]) -> str:
        """Lean to the order, which the first two votes differ in."""
        *_, last, _ = prompt_text(body).splitlines()
        return '{"score": 1}' if last.startswith("===") else '{"score": 0}'

    answering, judging = serve(lambda _: "no idea"), serve(split)

    argv = [*candidate(answering), *judge(judging), "--tasks", "rad_vqa", "--no-cache"]
    _, out, _ = evaluate(*argv)

    task = json.loads(out)["tasks"]["rad_vqa"]
    assert task["outcomes"]["wrong"] + task["outcomes"]["correct"] == task["n"]
    assert len(judging.requests) == 3 * task["n"]
    for verdict in records(tmp_path, "verdicts.jsonl"):
        first, second, third = (vote["points"] for vote in verdict["votes"])
        assert {first, second} == {0.0, 1.0}
        assert verdict["score"] == third


def test_severity_stands_beside_the_score_and_never_in_it(evaluate: Run, serve: Serve) -> None:
    def says(body: dict[str, Any]) -> str:
        if "missing - " in prompt_text(body):
            return '{"missing": [{"urgency": "urgent"}], "score": 2}'
        return '{"reason": "Denied.", "relation": "opposite", "score": 0}'

    answering, judging = serve(lambda _: "no idea"), serve(says)
    argv = [*candidate(answering), *judge(judging), "--no-cache"]
    argv += ["--tasks", "rad_vqa,mimic_cxr_report_generation"]

    runs = [
        json.loads(evaluate(*argv, *more)[1])
        for more in (
            [],
            ["--set", "harm={opposite: 0.25}"],
            ["--set", "harm={}"],
            ["--set", "harm.opposite=0.5"],  # the other weights stay
        )
    ]

    told = [[task["harm"] for task in run["tasks"].values()] for run in runs]
    assert told == [[0.8, 1.0], [0.25, 0.0], [None, None], [0.5, 1.0]]
    assert runs[0]["tasks"]["rad_vqa"]["error_tags"] == {"opposite": 10}
    scores = [[task["score"] for task in run["tasks"].values()] for run in runs]
    assert scores == [[0.0, 0.4]] * 4
    assert len({run["judging_digest"] for run in runs}) == 4


def test_a_report_whose_errors_nobody_names_is_no_harmless_one(evaluate: Run, serve: Serve) -> None:
    def says(body: dict[str, Any]) -> str:
        return '{"score": 3}' if "missing - " in prompt_text(body) else '{"score": "refused"}'

    answering, judging = serve(lambda _: "no idea"), serve(says)
    argv = [*candidate(answering), *judge(judging), "--no-cache"]
    tasks = ["--tasks", "rad_vqa,mimic_cxr_report_generation", "--set", "harm={unknown: 0.5}"]

    found = json.loads(evaluate(*argv, *tasks)[1])["tasks"]

    # Two fifths of a report are lost; who only declines states nothing.
    assert [task["harm"] for task in found.values()] == [0.0, 0.2]


def test_a_server_that_takes_no_switch_is_told_with_the_cure(evaluate: Run, serve: Serve) -> None:
    def strict_about_fields(body: dict[str, Any]) -> str | Reply:
        if "chat_template_kwargs" not in body:
            return '{"score": 1}'
        said = "property 'chat_template_kwargs' is unsupported"
        return Reply(status=400, body=json.dumps({"error": {"message": said}}))

    answering, judging = serve(lambda _: "no idea"), serve(strict_about_fields)
    argv = [*candidate(answering), *judge(judging), "--tasks", "rad_vqa", "--no-cache"]

    stopped, _, err = evaluate(*argv, "--set", "judge.thinking=qwen3")
    done, _, _ = evaluate(*argv, "--set", "judge.thinking=as_is")

    assert (stopped, done) == (4, 0)
    assert "or --set judge.thinking=as_is" in err


def test_the_same_question_with_the_same_answer_is_judged_once(
    evaluate: Run, serve: Serve, tmp_path: Path
) -> None:
    answering, judging = serve(lambda _: "no idea"), serve(strict)
    argv = [*candidate(answering), *judge(judging), "--tasks", "rad_vqa,path_vqa,slake_vqa"]

    _, out, _ = evaluate(*argv)

    asked = {(one["prompt"], one["reference"]) for one in records(tmp_path, "completions.jsonl")}
    usage = json.loads(out)["usage"]["judge"]
    assert len(judging.requests) == usage["calls"] == 2 * len(asked)
    assert usage["calls"] + usage["cached"] == 2 * len(records(tmp_path, "completions.jsonl"))


def test_an_empty_or_rejected_sample_is_never_judged(evaluate: Run, serve: Serve) -> None:
    replies = [
        Reply(text=""),
        Reply(text="   "),
        Reply(text="<think>still thinking", finish_reason="length"),
        Reply(status=400, text="the prompt is too long"),
    ]
    turns = itertools.cycle(replies)
    answering, judging = serve(lambda _: next(turns)), serve(strict)

    code, out, _ = evaluate(*candidate(answering), *judge(judging), "--tasks", "rad_vqa")

    task = json.loads(out)["tasks"]["rad_vqa"]
    found = {name: count for name, count in task["outcomes"].items() if count}
    assert code == 0
    assert judging.requests == []
    assert set(found) == {"empty", "truncated", "rejected"}
    assert task["score"] == 0.0
    assert sum(found.values()) == task["n"] == task["n_scored"]


def test_images_travel_as_the_bytes_that_are_stored(
    evaluate: Run, serve: Serve, tmp_path: Path
) -> None:
    answering = serve(lambda _: "yes")

    evaluate(*candidate(answering), "--tasks", "path_vqa", "--protocol", "rules")

    kinds = Counter(
        part["image_url"]["url"].partition(";")[0]
        for body in answering.requests
        for part in body["messages"][0]["content"]
        if part["type"] == "image_url"
    )
    assert set(kinds) <= {"data:image/jpeg", "data:image/png"}
    assert sum(kinds.values()) == len(records(tmp_path, "completions.jsonl"))
    assert all(
        body["messages"][0]["content"][0]["type"] == "image_url" for body in answering.requests
    )


def test_a_second_run_takes_its_verdicts_from_the_cache(evaluate: Run, serve: Serve) -> None:
    answering, judging = serve(lambda _: "no idea"), serve(strict)
    argv = [*candidate(answering), *judge(judging), "--tasks", "rad_vqa"]
    evaluate(*argv)
    asked = len(judging.requests)

    _, out, _ = evaluate(*argv, "--set", "generation.max_tokens=1000")
    usage = json.loads(out)["usage"]["judge"]
    _, anew, _ = evaluate(*argv, "--set", "generation.max_tokens=1001", "--no-cache")

    n = json.loads(out)["tasks"]["rad_vqa"]["n"]
    assert (usage["calls"], usage["cached"]) == (0, 2 * n)
    assert json.loads(anew)["usage"]["judge"]["calls"] == 2 * n
    assert len(judging.requests) == asked + 2 * n


def test_two_runs_give_equal_scores_whatever_the_order_of_answers(
    evaluate: Run, serve: Serve, tmp_path: Path
) -> None:
    is_slow = True

    def script(body: dict[str, Any]) -> Reply:
        return Reply(text="A", delay_s=is_slow * (len(prompt_text(body)) % 7) / 200)

    answering = serve(script)
    argv = [*candidate(answering), "--tasks", "llm", "--protocol", "rules"]
    _, first, _ = evaluate(*argv, "--concurrency", "16")
    (tmp_path / "out").rename(tmp_path / "first")
    is_slow = False
    _, second, _ = evaluate(*argv, "--concurrency", "1")

    def without_times(text: str) -> dict[str, Any]:
        scores: dict[str, Any] = json.loads(text)
        for usage in scores["usage"].values():
            del usage["seconds"]
        for task in scores["tasks"].values():
            del task["ledger"]["candidate_seconds"], task["ledger"]["judge_seconds"]
        return scores

    assert without_times(first) == without_times(second)


def test_restricted_answers_are_for_their_owner_only(
    evaluate: Run, serve: Serve, tmp_path: Path
) -> None:
    answering = serve(lambda _: "No acute finding.")
    tasks = "mimic_cxr_report_summarization"

    evaluate(*candidate(answering), "--tasks", tasks, "--protocol", "rules")

    for name in ("completions.jsonl", "verdicts.jsonl"):
        (path,) = tmp_path.rglob(name)
        assert path.stat().st_mode & 0o777 == 0o600


def test_all_seventeen_tasks_add_up_and_are_stamped(evaluate: Run, serve: Serve) -> None:
    answering = serve(lambda _: "B")

    _, out, _ = evaluate(*candidate(answering), "--tasks", "medix", "--protocol", "rules")

    scores = json.loads(out)
    assert scores["synthetic"]
    assert len(scores["tasks"]) == 17
    for task in scores["tasks"].values():
        assert list(task["outcomes"]) == [outcome.value for outcome in Outcome]
        assert sum(task["outcomes"].values()) == task["n"] > 0
