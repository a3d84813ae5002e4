"""Servers that fail: what stops a run before anything is sent, and what costs one sample."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from scripted_servers import Run, Serve, candidate, records

from medix_eval.testing import Reply, ScriptedServer, prompt_text


def test_a_passing_failure_is_retried_and_a_lasting_one_recorded(
    evaluate: Run, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medix_eval.models.requests._FIRST_WAIT_S", 0.001)
    seen: Counter[str] = Counter()

    def flaky(body: dict[str, Any]) -> str | Reply:
        prompt = prompt_text(body)
        seen[prompt] += 1
        if list(seen).index(prompt) == 0:
            return Reply(status=500, text="out of memory")
        return "A" if seen[prompt] > 1 else Reply(status=429, headers={"Retry-After": "0"})

    answering = serve(flaky)

    code, out, _ = evaluate(*candidate(answering), "--tasks", "medqa", "--protocol", "rules")

    task = json.loads(out)["tasks"]["medqa"]
    assert code == 1
    assert task["outcomes"]["request_failed"] == 1
    assert task["n_scored"] == task["n"] - 1
    assert task["bounds"][0] < task["bounds"][1]
    assert sorted(seen.values()) == [2] * (task["n"] - 1) + [5]
    assert json.loads(out)["groups"]["llm"]["score"] is None


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply(status=401, text="bad key"), "answered 401: bad key"),
        (Reply(status=404, text="no such model"), "answered 404"),
        (Reply(body="<html>welcome</html>"), "answered with text/html"),
    ],
)
def test_a_server_that_cannot_be_used_stops_the_run(
    evaluate: Run, serve: Serve, reply: Reply, said: str
) -> None:
    answering = serve(lambda _: reply)

    code, out, err = evaluate(*candidate(answering), "--tasks", "medqa", "--protocol", "rules")

    assert (code, out) == (4, "")
    assert said in err
    assert err.splitlines()[-1].startswith("hint: ")


@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_key_is_found_before_anything_is_sent(
    evaluate: Run, serve: Serve, status: int
) -> None:
    answering = serve(lambda _: "A", models_status=status)

    code, _, err = evaluate(*candidate(answering), "--tasks", "medqa", "--protocol", "rules")

    assert code == 4
    assert "OPENAI_API_KEY" in err
    assert answering.requests == []


def test_an_unreachable_server_is_exit_code_4(evaluate: Run) -> None:
    argv = ["--model", "openai:x", "--base-url", "http://127.0.0.1:9/v1"]

    code, out, err = evaluate(*argv, "--tasks", "medqa", "--protocol", "rules")

    assert (code, out) == (4, "")
    assert "no connection to http://127.0.0.1:9/v1" in err


def test_a_model_that_is_not_served_names_those_that_are(evaluate: Run, serve: Serve) -> None:
    answering = serve(lambda _: "A")
    argv = ["--model", "openai:gpt", "--base-url", answering.url]

    code, _, err = evaluate(*argv, "--tasks", "medqa", "--protocol", "rules")

    assert code == 2
    assert "hint: it serves: scripted" in err


def test_without_a_judge_nothing_is_generated(
    evaluate: Run, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    answering = serve(lambda _: "A")

    code, out, err = evaluate(*candidate(answering), "--tasks", "medqa")

    assert (code, out) == (4, "")
    assert "Qwen/Qwen3-14B" in err
    assert "--protocol rules" in err
    assert answering.requests == []


def test_an_unreachable_judge_stops_before_generating(evaluate: Run, serve: Serve) -> None:
    answering = serve(lambda _: "A")
    argv = ["--judge", "openai:j", "--judge-base-url", "http://127.0.0.1:9/v1"]

    code, _, err = evaluate(*candidate(answering), *argv, "--tasks", "medqa")

    assert code == 4
    assert "--judge-base-url" in err
    assert "--protocol rules" in err
    assert answering.requests == []


def test_a_redirect_is_not_followed(evaluate: Run, serve: Serve) -> None:
    elsewhere = serve(lambda _: "A")
    target = {"Location": f"{elsewhere.url}/chat/completions"}
    answering = serve(lambda _: Reply(status=307, headers=target))

    code, _, err = evaluate(*candidate(answering), "--tasks", "medqa", "--protocol", "rules")

    assert code == 4
    assert "answered 307: redirected" in err
    assert elsewhere.requests == []


@pytest.mark.parametrize(
    "change",
    [
        {"usage": [1]},
        {"usage": {"prompt_tokens": "abc", "completion_tokens": 3.5}},
        {"choices": [{"message": {"content": "B \ud800"}, "finish_reason": 3}]},
        {"choices": []},
        {"choices": [{"message": {"content": ["B"]}}]},
    ],
    ids=["usage-list", "usage-text", "half-a-character", "no-choice", "content-list"],
)
def test_an_odd_reply_costs_at_most_its_sample(
    evaluate: Run, serve: Serve, change: dict[str, Any]
) -> None:
    whole = {"choices": [{"message": {"content": "B"}, "finish_reason": "stop"}]}
    answering = serve(lambda _: Reply(body=json.dumps(whole | change)))

    code, out, _ = evaluate(*candidate(answering), "--tasks", "medqa", "--protocol", "rules")

    task = json.loads(out)["tasks"]["medqa"]
    assert code in {0, 1}
    assert sum(task["outcomes"].values()) == task["n"]


def test_a_refusal_that_no_file_can_hold_costs_only_its_sample(evaluate: Run, serve: Serve) -> None:
    refusal = Reply(
        status=400, body=json.dumps({"error": {"message": "prompt is too long: \ud83d"}})
    )
    answering: ScriptedServer = serve(lambda _: refusal if len(answering.requests) > 1 else "A")

    _, out, _ = evaluate(
        *candidate(answering), "--tasks", "medqa", "--protocol", "rules", "--concurrency", "1"
    )

    task = json.loads(out)["tasks"]["medqa"]
    assert task["outcomes"]["rejected"] == task["n"] - 1 > 0


@pytest.mark.parametrize("url", ["http://bob:secret@host/v1", "http://[::1/v1", "ftp://host", "x"])
def test_an_address_that_is_none_or_holds_a_password_is_refused(evaluate: Run, url: str) -> None:
    argv = ["--model", "openai:x", "--base-url", url, "--tasks", "medqa", "--protocol", "rules"]

    code, _, err = evaluate(*argv)

    assert code == 2
    assert "secret" not in err


def test_an_out_that_is_no_folder_is_one_line(evaluate: Run, serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")

    code, _, err = evaluate(
        *candidate(serve(lambda _: "A")), "--tasks", "medqa", "--protocol", "rules"
    )

    assert code == 2
    assert "cannot be written to" in err


REFUSED = {
    "a setting": ("Unsupported parameter: 'max_tokens' is not supported with this model.", 1),
    "a key": ("API key not valid. Please pass a valid API key.", 1),
    "what nobody knows": ("something is odd", 8),
    "every prompt alike": ("prompt is too long: 5000 tokens > 4096 maximum", 8),
}


@pytest.mark.parametrize(("said", "asked"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_of_every_request_stops_the_run_and_scores_nothing(
    evaluate: Run, serve: Serve, tmp_path: Path, said: str, asked: int
) -> None:
    answering = serve(lambda _: Reply(status=400, text=said))
    argv = [*candidate(answering), "--tasks", "medqa", "--protocol", "rules", "--concurrency", "1"]

    code, out, err = evaluate(*argv)

    assert (code, out) == (4, "")
    assert said in err
    assert "hint: " in err
    assert len(answering.requests) == asked
    assert list(tmp_path.rglob("scores.json")) == []


def test_a_run_that_has_answers_goes_on_past_refusals(evaluate: Run, serve: Serve) -> None:
    refusal = Reply(status=400, text="something is odd")
    answering: ScriptedServer = serve(lambda _: refusal if len(answering.requests) > 1 else "A")
    argv = [*candidate(answering), "--tasks", "medqa", "--protocol", "rules", "--concurrency", "1"]
    code, out, _ = evaluate(*argv)
    again, out_again, _ = evaluate(*argv)

    task = json.loads(out)["tasks"]["medqa"]
    assert code == again == 1
    assert task["n_scored"] == 1
    assert task["outcomes"]["request_failed"] == task["n"] - 1
    assert json.loads(out_again)["tasks"]["medqa"]["n_scored"] == 1


def test_reasoning_without_an_answer_is_no_empty_one(
    evaluate: Run, serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    message = {"content": None, "reasoning_content": "It is A."}
    body = json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]})
    answering = serve(lambda _: Reply(body=body))

    code, out, _ = evaluate(*candidate(answering), "--tasks", "medqa", "--protocol", "rules")

    task = json.loads(out)["tasks"]["medqa"]
    assert code == 1
    assert task["outcomes"]["request_failed"] == task["n"]
    assert task["score"] is None
    assert caplog.text.count("--reasoning-parser") == 1
    assert all("is reasoning" in one["reason"] for one in records(tmp_path, "verdicts.jsonl"))


def test_a_model_that_was_not_asked_for_scores_nothing(
    evaluate: Run, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medix_eval.models.requests._FIRST_WAIT_S", 0.001)
    choices = [{"message": {"content": "A"}, "finish_reason": "stop"}]
    turns = itertools.cycle(["scripted", "other"])
    answering = serve(lambda _: Reply(body=json.dumps({"model": next(turns), "choices": choices})))
    other = serve(lambda _: Reply(body=json.dumps({"model": "other", "choices": choices})))
    argv = ["--tasks", "medqa", "--protocol", "rules", "--concurrency", "1"]

    code, out, _ = evaluate(*candidate(answering), *argv)
    stopped, _, err = evaluate(*candidate(other), *argv)
    vouched, said, _ = evaluate(*candidate(other), *argv, "--allow-model-alias", "other")

    task = json.loads(out)["tasks"]["medqa"]
    assert (code, stopped, vouched) == (0, 4, 0)
    assert len(answering.requests) == 2 * task["n"] - 1
    assert "hint: if they are one, --allow-model-alias other" in err
    assert json.loads(out)["served_models"] == {}
    assert json.loads(said)["served_models"] == {"other": task["n"]}


def test_a_stop_takes_back_what_was_rejected_before_it(
    evaluate: Run, serve: Serve, tmp_path: Path
) -> None:
    """If every prompt is too long, none of them is to blame."""
    answering = serve(lambda _: Reply(status=400, text="prompt is too long"))

    code, *_ = evaluate(*candidate(answering), "--tasks", "medqa", "--protocol", "rules")

    newest = {one["sample_id"]: one["outcome"] for one in records(tmp_path, "verdicts.jsonl")}
    assert code == 4
    assert set(newest.values()) == {"request_failed"}
