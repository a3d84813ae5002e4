"""What version 0.1 wrote is read, scored, judged again and ranked by this version."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from frozen import V0_1, hashes
from scripted_run import says
from scripted_servers import Run, Serve, judge, records

from medix_eval.judging.cache import VerdictCache
from medix_eval.judging.protocol import JUDGING_VERSION
from medix_eval.records import VerdictRecord
from medix_eval.results.comparison import mismatches_of
from medix_eval.results.store import read_run

FROZEN = Path(__file__).parent / "oracles" / "frozen.py"
RUNS = sorted(path.parent.relative_to(V0_1) for path in V0_1.glob("runs/*/*/*/run.json"))
JUDGED = [run for run in RUNS if run.parts[1] in {"medix", "compat", "rules"}]
SAVED = 4
"""The version of the judging code that the saved runs carry."""
Copied = Callable[[Path], Path]


@pytest.fixture
def copied(tmp_path: Path) -> Copied:
    """Copy a saved run, so that a test may write to it."""

    def copy(run: Path) -> Path:
        source = V0_1 / run.parts[0] / run.parts[1]
        shutil.copytree(source, tmp_path / run.parts[1], dirs_exist_ok=True)
        return tmp_path.joinpath(*run.parts[1:])

    return copy


def test_what_users_see_is_what_is_frozen(tmp_path: Path) -> None:
    """A changed line is a changed promise: freeze it anew only together with its reason."""
    frozen = json.loads((V0_1 / "frozen.json").read_text(encoding="utf-8"))
    # In a process of its own: typer reads the terminal's width once.
    subprocess.run([sys.executable, FROZEN, tmp_path], check=True)
    found = hashes(tmp_path)

    assert {name for name in {*found, *frozen} if found.get(name) != frozen.get(name)} == set()


def test_every_saved_kind_of_run_is_there() -> None:
    kinds = {run.parts[1] for run in RUNS}

    assert kinds == {"medix", "rules", "compat", "control", "repeat", "restricted"}


@pytest.mark.parametrize("saved", RUNS, ids=str)
def test_a_saved_run_is_read_with_every_sample(saved: Path) -> None:
    found = read_run(V0_1 / saved)
    samples = list(found.samples())

    assert len(samples) == sum(task.n for task in found.scores.tasks.values()) > 0


@pytest.mark.parametrize("saved", RUNS, ids=str)
def test_a_saved_run_scores_as_it_did(saved: Path, run: Run, copied: Copied) -> None:
    before = read_run(V0_1 / saved).scores
    _, out, err = run("score", copied(saved), "--json")
    after = json.loads(out)

    assert {n: (t["n"], t["score"], t["outcomes"]) for n, t in after["tasks"].items()} == {
        n: (t.n, t.score, t.outcomes) for n, t in before.tasks.items()
    }
    assert "Traceback" not in err


@pytest.mark.parametrize("saved", JUDGED, ids=str)
def test_a_saved_run_is_judged_again(saved: Path, run: Run, serve: Serve, copied: Copied) -> None:
    folder = copied(saved)
    server = serve(says)
    code, out, err = run("judge", folder, *judge(server), "--json")
    (changed,) = json.loads(out)["runs"]

    assert code in {0, 1}, err
    assert changed["judged_after"].endswith("by openai:scripted")
    judged = records(changed["run"], "verdicts.jsonl")
    assert len(judged) == len(records(V0_1 / saved, "completions.jsonl"))


@pytest.mark.parametrize("saved", JUDGED, ids=str)
def test_a_saved_judging_and_a_new_one_differ_in_the_judging_code_and_how_refusals_are_found(
    saved: Path, run: Run, serve: Serve, copied: Copied
) -> None:
    folder = copied(saved)
    old = read_run(folder)
    argv = [] if saved.parts[1] == "rules" else judge(serve(says))
    _, out, err = run("judge", folder, *argv, "--protocol", old.judging.protocol["name"], "--json")
    new = read_run(Path(json.loads(out)["runs"][0]["run"]))

    assert not err.startswith("error"), err
    assert new.judging.protocol == new.protocol
    assert new.protocol["name"] == old.protocol["name"]
    assert new.protocol["digest"] != old.protocol["digest"]
    assert new.judged != old.judged
    found = [one for one in mismatches_of(old, new) if "judges" not in one]
    assert found[-1] == f"judging.version: {SAVED}, now {JUDGING_VERSION}"
    # Refusals are found by sentence since 0.3, prompts quote one statement: not as published.
    keys = {one.partition(":")[0] for one in found[:-1]}
    lists = {"judging.answer.courtesies", "judging.answer.refusals"}
    prompts = {f"judging.prompts.{kind}_{n}" for kind in ("question", "report") for n in (1, 2, 3)}
    rubrics = {
        f"judge.{kind}.{key}" for kind in ("question", "report") for key in ("crossed", "reply")
    }
    judging = {
        f"judging.{key}" for key in (*rubrics, "judge.thinking", "judge.sampling.max_tokens")
    }
    medix = lists | prompts | judging | {"judging.harm"}
    assert keys == {"compat": set(), "rules": lists, "medix": medix}[saved.parts[1]]


def test_the_changelog_tells_every_score_as_it_was_and_is(
    repository: Path, run: Run, copied: Copied
) -> None:
    """Its first column is of 0.1, its last of this version."""
    text = (repository / "CHANGELOG.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| `(\w+/\w+)` \| (\w+) \| (\d+) \| (.+) \|$", text, re.MULTILINE)
    was = {(r, task, n): cells.split(" | ")[0] for r, task, n, cells in told}
    now = {(r, task, n): cells.split(" | ")[-1] for r, task, n, cells in told}

    saved = {f"{one.parts[1]}/{one.parts[-1]}": read_run(V0_1 / one).scores for one in RUNS}
    assert was == scores_of({key: scores.model_dump() for key, scores in saved.items()})
    judged = {path: json.loads(run("score", path, "--json")[1]) for path in map(copied, RUNS)}
    assert now == scores_of({f"{p.parts[-3]}/{p.name}": told for p, told in judged.items()})


def scores_of(runs: dict[str, dict[str, Any]]) -> dict[tuple[str, str, str], str]:
    return {
        (key, name, str(task["n"])): f"{task['score']:.4f} ({task['n_scored']})"
        for key, scores in runs.items()
        for name, task in scores["tasks"].items()
    }


def test_saved_runs_are_ranked(run: Run, tmp_path: Path) -> None:
    ranked = [V0_1 / "runs" / name for name in ("medix", "rules", "compat", "repeat")]
    code, out, err = run("leaderboard", *ranked, "--allow-synthetic", "--out", tmp_path / "site")

    assert code == 0, err
    assert out.count("1 model,") == 4


@pytest.mark.parametrize(
    "argv",
    [
        ("score", "RUN"),
        ("compare", "RUN", "OTHER"),
        ("report", "RUN", "OTHER", "--images", "none", "--out", "page.html"),
        ("export", "RUN", "OTHER"),
        ("leaderboard", "RUN", "OTHER", "--allow-synthetic", "--out", "site"),
    ],
    ids=lambda argv: argv[0],
)
def test_a_run_of_other_judging_code_is_named_in_one_line_and_used_all_the_same(
    argv: tuple[str, ...],
    run: Run,
    copied: Copied,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (saved,) = (one for one in RUNS if one.parts[1] == "medix")
    first = copied(saved)
    second = shutil.copytree(first, tmp_path / "copy" / saved.name)
    places = {"RUN": first, "OTHER": second, **{n: tmp_path / n for n in ("page.html", "site")}}
    argv = tuple(str(places.get(one, one)) for one in argv)
    code, *_ = run(*argv)
    (said,) = [one for one in caplog.messages if "judged by version" in one]
    for folder in (first, second):
        (file,) = folder.glob("judged/*/judging.json")
        kept = json.loads(file.read_text(encoding="utf-8"))
        kept["judging"]["version"] = JUDGING_VERSION
        file.write_text(json.dumps(kept), encoding="utf-8")
    caplog.clear()

    code_now, *_ = run(*argv)

    assert said.endswith(f"judged by version {SAVED}: run `medix-eval judge RUN`")
    assert said.startswith("2 runs, such as " if str(second) in argv else f"{first}")
    assert [one for one in caplog.messages if "judged by version" in one] == []
    assert code_now == code


def test_of_a_saved_submission_only_the_judging_code_is_wrong(run: Run, repository: Path) -> None:
    hub = repository / "tests" / "fixtures" / "hub"
    code, out, err = run(
        "submit", V0_1 / "submission.zip", "--check", "--allow-synthetic", "--data-root", hub
    )

    wrong = [line for line in out.splitlines() if line.startswith("WRONG")]
    assert (code, len(wrong)) == (5, 1), err
    assert f"judged by version {SAVED} of the judging code" in wrong[0]
    assert "`medix-eval judge RUN`" in wrong[0]


def test_a_saved_verdict_cache_knows_its_votes(tmp_path: Path) -> None:
    (saved,) = (one for one in RUNS if one.parts[1] == "medix")
    lines = [VerdictRecord.model_validate(line) for line in records(V0_1 / saved, "verdicts.jsonl")]
    kept = {v.key: v.points for one in lines for v in one.votes if v.points is not None}
    shutil.copy(V0_1 / "verdicts.sqlite", tmp_path)

    with VerdictCache.at(tmp_path / "verdicts.sqlite") as cache:
        found = {key: cache.find(key) for key in kept}

    assert kept
    assert {key: hit and hit["points"] for key, hit in found.items()} == kept
    assert not any(hit and hit["is_refusal"] for hit in found.values())
