"""Whole evaluations through the command line, against a scripted server on the real wire."""

from __future__ import annotations

import fcntl
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from medix_eval.cli import main
from medix_eval.records import Outcome
from medix_eval.testing import Reply, Script, ScriptedServer, prompt_text

HUB = Path(__file__).parent / "fixtures" / "hub"
Run = Callable[..., tuple[int, str, str]]
MARK = "=== answer "


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    def call(*argv: str | Path, data_root: Path = HUB) -> tuple[int, str, str]:
        common = ["--data-root", str(data_root), "--out", str(tmp_path / "out"), "--json"]
        with pytest.raises(SystemExit) as stopped:
            main([*map(str, argv), *common])
        out, err = capsys.readouterr()
        code = stopped.value.code
        return (code if isinstance(code, int) else 0), out, err

    return call


@pytest.fixture
def serve() -> Iterator[Callable[..., ScriptedServer]]:
    servers: list[ScriptedServer] = []

    def start(script: Script, **options: Any) -> ScriptedServer:
        servers.append(ScriptedServer(script, **options).__enter__())
        return servers[-1]

    yield start
    for server in servers:
        server.__exit__(None, None, None)


def candidate(server: ScriptedServer) -> list[str]:
    return ["--model", "openai:scripted", "--base-url", server.url]


def judge(server: ScriptedServer) -> list[str]:
    return ["--judge", "openai:scripted", "--judge-base-url", server.url]


def records(folder: Path, name: str) -> list[dict[str, Any]]:
    (path,) = folder.rglob(name)
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def strict(body: dict[str, Any]) -> str:
    """A judge whose votes agree."""
    return '{"score": 0}'


def test_a_question_costs_two_calls_and_a_report_three(run: Run, serve: Any) -> None:
    answering, judging = serve(lambda _: "no idea"), serve(strict)
    tasks = "medqa,rad_vqa,mimic_cxr_report_generation"

    code, out, _ = run(*candidate(answering), *judge(judging), "--tasks", tasks, "--no-cache")

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
    }


def test_votes_that_disagree_cost_a_third_call(run: Run, serve: Any) -> None:
    def split(body: dict[str, Any]) -> str:
        return '{"score": 1}' if "examiner" in prompt_text(body) else '{"score": 0}'

    answering, judging = serve(lambda _: "no idea"), serve(split)

    argv = [*candidate(answering), *judge(judging), "--tasks", "rad_vqa", "--no-cache"]
    _, out, _ = run(*argv)

    task = json.loads(out)["tasks"]["rad_vqa"]
    assert task["outcomes"]["wrong"] == task["n"]
    assert len(judging.requests) == 3 * task["n"]


def test_the_same_question_with_the_same_answer_is_judged_once(
    run: Run, serve: Any, tmp_path: Path
) -> None:
    answering, judging = serve(lambda _: "no idea"), serve(strict)
    argv = [*candidate(answering), *judge(judging), "--tasks", "rad_vqa,path_vqa,slake_vqa"]

    _, out, _ = run(*argv)

    asked = {(one["prompt"], one["reference"]) for one in records(tmp_path, "completions.jsonl")}
    usage = json.loads(out)["usage"]["judge"]
    assert len(judging.requests) == usage["calls"] == 2 * len(asked)
    assert usage["calls"] + usage["cached"] == 2 * len(records(tmp_path, "completions.jsonl"))


def test_an_empty_or_rejected_sample_is_never_judged(run: Run, serve: Any) -> None:
    replies = [
        Reply(text=None),
        Reply(text="   "),
        Reply(text="<think>still thinking", finish_reason="length"),
        Reply(status=400, text="the prompt is too long"),
    ]
    turns = itertools.cycle(replies)
    answering, judging = serve(lambda _: next(turns)), serve(strict)

    code, out, _ = run(*candidate(answering), *judge(judging), "--tasks", "rad_vqa")

    task = json.loads(out)["tasks"]["rad_vqa"]
    found = {name: count for name, count in task["outcomes"].items() if count}
    assert code == 0
    assert judging.requests == []
    assert set(found) == {"empty", "truncated", "rejected"}
    assert task["score"] == 0.0
    assert sum(found.values()) == task["n"] == task["n_scored"]


def test_images_travel_as_the_bytes_that_are_stored(run: Run, serve: Any, tmp_path: Path) -> None:
    answering = serve(lambda _: "yes")

    run(*candidate(answering), "--tasks", "path_vqa", "--protocol", "rules")

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


def test_a_passing_failure_is_retried_and_a_lasting_one_recorded(
    run: Run, serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medix_eval.retrying._FIRST_WAIT_S", 0.001)
    seen: Counter[str] = Counter()

    def flaky(body: dict[str, Any]) -> str | Reply:
        prompt = prompt_text(body)
        seen[prompt] += 1
        if list(seen).index(prompt) == 0:
            return Reply(status=503, text="overloaded")
        return "A" if seen[prompt] > 1 else Reply(status=429, headers={"Retry-After": "0"})

    answering = serve(flaky)

    code, out, _ = run(*candidate(answering), "--tasks", "medqa", "--protocol", "rules")

    task = json.loads(out)["tasks"]["medqa"]
    assert code == 1
    assert task["outcomes"]["request_failed"] == 1
    assert task["n_scored"] == task["n"] - 1
    assert task["bounds"][0] < task["bounds"][1]
    assert sorted(seen.values()) == [2] * (task["n"] - 1) + [5]
    assert json.loads(out)["groups"]["llm"]["score"] is None


def test_a_failed_sample_is_asked_again_by_the_next_run_and_no_other(run: Run, serve: Any) -> None:
    broken = True

    def script(body: dict[str, Any]) -> str | Reply:
        if broken and len(answering.requests) == 3:
            return Reply(body="[]")
        return "A"

    answering = serve(script)
    argv = [*candidate(answering), "--tasks", "medqa", "--protocol", "rules"]
    first, out, _ = run(*argv)
    asked, broken = len(answering.requests), False
    second, again, _ = run(*argv)

    assert (first, second) == (1, 0)
    assert json.loads(out)["tasks"]["medqa"]["outcomes"]["request_failed"] == 1
    assert json.loads(again)["tasks"]["medqa"]["outcomes"]["request_failed"] == 0
    assert len(answering.requests) == asked + 1


def test_a_judge_that_cannot_be_read_is_shown_and_asked_again_alone(run: Run, serve: Any) -> None:
    broken = True

    def garbage(body: dict[str, Any]) -> str:
        return "hm" if broken and "aspirin" in prompt_text(body).lower() else '{"score": 1}'

    names = iter(["aspirin", "aspirin"])
    answering = serve(lambda _: next(names, "warfarin"))
    judging = serve(garbage)
    argv = [*candidate(answering), *judge(judging), "--tasks", "rad_vqa"]
    first, out, _ = run(*argv)
    generated, asked, broken = len(answering.requests), len(judging.requests), False
    second, again, _ = run(*argv)

    task = json.loads(out)["tasks"]["rad_vqa"]
    assert (first, second) == (1, 0)
    assert task["outcomes"]["judge_failed"] == 2
    assert task["score"] == 1.0
    assert task["bounds"] == [pytest.approx(1 - 2 / task["n"]), 1.0]
    assert len(answering.requests) == generated
    assert len(judging.requests) == asked + 2 * 2
    assert json.loads(again)["tasks"]["rad_vqa"]["n_scored"] == task["n"]


def test_a_second_run_takes_its_verdicts_from_the_cache(run: Run, serve: Any) -> None:
    answering, judging = serve(lambda _: "no idea"), serve(strict)
    argv = [*candidate(answering), *judge(judging), "--tasks", "rad_vqa"]
    run(*argv)
    asked = len(judging.requests)

    _, out, _ = run(*argv, "--set", "generation.max_tokens=1000")
    usage = json.loads(out)["usage"]["judge"]
    _, anew, _ = run(*argv, "--set", "generation.max_tokens=1001", "--no-cache")

    n = json.loads(out)["tasks"]["rad_vqa"]["n"]
    assert (usage["calls"], usage["cached"]) == (0, 2 * n)
    assert json.loads(anew)["usage"]["judge"]["calls"] == 2 * n
    assert len(judging.requests) == asked + 2 * n


def test_a_limited_run_grows_without_asking_again(run: Run, serve: Any) -> None:
    answering = serve(lambda _: "A")
    argv = [*candidate(answering), "--tasks", "medmcqa", "--protocol", "rules"]

    _, out, _ = run(*argv, "--limit", "3")
    few = json.loads(out)
    _, out, _ = run(*argv, "--limit", "6")
    more = json.loads(out)
    _, out, _ = run(*argv)
    whole = json.loads(out)

    assert [few["tasks"]["medmcqa"]["n"], more["tasks"]["medmcqa"]["n"]] == [3, 6]
    assert (few["limit"], whole["limit"]) == (3, None)
    assert len(answering.requests) == whole["tasks"]["medmcqa"]["n"]
    assert few["run"] == whole["run"]


def test_two_runs_give_equal_scores_whatever_the_order_of_answers(
    run: Run, serve: Any, tmp_path: Path
) -> None:
    def slow(body: dict[str, Any]) -> Reply:
        return Reply(text="A", delay_s=(len(prompt_text(body)) % 7) / 200)

    answering = serve(slow)
    argv = [*candidate(answering), "--tasks", "llm", "--protocol", "rules"]
    _, first, _ = run(*argv, "--concurrency", "16")
    (tmp_path / "out").rename(tmp_path / "first")
    _, second, _ = run(*argv, "--concurrency", "1")

    def without_times(text: str) -> dict[str, Any]:
        scores: dict[str, Any] = json.loads(text)
        for usage in scores["usage"].values():
            del usage["seconds"]
        for task in scores["tasks"].values():
            del task["ledger"]["candidate_seconds"], task["ledger"]["judge_seconds"]
        return scores

    assert without_times(first) == without_times(second)


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply(status=401, text="bad key"), "answered 401: bad key"),
        (Reply(status=404, text="no such model"), "answered 404"),
        (Reply(body="<html>welcome</html>"), "answered with text/html"),
    ],
)
def test_a_server_that_cannot_be_used_stops_the_run(
    run: Run, serve: Any, reply: Reply, said: str
) -> None:
    answering = serve(lambda _: reply)

    code, out, err = run(*candidate(answering), "--tasks", "medqa", "--protocol", "rules")

    assert (code, out) == (4, "")
    assert said in err
    assert err.splitlines()[-1].startswith("hint: ")


@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_key_is_found_before_anything_is_sent(run: Run, serve: Any, status: int) -> None:
    answering = serve(lambda _: "A", models_status=status)

    code, _, err = run(*candidate(answering), "--tasks", "medqa", "--protocol", "rules")

    assert code == 4
    assert "OPENAI_API_KEY" in err
    assert answering.requests == []


def test_an_unreachable_server_is_exit_code_4(run: Run) -> None:
    argv = ["--model", "openai:x", "--base-url", "http://127.0.0.1:9/v1"]

    code, out, err = run(*argv, "--tasks", "medqa", "--protocol", "rules")

    assert (code, out) == (4, "")
    assert "no connection to http://127.0.0.1:9/v1" in err


def test_a_model_that_is_not_served_names_those_that_are(run: Run, serve: Any) -> None:
    answering = serve(lambda _: "A")
    argv = ["--model", "openai:gpt", "--base-url", answering.url]

    code, _, err = run(*argv, "--tasks", "medqa", "--protocol", "rules")

    assert code == 2
    assert "hint: it serves: scripted" in err


def test_without_a_judge_nothing_is_generated(
    run: Run, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    answering = serve(lambda _: "A")

    code, out, err = run(*candidate(answering), "--tasks", "medqa")

    assert (code, out) == (4, "")
    assert "Qwen/Qwen3-14B" in err
    assert "--protocol rules" in err
    assert answering.requests == []


def test_an_unreachable_judge_stops_before_generating(run: Run, serve: Any) -> None:
    answering = serve(lambda _: "A")
    argv = ["--judge", "openai:j", "--judge-base-url", "http://127.0.0.1:9/v1"]

    code, _, err = run(*candidate(answering), *argv, "--tasks", "medqa")

    assert code == 4
    assert "--judge-base-url" in err
    assert "--protocol rules" in err
    assert answering.requests == []


def test_a_server_that_dies_midway_keeps_what_was_done(
    run: Run, serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medix_eval.retrying._FIRST_WAIT_S", 0.001)
    alive = True

    def script(body: dict[str, Any]) -> str | Reply:
        dead = alive and len(answering.requests) > 5
        return Reply(status=401, text="expired") if dead else "A"

    answering = serve(script)
    argv = [*candidate(answering), "--tasks", "medqa", "--protocol", "rules", "--concurrency", "2"]
    code, _, _ = run(*argv)
    kept, alive = len(records(tmp_path, "completions.jsonl")), False
    again, out, _ = run(*argv)

    lines = records(tmp_path, "completions.jsonl")
    assert (code, again) == (4, 0)
    assert 0 < kept < len(lines) == json.loads(out)["tasks"]["medqa"]["n"]
    assert len({line["sample_id"] for line in lines}) == len(lines)


def test_a_run_of_other_settings_is_not_continued(run: Run, serve: Any, tmp_path: Path) -> None:
    answering = serve(lambda _: "A")
    argv = [*candidate(answering), "--tasks", "medqa", "--protocol", "rules"]
    run(*argv)
    (path,) = tmp_path.rglob("run.json")
    manifest = json.loads(path.read_text())
    manifest["generation"]["generation"]["max_tokens"] = 7
    manifest["tasks"]["medqa"]["digest"] = "0" * 64
    path.write_text(json.dumps(manifest))

    code, _, err = run(*argv)

    assert code == 2
    assert "generation.max_tokens: 7, now 2048" in err
    assert "tasks.medqa.digest" in err


def test_a_second_process_is_kept_out(run: Run, serve: Any, tmp_path: Path) -> None:
    answering = serve(lambda _: "A")
    argv = [*candidate(answering), "--tasks", "medqa", "--protocol", "rules"]
    run(*argv)
    (path,) = tmp_path.rglob(".lock")

    with path.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, _, err = run(*argv)

    assert code == 2
    assert "is in use by process" in err


def test_restricted_answers_are_for_their_owner_only(run: Run, serve: Any, tmp_path: Path) -> None:
    answering = serve(lambda _: "No acute finding.")
    tasks = "mimic_cxr_report_summarization"

    run(*candidate(answering), "--tasks", tasks, "--protocol", "rules")

    for name in ("completions.jsonl", "verdicts.jsonl"):
        (path,) = tmp_path.rglob(name)
        assert path.stat().st_mode & 0o777 == 0o600


@pytest.fixture
def answered(run: Run, serve: Any, tmp_path: Path) -> list[dict[str, Any]]:
    """Every sample of the 17 tasks with its reference and options, as a run keeps it."""
    run(*candidate(serve(lambda _: "x")), "--tasks", "medix", "--protocol", "rules")
    return records(tmp_path, "completions.jsonl")


def letter(record: dict[str, Any], text: str) -> str:
    return "ABCDEFGHIJ"[record["options"].index(text)]


STYLES: dict[str, Callable[[dict[str, Any], str], str]] = {
    "letter": letter,
    "text": lambda _, text: text,
    "sentence": lambda _, text: f"The answer is {text}.",
    "medix-r1": lambda _, text: f"<X_RAY><thinking>Hm.</thinking><answer>{text}</answer>",
}


@pytest.mark.parametrize("score", [1.0, 0.0], ids=["right", "wrong"])
@pytest.mark.parametrize("style", STYLES)
def test_replayed_choices_score_full_marks_or_none(
    run: Run, answered: list[dict[str, Any]], tmp_path: Path, style: str, score: float
) -> None:
    lines = []
    for record in answered:
        chosen = record["reference"]
        if record["kind"] == "multiple_choice" and not score:
            chosen = next(text for text in record["options"] if text != chosen)
        write = STYLES[style] if record["kind"] == "multiple_choice" else STYLES["text"]
        completion = write(record, chosen)
        row = {"task": record["task"], "sample_id": record["sample_id"], "completion": completion}
        lines.append(json.dumps(row))
    path = tmp_path / "replay.jsonl"
    path.write_text("\n".join(lines) + "\n")

    _, out, _ = run("--model", f"replay:{path}", "--tasks", "medix", "--protocol", "rules")

    choices = {
        name: (task["n_scored"] == task["n"], task["score"])
        for name, task in json.loads(out)["tasks"].items()
        if task["kind"] == "multiple_choice"
    }
    assert len(choices) == 11
    assert choices == dict.fromkeys(choices, (True, score))


def test_all_seventeen_tasks_add_up_and_are_stamped(
    run: Run, serve: Any, answered: list[dict[str, Any]]
) -> None:
    answering = serve(lambda _: "B")

    _, out, _ = run(*candidate(answering), "--tasks", "medix", "--protocol", "rules")

    scores = json.loads(out)
    assert scores["synthetic"]
    assert len(scores["tasks"]) == 17
    for task in scores["tasks"].values():
        assert list(task["outcomes"]) == [outcome.value for outcome in Outcome]
        assert sum(task["outcomes"].values()) == task["n"] > 0


def test_an_official_answer_file_is_matched_to_its_rows(
    run: Run, answered: list[dict[str, Any]], tmp_path: Path
) -> None:
    medqa = [record for record in answered if record["task"] == "medqa@1"]
    official = [
        {
            "id": f"medqa_{record['row']}",
            "question": record["prompt"],
            "answer": record["reference"],
            "response": f"<think>x</think>{record['reference']}",
        }
        for record in medqa
    ]
    path = tmp_path / "official.jsonl"
    path.write_text("\n".join(map(json.dumps, official)))
    argv = ["--model", f"replay:{path}", "--tasks", "medqa", "--protocol", "rules"]
    code, out, _ = run(*argv)
    official[0]["answer"], official[1]["answer"] = official[1]["answer"], official[0]["answer"]
    path.write_text("\n".join(map(json.dumps, official)))
    moved, _, err = run(*argv)

    assert (code, json.loads(out)["tasks"]["medqa"]["score"]) == (0, 1.0)
    assert moved == 3
    assert "medqa_0 has another reference than row 0" in err


def test_a_replay_without_some_samples_skips_them(
    run: Run, answered: list[dict[str, Any]], tmp_path: Path
) -> None:
    medqa = [record for record in answered if record["task"] == "medqa@1"]
    path = tmp_path / "half.jsonl"
    path.write_text(
        "\n".join(
            json.dumps({"task": "medqa", "sample_id": one["sample_id"], "completion": "A"})
            for one in medqa[:4]
        )
    )

    code, out, _ = run("--model", f"replay:{path}", "--tasks", "medqa", "--protocol", "rules")

    task = json.loads(out)["tasks"]["medqa"]
    assert code == 1
    assert task["outcomes"]["skipped"] == len(medqa) - 4
    assert task["n_scored"] == 4


def test_a_redirect_is_not_followed(run: Run, serve: Any) -> None:
    elsewhere = serve(lambda _: "A")
    target = {"Location": f"{elsewhere.url}/chat/completions"}
    answering = serve(lambda _: Reply(status=307, headers=target))

    code, _, err = run(*candidate(answering), "--tasks", "medqa", "--protocol", "rules")

    assert code == 4
    assert "it sends us elsewhere" in err
    assert elsewhere.requests == []


def test_a_sample_that_is_answered_after_all_is_judged_after_all(run: Run, serve: Any) -> None:
    refusing = True
    answering = serve(lambda _: Reply(status=400, text="no") if refusing else "A")
    argv = [*candidate(answering), "--tasks", "medqa"]
    _, out, _ = run(*argv, "--protocol", "rules")
    refusing = False
    run(*argv, *judge(serve(strict)))
    _, again, _ = run(*argv, "--protocol", "rules")

    first, last = (json.loads(text)["tasks"]["medqa"]["outcomes"] for text in (out, again))
    assert first["rejected"] == sum(first.values())
    assert last["rejected"] == 0


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
    run: Run, serve: Any, change: dict[str, Any]
) -> None:
    whole = {"choices": [{"message": {"content": "B"}, "finish_reason": "stop"}]}
    answering = serve(lambda _: Reply(body=json.dumps(whole | change)))

    code, out, _ = run(*candidate(answering), "--tasks", "medqa", "--protocol", "rules")

    task = json.loads(out)["tasks"]["medqa"]
    assert code in {0, 1}
    assert sum(task["outcomes"].values()) == task["n"]


def test_a_table_holds_only_what_was_judged_this_way(run: Run, serve: Any) -> None:
    answering = serve(lambda _: "A")
    run(*candidate(answering), "--tasks", "medmcqa", "--protocol", "rules")

    argv = [*candidate(answering), "--tasks", "medqa"]
    code, judged, _ = run(*argv, *judge(serve(strict)))
    _, both, _ = run(*argv, "--protocol", "rules")

    assert code == 0
    assert set(json.loads(judged)["tasks"]) == {"medqa"}
    assert set(json.loads(both)["tasks"]) == {"medqa", "medmcqa"}


@pytest.mark.parametrize("url", ["http://bob:secret@host/v1", "http://[::1/v1", "ftp://host", "x"])
def test_an_address_that_is_none_or_holds_a_password_is_refused(run: Run, url: str) -> None:
    argv = ["--model", "openai:x", "--base-url", url, "--tasks", "medqa", "--protocol", "rules"]

    code, _, err = run(*argv)

    assert code == 2
    assert "secret" not in err


def test_an_out_that_is_no_folder_is_one_line(run: Run, serve: Any, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")

    code, _, err = run(*candidate(serve(lambda _: "A")), "--tasks", "medqa", "--protocol", "rules")

    assert code == 2
    assert "cannot be written to" in err


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("completions.jsonl", '{"task": "medqa@1"}'),
        ("verdicts.jsonl", '{"task": "medqa@1", "sample_id": "x", "outcome": "odd"}'),
    ],
)
def test_a_damaged_line_is_named(
    run: Run, serve: Any, tmp_path: Path, name: str, line: str
) -> None:
    argv = [*candidate(serve(lambda _: "A")), "--tasks", "medqa", "--protocol", "rules"]
    run(*argv)
    (path,) = tmp_path.rglob(name)
    path.write_text(f"{line}\n{path.read_text()}")

    code, _, err = run(*argv)

    assert code == 2
    assert f"{name}, line 1 is damaged" in err


@pytest.mark.parametrize("content", ["", '{"task": "medqa", "sam'], ids=["empty", "torn"])
def test_a_replay_without_one_answer_is_one_line(run: Run, tmp_path: Path, content: str) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(content)

    code, out, err = run("--model", f"replay:{path}", "--tasks", "medqa", "--protocol", "rules")

    assert (code, out) == (2, "")
    assert "holds no whole line" in err
