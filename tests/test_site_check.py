"""Runs whose figures were edited: refused by the site, named by its check."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from invented_boards import VQA, measured, right
from invented_runs import InventedRuns

from medix_eval.data.tasks import Catalogue
from medix_eval.errors import ConfigError
from medix_eval.site.build import problems_of


@pytest.mark.parametrize("what", ["slake_vqa", "medvqa"])
def test_an_edited_score_is_refused(runs: InventedRuns, catalogue: Catalogue, what: str) -> None:
    path = runs.make("a", right(0.5), groups={} if what in VQA else {"medvqa": VQA})
    (file,) = path.glob("judged/*/scores.json")
    scores = json.loads(file.read_text())
    (scores["tasks"] if what in VQA else scores["groups"])[what]["score"] = 0.99
    file.write_text(json.dumps(scores))

    with pytest.raises(ConfigError, match=what):
        measured([path], catalogue)


def test_check_names_every_edited_figure(runs: InventedRuns, catalogue: Catalogue) -> None:
    path = runs.make("a", right(0.5))
    (file,) = path.glob("judged/*/scores.json")
    scores = json.loads(file.read_text())
    scores["tasks"]["rad_vqa"]["n_scored"] = 41
    file.write_text(json.dumps(scores))

    problems = problems_of([path], catalogue=catalogue, facts={}, allow_synthetic=False)

    assert len(problems) == 1
    assert "rad_vqa: n_scored is 41, its verdicts give 40" in problems[0]


def test_check_exits_with_5_where_a_run_should_not_be_shown(
    runs: InventedRuns, run: Callable[..., tuple[int, str, str]]
) -> None:
    good = runs.make("a", right(0.5))
    bad = runs.make("b", right(0.5), synthetic=True)

    refused, out, _ = run("leaderboard", good, bad, "--check")
    passed, _, _ = run("leaderboard", good, "--check")

    assert (refused, passed) == (5, 0)
    assert "synthetic data" in out


@pytest.mark.parametrize(
    ("place", "line"),
    [
        pytest.param(("tasks", "rad_vqa", "interval", 0), "rad_vqa: interval.0 is 0.9", id="task"),
        pytest.param(
            ("groups", "medvqa", "interval", 1), "medvqa: interval.1 is 0.9", id="average"
        ),
        pytest.param(
            ("tasks", "slake_vqa", "slices", "answer_type", "A", "score"),
            "slake_vqa: slices.answer_type.A.score is 0.9",
            id="slice",
        ),
    ],
)
def test_check_compares_intervals_and_slices_too(
    runs: InventedRuns, catalogue: Catalogue, place: tuple[str | int, ...], line: str
) -> None:
    path = runs.make("a", right(0.5))
    (file,) = path.glob("judged/*/scores.json")
    scores = json.loads(file.read_text())
    inner = scores
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = 0.9
    file.write_text(json.dumps(scores))

    problems = problems_of([path], catalogue=catalogue, facts={}, allow_synthetic=False)

    assert len(problems) == 1
    assert line in problems[0]
