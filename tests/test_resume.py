"""The same command again: what is kept, what is asked anew, and what is refused."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from typing import Any

import pytest
from scripted_servers import Run, Serve, candidate, judge, records, strict

import medix_eval
from medix_eval.testing import Reply, prompt_text


def test_a_failed_sample_is_asked_again_by_the_next_run_and_no_other(
    evaluate: Run, serve: Serve
) -> None:
    broken = True

    def script(body: dict[str, Any]) -> str | Reply:
        if broken and len(answering.requests) == 3:
            return Reply(text="A", finish_reason="melted")
        return "A"

    answering = serve(script)
    argv = [*candidate(answering), "--tasks", "medqa", "--protocol", "rules"]
    first, out, _ = evaluate(*argv)
    asked, broken = len(answering.requests), False
    second, again, _ = evaluate(*argv)

    assert (first, second) == (1, 0)
    assert json.loads(out)["tasks"]["medqa"]["outcomes"]["request_failed"] == 1
    assert json.loads(again)["tasks"]["medqa"]["outcomes"]["request_failed"] == 0
    assert len(answering.requests) == asked + 1


def test_a_judge_that_cannot_be_read_is_shown_and_asked_again_alone(
    evaluate: Run, serve: Serve
) -> None:
    broken = True

    def garbage(body: dict[str, Any]) -> str:
        return "hm" if broken and "aspirin" in prompt_text(body).lower() else '{"score": 1}'

    names = iter(["aspirin", "aspirin"])
    answering = serve(lambda _: next(names, "warfarin"))
    judging = serve(garbage)
    argv = [*candidate(answering), *judge(judging), "--tasks", "rad_vqa"]
    first, out, _ = evaluate(*argv)
    generated, asked, broken = len(answering.requests), len(judging.requests), False
    second, again, _ = evaluate(*argv)

    task = json.loads(out)["tasks"]["rad_vqa"]
    assert (first, second) == (1, 0)
    assert task["outcomes"]["judge_failed"] == 2
    assert task["score"] == 1.0
    assert task["bounds"] == [pytest.approx(1 - 2 / task["n"]), 1.0]
    assert len(answering.requests) == generated
    assert len(judging.requests) == asked + 2 * 2
    assert json.loads(again)["tasks"]["rad_vqa"]["n_scored"] == task["n"]


def test_a_limited_run_grows_without_asking_again(evaluate: Run, serve: Serve) -> None:
    answering = serve(lambda _: "A")
    argv = [*candidate(answering), "--tasks", "medmcqa", "--protocol", "rules"]

    _, out, _ = evaluate(*argv, "--limit", "3")
    few = json.loads(out)
    _, out, _ = evaluate(*argv, "--limit", "6")
    more = json.loads(out)
    _, out, _ = evaluate(*argv)
    whole = json.loads(out)

    assert [few["tasks"]["medmcqa"]["n"], more["tasks"]["medmcqa"]["n"]] == [3, 6]
    assert (few["limit"], whole["limit"]) == (3, None)
    assert len(answering.requests) == whole["tasks"]["medmcqa"]["n"]
    assert few["run"] == whole["run"]


def test_a_server_that_dies_midway_keeps_what_was_done(
    evaluate: Run, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medix_eval.models.requests._FIRST_WAIT_S", 0.001)
    alive = True

    def script(body: dict[str, Any]) -> str | Reply:
        dead = alive and len(answering.requests) > 5
        return Reply(status=401, text="expired") if dead else "A"

    answering = serve(script)
    argv = [*candidate(answering), "--tasks", "medqa", "--protocol", "rules", "--concurrency", "2"]
    code, _, _ = evaluate(*argv)
    before, alive = records(tmp_path, "completions.jsonl"), False
    again, out, _ = evaluate(*argv)

    answered = [one for one in records(tmp_path, "completions.jsonl") if "failure" not in one]
    assert (code, again) == (4, 0)
    kept = [one for one in before if "failure" not in one]
    assert 0 < len(kept) < len(answered) == json.loads(out)["tasks"]["medqa"]["n"]
    assert len({line["sample_id"] for line in answered}) == len(answered)


def test_a_run_of_other_settings_is_not_continued(
    evaluate: Run, serve: Serve, tmp_path: Path
) -> None:
    answering = serve(lambda _: "A")
    argv = [*candidate(answering), "--tasks", "medqa", "--protocol", "rules"]
    evaluate(*argv)
    (path,) = tmp_path.rglob("run.json")
    manifest = json.loads(path.read_text())
    manifest["generation"]["generation"]["max_tokens"] = 7
    manifest["tasks"]["medqa"]["digest"] = "0" * 64
    path.write_text(json.dumps(manifest))

    code, _, err = evaluate(*argv)

    assert code == 2
    assert "generation.max_tokens: 7, now 2048" in err
    assert "tasks.medqa.digest" in err


def test_a_second_process_is_kept_out(evaluate: Run, serve: Serve, tmp_path: Path) -> None:
    answering = serve(lambda _: "A")
    argv = [*candidate(answering), "--tasks", "medqa", "--protocol", "rules"]
    evaluate(*argv)
    (path,) = tmp_path.rglob(".lock")

    with path.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, _, err = evaluate(*argv)

    assert code == 2
    assert "is in use by process" in err


def test_a_sample_that_is_answered_after_all_is_judged_after_all(
    evaluate: Run, serve: Serve
) -> None:
    refusing = True

    def script(_: dict[str, Any]) -> str | Reply:
        refused = refusing and len(answering.requests) > 1
        return Reply(status=400, text="prompt is too long") if refused else "A"

    answering = serve(script)
    argv = [*candidate(answering), "--tasks", "medqa", "--concurrency", "1"]
    _, out, _ = evaluate(*argv, "--protocol", "rules")
    refusing = False
    evaluate(*argv, *judge(serve(strict)))
    _, again, _ = evaluate(*argv, "--protocol", "rules")

    first, last = (json.loads(text)["tasks"]["medqa"]["outcomes"] for text in (out, again))
    assert first["rejected"] == sum(first.values()) - 1
    assert last["rejected"] == 0


def test_a_table_holds_only_what_was_judged_this_way(evaluate: Run, serve: Serve) -> None:
    answering = serve(lambda _: "A")
    evaluate(*candidate(answering), "--tasks", "medmcqa", "--protocol", "rules")

    argv = [*candidate(answering), "--tasks", "medqa"]
    code, judged, _ = evaluate(*argv, *judge(serve(strict)))
    _, both, _ = evaluate(*argv, "--protocol", "rules")

    assert code == 0
    assert set(json.loads(judged)["tasks"]) == {"medqa"}
    assert set(json.loads(both)["tasks"]) == {"medqa", "medmcqa"}


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("completions.jsonl", '{"task": "medqa@1"}'),
        ("verdicts.jsonl", '{"task": "medqa@1", "sample_id": "x", "outcome": "odd"}'),
    ],
)
def test_a_damaged_line_is_named(
    evaluate: Run, serve: Serve, tmp_path: Path, name: str, line: str
) -> None:
    argv = [*candidate(serve(lambda _: "A")), "--tasks", "medqa", "--protocol", "rules"]
    evaluate(*argv)
    (path,) = tmp_path.rglob(name)
    path.write_text(f"{line}\n{path.read_text()}")

    code, _, err = evaluate(*argv)

    assert code == 2
    assert f"{name}, line 1 is damaged" in err


def test_what_an_earlier_version_took_for_answers_is_asked_again(
    evaluate: Run, serve: Serve, tmp_path: Path
) -> None:
    """Such lines were scored: 0 as empty or rejected, or as half an answer."""
    answering = serve(lambda _: "A")
    argv = [*candidate(answering), "--tasks", "medqa", "--protocol", "rules"]
    evaluate(*argv)
    (file,), (run,) = tmp_path.rglob("completions.jsonl"), tmp_path.rglob("run.json")
    lines = records(tmp_path, "completions.jsonl")
    refused = {"error": "RequestRejected", "message": "answered 400: Unsupported parameter: 'seed'"}
    mistakes: list[dict[str, Any]] = [
        {"completion": "The answer is", "finish_reason": "abort"},
        {"completion": "", "finish_reason": "error"},
        {"completion": None, "finish_reason": "stop"},
        {"completion": "<think>It is A</think>", "finish_reason": "stop"},
        {"completion": None, "failure": refused},
    ]
    for line, mistake in zip(lines, mistakes, strict=False):
        line.update(mistake)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    manifest = json.loads(run.read_text())
    del manifest["num_untold"]
    run.write_text(json.dumps(manifest))
    (verdicts,) = tmp_path.rglob("verdicts.jsonl")
    verdicts.unlink()
    asked = len(answering.requests)

    medix_eval.judge(run.parent, protocol="rules")
    judged = {line["sample_id"]: line["outcome"] for line in records(tmp_path, "verdicts.jsonl")}
    code, out, _ = evaluate(*argv)
    evaluate(*argv)

    ids = [line["sample_id"] for line in lines]
    assert [judged[one] for one in ids[:5]] == ["request_failed"] * 5
    assert {judged[one] for one in ids[5:]} <= {"correct", "wrong"}
    assert code == 0
    assert len(answering.requests) == asked + 5
    assert json.loads(out)["tasks"]["medqa"]["n_scored"] == len(lines)
