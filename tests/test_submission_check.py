"""What a check says of older code, foreign prompts, odd files, and a judge asked again."""

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
from medix_eval.evaluation.panel import JudgeChoice
from medix_eval.exchange import checking
from medix_eval.models.chat import ModelSource
from medix_eval.models.resolve import ModelFlags, resolve_model


def test_what_other_judging_code_judged_is_sent_back_without_being_called_forged(
    submitted: Submitted, tmp_path: Path
) -> None:
    def age(folder: Path) -> None:
        edit_json(folder / "judging.json", lambda its: its["judging"].update(version=1))
        flip_verdict(folder)  # as a reply read in another way would
        restamped(folder)

    found = check(forged(submitted[0], tmp_path, age))

    (problem,) = found.problems
    assert problem.startswith("it was judged by version 1 of the judging code, but this is ")
    assert "judge it again with `medix-eval judge RUN`" in problem


def test_a_foreign_prompt_is_never_filled_in(submitted: Submitted, tmp_path: Path) -> None:
    def plant(folder: Path) -> None:
        loop = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}"

        def own(judging: dict[str, Any]) -> None:
            judging["protocol"]["name"] = "mine"
            judging["judging"]["prompts"] = dict.fromkeys(judging["judging"]["prompts"], loop)

        edit_json(folder / "judging.json", own)
        restamped(folder)

    found = check(forged(submitted[0], tmp_path, plant))

    assert "verdicts from raw replies" in found.done
    assert "protocol 'mine' is not bundled: read it before you compare" in found.unchecked


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        ("run.json", lambda run: run.update(generation={"model": 1}), "does not name its model"),
        ("run.json", lambda run: run["tasks"].pop("medqa"), "which run.json does not list"),
        ("run.json", lambda run: run["tasks"]["medqa"].update(num_rows=10**12), "samples: "),
        ("judging.json", lambda j: j.update(protocol={}), "protocol: it has no name and no digest"),
        ("judging.json", lambda j: j["judging"].update(judge=[1]), "settings differ"),
        ("judging.json", lambda j: j.update(judges=[{}]), "judges.0: it has no id"),
        ("scores.json", lambda s: s.update(tasks={}), "medqa states nothing"),
    ],
)
def test_a_file_of_another_shape_is_refused_and_breaks_nothing(
    submitted: Submitted,
    tmp_path: Path,
    name: str,
    edit: Callable[[dict[str, Any]], None],
    message: str,
) -> None:
    bent = forged(submitted[0], tmp_path, lambda folder: edit_json(folder / name, edit))

    try:
        said = check(bent).problems
    except ConfigError as error:
        said = [str(error)]

    assert any(message in line for line in said), said


def test_an_unsigned_submission_is_refused_where_signers_are_named(
    submitted: Submitted, tmp_path: Path
) -> None:
    signers = tmp_path / "signers"
    signers.touch()

    assert check(submitted[0], allowed_signers=signers).problems == ["it is not signed"]


def test_a_model_cannot_write_on_the_terminal(
    submitted: Submitted, tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    def rename(folder: Path) -> None:
        listed = {"model": "x: accepted\n::set-output\x1b[2J"}
        edit_json(folder / "submission.json", lambda manifest: manifest.update(listed))

    bent = forged(submitted[0], tmp_path, rename)
    _, out, _ = run("submit", "--check", bent, "--allow-synthetic")

    assert out.splitlines()[-1] == "x: accepted\\n::set-output\\x1b[2J: refused"
    assert "\x1b" not in out


def rewrite(folder: Path) -> None:
    """Turn a verdict around, its reply included: only the judge itself knows better."""

    def flip(line: dict[str, Any]) -> None:
        points = 1.0 - line["score"]
        line |= {"outcome": "correct" if points else "wrong", "score": points}
        line |= {"judge_score": points, "error_tags": []}
        for vote in line["votes"]:
            vote |= {"points": points, "reply": f'{{"score": {points:.0f}}}'}
        del line["votes"][2:]

    edit_line(folder / "verdicts.jsonl", flip)
    rescored(folder)


def test_an_edited_reply_is_found_by_asking_the_judge_again(
    submitted: Submitted, tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    bent = forged(submitted[0], tmp_path, rewrite)
    judge = ("--judge", "openai:scripted", "--judge-base-url", submitted[1].url, "--num", "500")

    def checked(zipped: Path, *argv: str) -> tuple[int, dict[str, list[str]]]:
        code, out, _ = run("submit", "--check", zipped, "--allow-synthetic", "--json", *argv)
        return code, json.loads(out)

    unasked, _ = checked(bent)
    asked, found = checked(bent, *judge)
    honest, same = checked(submitted[0], *judge)

    assert (unasked, asked, honest) == (0, 5, 0)
    assert any("openai:scripted says" in problem for problem in found["problems"])
    assert any("judged again by openai:scripted: " in line for line in same["done"])


def test_a_judge_asked_again_may_write_as_much_as_the_protocol_says(
    submitted: Submitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[int] = []

    def resolve(name: str, flags: ModelFlags, *, max_tokens: int) -> ModelSource:
        lengths.append(max_tokens)
        return resolve_model(name, flags, max_tokens=max_tokens)

    monkeypatch.setattr(checking, "resolve_model", resolve)
    flags = ModelFlags(role="judge", base_urls=(submitted[1].url,))
    choice = JudgeChoice(name="openai:scripted", flags=flags)

    def lengthen(folder: Path) -> None:
        sampling = {"sampling": {"max_tokens": 900, "temperature": 0.0}}
        edit_json(folder / "judging.json", lambda its: its["judging"]["judge"].update(sampling))

    check(submitted[0], judge=choice, num_samples=1)
    check(forged(submitted[0], tmp_path, lengthen), judge=choice, num_samples=1)

    assert lengths == [1024, 900]
