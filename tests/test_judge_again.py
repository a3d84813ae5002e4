"""Juries, the published protocol and judging again, through the command line."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import published_scoring
import pytest
from scripted_servers import Run, Serve, candidate, judge, records

from medix_eval.testing import Reply, prompt_text

YES, NO = '{"score": 1}', '{"score": 0}'
ONE_VOTE = ["--set", "judge.question.prompts=[prompts/question_1.jinja]", "--set", "judge.tries=1"]


def chance(text: str) -> float:
    """A number in [0, 1) that only this text has."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) / 2**32


def one_in_five_is_right(body: dict[str, Any]) -> str:
    return YES if chance(prompt_text(body)) < 0.2 else NO


def test_a_jury_keeps_every_judges_votes_and_a_cache_for_each(evaluate: Run, serve: Serve) -> None:
    answering = serve(lambda _: "no idea")
    jury = [serve(lambda _: YES), serve(lambda _: NO), serve(lambda _: YES)]
    argv = [*candidate(answering), *judge(*jury), "--tasks", "rad_vqa"]

    code, out, _ = evaluate(*argv)
    asked = [len(member.requests) for member in jury]
    _, again, _ = evaluate(*argv, "--set", "generation.max_tokens=1000")

    scores = json.loads(out)
    (verdict, *_) = records(scores["run"], "verdicts.jsonl")
    assert code == 0
    assert scores["tasks"]["rad_vqa"]["score"] == 1.0
    assert [one["id"] for one in scores["judges"]] == [
        "openai:scripted",
        "openai:scripted#2",
        "openai:scripted#3",
    ]
    assert list(verdict["judge_scores"].values()) == [1.0, 0.0, 1.0]
    assert len({vote["key"] for vote in verdict["votes"]}) == len(verdict["votes"]) == 6
    assert asked == [len(member.requests) for member in jury]
    assert json.loads(again)["usage"]["judge"]["calls"] == 0


def test_medix_compat_runs_the_published_way_and_scores_as_the_oracle(
    evaluate: Run, serve: Serve, tmp_path: Path
) -> None:
    odd = [YES, NO, '{"score": "1"}', '{"score": 7}', "hm", '{"score": 4}', '{"score": 5}']

    def replies(body: dict[str, Any]) -> str:
        said = "".join(json.dumps(message) for message in body["messages"])
        return odd[int(chance(said) * len(odd))]

    answering, judging = serve(lambda _: "<answer>A</answer>"), serve(replies)
    tasks = ["pubmedqa", "rad_vqa", "mimic_cxr_report_generation"]

    argv = [*candidate(answering), *judge(judging), "--tasks", ",".join(tasks)]
    code, out, _ = evaluate(*argv, "--protocol", "medix-compat", "--allow-partial")

    scores = json.loads(out)
    published = []
    for verdict in records(scores["run"], "verdicts.jsonl"):
        task = verdict["task"].partition("@")[0]
        raw = [vote["reply"] for vote in verdict["votes"]]
        try:
            published.append((task, published_scoring.sample_score(raw, sample_id=task)))
        except published_scoring.NoVerdict:
            assert verdict["outcome"] == "judge_failed"
    theirs = published_scoring.run_scores(published, selected=list(scores["tasks"]))
    images = [
        part["image_url"]["url"].partition(";")[0]
        for body in answering.requests
        for part in body["messages"][0]["content"]
        if isinstance(part, dict) and part["type"] == "image_url"
    ]
    assert code == 1
    assert list(scores["tasks"]) == ["pubmedqa_compat", "rad_vqa", "mimic_cxr_report_generation"]
    assert {name: task["score"] for name, task in scores["tasks"].items()} == {
        name: pytest.approx(score) for name, score in theirs.items()
    }
    assert scores["groups"]["medix"]["score"] == pytest.approx(published_scoring.overall(theirs))
    assert "with their defects" in (Path(scores["run"]) / "report.md").read_text()
    assert set(images) == {"data:image/jpeg"}
    assert {len(body["messages"]) for body in judging.requests} == {1, 3, 5}
    assert all("response_format" not in body for body in judging.requests)
    assert all("<answer>A</answer>" in prompt_text(body) for body in judging.requests[:1])


def test_a_cascade_asks_the_judge_for_the_rest_and_for_the_audit(
    evaluate: Run, serve: Serve
) -> None:
    answering, judging = serve(lambda _: "A"), serve(lambda _: NO)
    argv = [*candidate(answering), *judge(judging), "--tasks", "medmcqa,rad_vqa", "--no-cache"]

    _, out, _ = evaluate(*argv, "--protocol", "cascade", "--set", "judge.audit=0.5")

    verdicts = records(json.loads(out)["run"], "verdicts.jsonl")
    settled = [one for one in verdicts if "rule" in one]
    audited = [one for one in settled if "votes" in one]
    rest = [one for one in verdicts if "rule" not in one]
    assert rest
    assert all(one["votes"] for one in rest)
    assert 0 < len(audited) < len(settled)
    assert all(one["score"] == one["rule"]["score"] for one in settled)
    assert any(one["score"] != one["judge_score"] for one in audited)
    assert len(judging.requests) == 2 * (len(rest) + len(audited))


def test_a_judge_that_talks_garbage_leaves_bounds_that_hold_the_truth(
    evaluate: Run, run: Run, serve: Serve
) -> None:
    broken = True

    def garbage(body: dict[str, Any]) -> str:
        is_garbage = broken and chance("garbage" + prompt_text(body)) < 0.2
        return "I had rather not say." if is_garbage else one_in_five_is_right(body)

    answering = serve(lambda body: f"Perhaps {hash_of(body)}")
    sound, judging = serve(one_in_five_is_right), serve(garbage)
    argv = [*candidate(answering), "--tasks", "medvqa,medmcqa,medqa", *ONE_VOTE]
    _, out, _ = evaluate(*argv, *judge(sound))
    truth = json.loads(out)["tasks"]
    generated = len(answering.requests)

    first, out, _ = evaluate(*argv, *judge(judging))
    scores, asked, broken = json.loads(out), len(judging.requests), False
    table = (Path(scores["run"]) / "report.md").read_text()
    second, again, _ = run("judge", scores["run"], *ONE_VOTE, *judge(judging), "--json")

    failed = {name: task["outcomes"]["judge_failed"] for name, task in scores["tasks"].items()}
    num_failed = sum(failed.values())
    low_high = {name: task["bounds"] for name, task in scores["tasks"].items()}
    assert (first, second) == (1, 0)
    assert 0.05 < num_failed / asked < 0.4
    assert all(low <= truth[name]["score"] <= high for name, (low, high) in low_high.items())
    assert all(low < high for name, (low, high) in low_high.items() if failed[name])
    assert f"judge failed {max(failed.values())}" in table
    assert len(judging.requests) == asked + num_failed
    assert len(answering.requests) == generated
    assert json.loads(again)["num_failures"] == 0
    after = json.loads((Path(scores["run"]) / "scores.json").read_text())["tasks"]
    assert {name: task["score"] for name, task in after.items()} == {
        name: task["score"] for name, task in truth.items()
    }


def hash_of(body: dict[str, Any]) -> str:
    return hashlib.sha256(prompt_text(body).encode()).hexdigest()[:8]


def test_judging_again_shows_what_changed_and_how_models_are_ranked(
    evaluate: Run, run: Run, serve: Serve, tmp_path: Path
) -> None:
    def strict(body: dict[str, Any]) -> str:
        return YES if "good answer" in prompt_text(body) else NO

    def lenient(body: dict[str, Any]) -> str:
        return NO if "good answer" in prompt_text(body) else YES

    good, bad = serve(lambda _: "good answer", model="good"), serve(lambda _: "bad", model="bad")
    before, after = serve(strict), serve(lenient)
    runs = []
    for server, name in ((good, "good"), (bad, "bad")):
        model = ["--model", f"openai:{name}", "--base-url", server.url]
        _, out, _ = evaluate(*model, *judge(before), "--tasks", "rad_vqa")
        runs.append(Path(json.loads(out)["run"]).parent.parent)
    generated = len(good.requests) + len(bad.requests)

    code, out, _ = run("judge", *runs, *judge(after), "--json")
    _, table, _ = run("judge", *runs, *judge(after))

    changes = json.loads(out)
    n = json.loads((runs[0] / "run.json").read_text())["tasks"]["rad_vqa"]["num_rows"]
    assert code == 0
    assert len(good.requests) + len(bad.requests) == generated
    assert [
        (one["tasks"]["rad_vqa"]["up"], one["tasks"]["rad_vqa"]["down"]) for one in changes["runs"]
    ] == [(0, n), (n, 0)]
    assert [(one["rank_before"], one["rank_after"]) for one in changes["runs"]] == [(1, 2), (2, 1)]
    assert changes["kendall_tau"] == -1.0
    assert "Kendall's tau -1.00" in table
    assert len([*runs[0].glob("judged/*")]) == 2


def test_completions_of_another_protocol_are_named_as_such(
    evaluate: Run, run: Run, serve: Serve
) -> None:
    answering, judging = serve(lambda _: "A"), serve(lambda _: YES)
    argv = [*candidate(answering), "--tasks", "medqa", "--protocol", "rules"]
    _, out, _ = evaluate(*argv)

    run("judge", json.loads(out)["run"], "--protocol", "medix-compat", *judge(judging), "--json")
    run("judge", json.loads(out)["run"], "--protocol", "medix", *judge(judging), "--json")

    judged = Path(json.loads(out)["run"]).parent
    names = Counter(
        json.loads(file.read_text())["protocol"]["name"] for file in judged.glob("*/judging.json")
    )
    assert names == {"rules": 1, "medix": 1, "medix-compat+other-generation": 1}


def test_restricted_completions_go_to_no_foreign_judge(
    evaluate: Run, run: Run, serve: Serve
) -> None:
    answering = serve(lambda _: "clear lungs")
    argv = [*candidate(answering), "--tasks", "mimic_cxr_report_generation", "--protocol", "rules"]
    _, out, _ = evaluate(*argv)
    foreign = ["--judge", "openai:j", "--judge-base-url", "http://192.0.2.1/v1"]

    code, _, err = run("judge", json.loads(out)["run"], *foreign)

    assert code == 2
    assert "restricted data may not be sent to 192.0.2.1" in err


def test_a_page_tells_why_each_command_sent_restricted_data_away(
    evaluate: Run, run: Run, serve: Serve
) -> None:
    answering, judging = serve(lambda _: "clear lungs"), serve(lambda _: '{"score": 3}')
    argv = [*candidate(answering), "--tasks", "mimic_cxr_report_generation", "--protocol", "rules"]
    _, out, _ = evaluate(*argv, "--allow-egress", "agreement 12")

    _, _, err = run(
        "judge", json.loads(out)["run"], *judge(judging), "--allow-egress", "agreement 34"
    )

    page = Path(err.strip().rpartition("report: ")[2])
    text = page.read_text()
    assert page.name == "report.html"
    assert "was sent to another host because</dt><dd>agreement 12<" in text
    assert "was sent to a judge on another host because</dt><dd>agreement 34<" in text


def test_a_moved_run_is_judged_where_it_lies(
    evaluate: Run, run: Run, serve: Serve, tmp_path: Path
) -> None:
    answering = serve(lambda _: "A")
    _, out, _ = evaluate(*candidate(answering), "--tasks", "medqa", "--protocol", "rules")
    moved = Path(json.loads(out)["run"]).parent.parent.rename(tmp_path / "moved")
    asked = len(answering.requests)

    code, out, _ = run("judge", moved, "--protocol", "rules", "--json")

    assert code == 0
    assert json.loads(out)["runs"][0]["run"].startswith(str(moved))
    assert len(answering.requests) == asked


def test_a_mean_of_some_of_the_samples_is_marked_and_failures_are_counted(
    evaluate: Run, run: Run, serve: Serve
) -> None:
    answering, judging = serve(lambda _: "Perhaps."), serve(lambda _: "I had rather not say.")
    argv = [*candidate(answering), "--tasks", "medqa", "--protocol", "rules"]
    _, out, _ = evaluate(*argv)
    scores = json.loads(out)
    n, judged = scores["tasks"]["medqa"]["n"], Path(scores["run"])

    code, table, _ = run("judge", judged, *ONE_VOTE, *judge(judging))
    twice, _, err = run("judge", judged, judged.parent.parent, "--protocol", "rules")

    assert code == 1
    assert f"failed samples: {n}; run the same command to retry" in table
    assert scores["tasks"]["medqa"]["n_scored"] == 0
    assert "† the mean of some of the samples" in table
    assert twice == 2
    assert "is named twice" in err


def test_a_judge_prompt_with_a_misspelt_name_stops_before_anything_is_sent(
    evaluate: Run, serve: Serve, tmp_path: Path
) -> None:
    prompt = tmp_path / "mine.jinja"
    prompt.write_text("{{ questoin }} {{ answer }}")
    answering, judging = serve(lambda _: "A"), serve(lambda _: YES)
    argv = [*candidate(answering), *judge(judging), "--tasks", "medqa"]

    code, _, err = evaluate(
        *argv, "--protocol", "medix-compat", "--set", f"judge.prompt_file={prompt}"
    )

    assert code == 2
    assert "'questoin' is undefined" in err
    assert answering.requests == []


def test_a_judge_that_nobody_can_read_stops_the_stage(
    evaluate: Run, serve: Serve, run: Run, tmp_path: Path
) -> None:
    """Its words are shown, and running the same command again is not the advice."""
    answering, judging = serve(lambda _: "no idea"), serve(lambda _: "As an AI, I\nrefrain.")
    argv = [*candidate(answering), *judge(judging), "--judge-concurrency", "1"]

    code, out, err = evaluate(*argv, "--tasks", "medqa,rad_vqa")

    assert (code, out) == (4, "")
    assert "judge openai:scripted: of its first 16 votes none can be read" in err
    assert err.count("'As an AI, I refrain.'") == 2
    assert "judge.sampling.max_tokens" in err.splitlines()[-1]
    assert "judge-check" in err.splitlines()[-1]
    assert "same command" not in err
    assert len(judging.requests) < 64
    (folder,) = {path.parent for path in tmp_path.rglob("run.json")}
    code, out, err = run("judge", folder, *judge(judging))
    assert (code, out) == (4, "")
    assert "none can be read" in err
    asked = len(answering.requests)
    code, _, _ = evaluate(
        *candidate(answering), *judge(serve(lambda _: NO)), "--tasks", "medqa,rad_vqa"
    )
    assert code == 0
    assert asked > 0
    assert len(answering.requests) == len(records(folder, "completions.jsonl"))


def test_one_readable_vote_lets_a_judge_go_on(evaluate: Run, serve: Serve) -> None:
    asked: list[int] = []

    def once(body: dict[str, Any]) -> str:
        asked.append(1)
        return NO if len(asked) <= 2 else "hm"

    argv = [*candidate(serve(lambda _: "no idea")), *judge(serve(once))]

    code, out, _ = evaluate(*argv, "--judge-concurrency", "1", "--tasks", "medqa,rad_vqa")

    assert code == 1
    assert len(asked) > 2 * 16
    assert json.loads(out)["tasks"]["medqa"]["outcomes"]["judge_failed"] > 1


def test_a_judge_whose_server_fails_is_no_judge_that_cannot_be_read(
    evaluate: Run, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medix_eval.models.requests._FIRST_WAIT_S", 0.0001)
    argv = [*candidate(serve(lambda _: "no idea")), *judge(serve(lambda _: Reply(status=503)))]

    code, _, err = evaluate(*argv, "--tasks", "medqa,rad_vqa")

    assert code == 1
    assert "can be read" not in err


def test_of_restricted_answers_no_word_is_shown(evaluate: Run, serve: Serve) -> None:
    argv = [*candidate(serve(lambda _: "no idea")), *judge(serve(lambda _: "Jane Doe is well"))]

    code, _, err = evaluate(*argv, "--tasks", "mimic_cxr_report_generation", *ONE_VOTE[2:])

    assert code == 4
    assert "none can be read" in err
    assert "Jane" not in err


def test_a_judge_that_was_read_before_may_fail_on_all_that_is_left(
    evaluate: Run, serve: Serve
) -> None:
    """Else the same command could never come to its end."""
    odd = {"aspirin"}
    names = iter(["warfarin", "warfarin", *["aspirin"] * 8])
    answering = serve(lambda _: next(names, "aspirin"))
    judging = serve(
        lambda body: "hm" if odd & {*prompt_text(body).lower().split()} else '{"score": 1}'
    )
    argv = [*candidate(answering), *judge(judging), "--tasks", "medqa", "--concurrency", "1"]
    first, out, _ = evaluate(*argv)
    again, out_again, err = evaluate(*argv)

    assert (first, again) == (1, 1), err
    assert json.loads(out)["tasks"]["medqa"]["outcomes"]["judge_failed"] == 8
    assert json.loads(out_again)["tasks"]["medqa"]["outcomes"]["judge_failed"] == 8


def test_another_name_for_a_protocol_takes_no_board_away(run: Run, tmp_path: Path) -> None:
    argv = ["--model", "phantom", "--tasks", "phantom_closed", "--limit", "4", "--protocol"]
    run(*argv, "rules", "--out", tmp_path / "out")
    (folder,) = (tmp_path / "out").glob("*/*/run.json")
    code, out, _ = run("judge", folder.parent, "--protocol", "rules", "--set", "name=mine")

    (file,) = folder.parent.glob("judged/*/judging.json")
    assert code == 0, out
    assert json.loads(file.read_text())["protocol"]["name"] == "rules"
