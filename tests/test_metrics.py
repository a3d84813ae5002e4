"""A metric from another distribution shows wherever scores do, and can spoil none of them."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from frozen import V0_1
from scripted_servers import Run

Installed = Callable[..., None]
COUNTS = """
from medix_eval.results.scores import MetricValue

def share(samples):
    said = [sample.completion.completion for sample in samples if sample.verdict.score is not None]
    return MetricValue(value=len(said) / len(samples), label="answers given", percent=True)

def number(samples):
    return len(samples)
"""


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    (run,) = V0_1.glob("runs/rules/*/*/run.json")
    return Path(shutil.copytree(run.parent, tmp_path / "run"))


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installed:
    """Lay a distribution with metrics on the path, as installing one would."""

    def install(code: str, *names: str) -> None:
        place = tmp_path / "site-packages"
        about = place / "added_metrics-1.0.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: added-metrics\nVersion: 1.0")
        points = "\n".join(f"{name} = added_metrics_{tmp_path.name}:{name}" for name in names)
        (about / "entry_points.txt").write_text(f"[medix_eval.metrics]\n{points}\n")
        (place / f"added_metrics_{tmp_path.name}.py").write_text(code)
        monkeypatch.syspath_prepend(place)

    return install


def test_a_metric_from_outside_shows_in_every_file_and_table(
    run: Run, saved: Path, installed: Installed
) -> None:
    installed(COUNTS, "share", "number")

    code, table, err = run("score", saved)

    (judged,) = (saved / "judged").iterdir()
    tasks = json.loads((judged / "scores.json").read_text())["tasks"]
    lines = list(csv.DictReader((judged / "scores.csv").read_text().splitlines()))
    assert (code, "WARNING" in err) == (0, False)
    for name, task in tasks.items():
        n = task["n_scored"]
        share = {"value": 1.0, "label": "answers given", "percent": True}
        assert task["metrics"] == {"share": share, "number": float(n)}
        said = f"{name}: answers given 100.0 %, number {n}."
        assert said in table
        assert said in (judged / "report.md").read_text()
        assert said in (judged / "report.html").read_text()
        (line,) = (line for line in lines if line["task"] == name)
        assert (line["metric_share"], line["metric_number"]) == ("1.0", str(float(n)))


@pytest.mark.parametrize(
    "failing",
    [
        pytest.param(("return samples[10**6]", "IndexError: list index out of range"), id="raises"),
        pytest.param(("return float('nan')", "nan is not a number"), id="not-a-number"),
        pytest.param(("return 'many'", "'many' is not a number"), id="text"),
        pytest.param(("return True", "True is not a number"), id="yes"),
        pytest.param(("return 10**400", "OverflowError: int too large"), id="too-large"),
        pytest.param(("import no_such_module", "ModuleNotFoundError: No module"), id="import"),
    ],
)
def test_a_metric_that_fails_is_null_and_a_line_that_names_it(
    run: Run,
    saved: Path,
    installed: Installed,
    caplog: pytest.LogCaptureFixture,
    failing: tuple[str, str],
) -> None:
    body, said = failing
    (judged,) = (saved / "judged").iterdir()
    before = json.loads((judged / "scores.json").read_text())["tasks"]
    installed(f"def odd(samples):\n    {body}\n", "odd")

    code, table, _ = run("score", saved)

    after = json.loads((judged / "scores.json").read_text())["tasks"]
    warned = [one for one in caplog.messages if "judged by version" not in one]
    assert code == 0
    assert [one.pop("metrics") for one in after.values()] == [{"odd": None}] * len(after)
    assert {name: one["score"] for name, one in after.items()} == {
        name: one["score"] for name, one in before.items()
    }
    assert [line.partition(said)[0] for line in warned] == [
        f"metric odd on {name}: " for name in after
    ]
    assert "odd not measured" in table


def test_without_a_metric_the_scores_hold_no_word_of_any(run: Run, saved: Path) -> None:
    run("score", saved)

    (judged,) = (saved / "judged").iterdir()
    assert '"metrics"' not in (judged / "scores.json").read_text()
    assert "metric_" not in (judged / "scores.csv").read_text()


def test_a_submission_with_metrics_is_accepted_and_says_that_nobody_checked_them(
    run: Run, saved: Path, installed: Installed, tmp_path: Path
) -> None:
    installed(COUNTS, "share", "number")
    run("judge", saved, "--protocol", "rules")  # by the judging code of this version
    _, zipped, err = run("submit", saved, "--out", tmp_path, "--allow-synthetic")
    code, out, _ = run("submit", zipped.strip(), "--check", "--allow-synthetic", "--json")

    assert code == 0, err
    assert "metrics of plug-ins: their code is not in a submission" in json.loads(out)["unchecked"]
