"""Runs leave as zips and come back, and nobody can bend one without being seen."""

from __future__ import annotations

import json
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import published_scoring
import pytest
from scripted_run import HUB, scripted_run

from medix_eval.cli import main
from medix_eval.testing import ScriptedServer

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    def called(*argv: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stopped:
            main([*map(str, argv)])
        out, err = capsys.readouterr()
        code = stopped.value.code
        return (code if isinstance(code, int) else 0), out, err

    return called


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, ScriptedServer]]:
    """A run of three tasks (one restricted) with a judge, whose server still answers."""
    with scripted_run(tmp_path_factory.mktemp("runs")) as (run, judge):
        yield run, judge


@pytest.fixture
def submission(finished: tuple[Path, ScriptedServer], call: Call, tmp_path: Path) -> Path:
    code, out, err = call("submit", finished[0], "--out", tmp_path, "--allow-synthetic")

    assert code == 0, err
    return Path(out.strip())


def checked(call: Call, zipped: Path, *argv: str) -> tuple[int, dict[str, list[str]]]:
    known = ("--check", "--allow-synthetic", "--data-root", str(HUB), "--json")
    code, out, err = call("submit", zipped, *known, *argv)
    return code, json.loads(out) if out else {"problems": [err]}


def test_an_honest_submission_is_accepted(call: Call, submission: Path) -> None:
    code, found = checked(call, submission)

    assert (code, found["problems"]) == (0, [])
    assert {"files and checksums", "scores from verdicts", "verdicts from raw replies"} <= {
        *found["done"]
    }
    assert {"medqa against its data", "rad_vqa against its data"} <= {*found["done"]}


def test_a_submission_holds_no_restricted_text_and_no_machine(
    call: Call, submission: Path, finished: tuple[Path, ScriptedServer]
) -> None:
    lines = (finished[0] / "completions.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    secret = [r for r in records if r["task"].startswith("mimic")]

    with zipfile.ZipFile(submission) as archive:
        content = b"".join(archive.read(name) for name in archive.namelist()).decode()

    assert secret
    assert not [r for r in secret if r["prompt"] in content or r["reference"] in content]
    assert str(finished[0].parent) not in content


def test_the_same_run_gives_the_same_zip(
    call: Call, submission: Path, finished: tuple[Path, ScriptedServer], tmp_path: Path
) -> None:
    _, out, _ = call("submit", finished[0], "--out", tmp_path / "again", "--allow-synthetic")

    assert Path(out.strip()).read_bytes() == submission.read_bytes()


def test_a_signature_holds_for_its_signer_alone(
    call: Call, finished: tuple[Path, ScriptedServer], tmp_path: Path
) -> None:
    allowed = {}
    for name in ("ours", "other"):
        key = tmp_path / name
        keygen = [shutil.which("ssh-keygen") or "", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
        subprocess.run(keygen, check=True)
        allowed[name] = tmp_path / f"{name}.allowed"
        allowed[name].write_text(f"{name}@example.org {key.with_suffix('.pub').read_text()}")
    argv = ("--allow-synthetic", "--sign", str(tmp_path / "ours"), "--out", str(tmp_path))
    _, out, _ = call("submit", finished[0], *argv)

    good, _ = checked(call, Path(out.strip()), "--allowed-signers", str(allowed["ours"]))
    bad, _ = checked(call, Path(out.strip()), "--allowed-signers", str(allowed["other"]))

    assert (good, bad) == (0, 5)


def test_synthetic_runs_are_refused_unless_allowed(
    call: Call, finished: tuple[Path, ScriptedServer], submission: Path, tmp_path: Path
) -> None:
    written, _, err = call("submit", finished[0], "--out", tmp_path / "x")
    accepted, _, _ = call("submit", submission, "--check", "--data-root", HUB)

    assert (written, accepted) == (2, 5)
    assert "--allow-synthetic" in err


def test_the_official_layout_comes_back_with_the_same_scores(
    call: Call, finished: tuple[Path, ScriptedServer], tmp_path: Path
) -> None:
    argv = ("--official", "--allow-synthetic", "--out", tmp_path)
    _, zipped, _ = call("submit", finished[0], *argv)

    code, out, err = call("import", zipped.strip(), "--out", tmp_path / "in", "--json")

    (scores,) = finished[0].glob("judged/*/scores.json")
    ours, theirs = json.loads(scores.read_text())["tasks"], json.loads(out)["tasks"]
    assert code == 0, err
    assert {*theirs} == {"medqa", "rad_vqa"}
    assert all(theirs[name]["score"] == ours[name]["score"] for name in theirs)
    assert json.loads(out)["synthetic"]


def official(folder: Path, points: dict[str, list[float]], *, claim: str = "") -> Path:
    folder.mkdir()
    with (folder / "m.jsonl").open("w") as said, (folder / "m_eval.jsonl").open("w") as judged:
        for task, scores in points.items():
            for row, score in enumerate(scores):
                line = {"id": f"{task}_{row}", "question": "q", "answer": "a", "response": "r"}
                said.write(json.dumps(line) + "\n")
                judged.write(json.dumps(line | {"evaluation": {"score": score}}) + "\n")
    (folder / "m_score.txt").write_text(claim)
    return folder


def test_an_imported_average_is_the_published_one(call: Call, tmp_path: Path) -> None:
    points: dict[str, list[float]] = {
        "medqa": [1, 0, 1, 1],
        "rad_vqa": [0, 1],
        "mimic_cxr_report_generation": [3.0, 4.666666666666667, 0.0],
    }
    lines = [(task, score) for task, scores in points.items() for score in scores]
    published = published_scoring.run_scores(lines, selected=[*points])
    overall = published_scoring.overall(published)
    claim = "".join(f"{task}: {score:.4f}\n" for task, score in published.items())
    folder = official(tmp_path / "m", points, claim=f"{claim}Overall: {100 * overall:.2f}\n")

    code, out, err = call("import", folder, "--out", tmp_path / "in", "--json")

    scores = {name: task["score"] for name, task in json.loads(out)["tasks"].items()}
    assert code == 0, err
    assert scores == pytest.approx(published)
    assert sum(scores.values()) / 3 == pytest.approx(overall)


def test_a_claim_that_the_samples_do_not_give_is_named(call: Call, tmp_path: Path) -> None:
    folder = official(tmp_path / "m", {"medqa": [1, 0]}, claim="medqa: 0.9\nOverall: 90.0\n")

    code, _, err = call("import", folder, "--out", tmp_path / "in")

    assert code == 5
    assert "medqa: 90.00 is stated, its samples give 50.00" in err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"evaluation": {"score": 7}}, "has the score 7"),
        ({"evaluation": {"score": "1"}}, "has the score '1'"),
        ({"evaluation": {}}, "has the score None"),
        ({"id": "medqa"}, "no id of the form TASK_ROW"),
        ({"id": "medqa_0"}, "judges medqa_0 again"),
        ({"id": "medqa_9"}, "judges an answer that is not there"),
        ({"response": "other"}, "judges another response"),
    ],
)
def test_a_defective_file_is_refused_with_its_line(
    call: Call, tmp_path: Path, line: dict[str, Any], message: str
) -> None:
    folder = official(tmp_path / "m", {"medqa": [1, 0]})
    path = folder / "m_eval.jsonl"
    lines = path.read_text().splitlines()
    path.write_text(f"{lines[0]}\n{json.dumps(json.loads(lines[1]) | line)}\n")

    code, _, err = call("import", folder, "--out", tmp_path / "in")

    assert code == 3
    assert "m_eval.jsonl, line 2" in err
    assert message in err
    assert not (tmp_path / "in").exists()


def test_what_we_export_for_lm_eval_comes_back(
    call: Call, finished: tuple[Path, ScriptedServer], tmp_path: Path
) -> None:
    call("export", finished[0], "--format", "lm-eval", "--out", tmp_path / "lm")
    (folder,) = {path.parent for path in (tmp_path / "lm").rglob("results_*.json")}

    code, out, err = call("import", folder, "--out", tmp_path / "in", "--json")

    (scores,) = finished[0].glob("judged/*/scores.json")
    ours = json.loads(scores.read_text())["tasks"]
    assert code == 0, err
    assert json.loads(out)["tasks"]["medqa"]["score"] == ours["medqa"]["score"]


def test_medevalkit_results_are_read_by_their_order(call: Call, tmp_path: Path) -> None:
    folder = tmp_path / "model-x" / "PATH_VQA"
    folder.mkdir(parents=True)
    rows = [
        {"question": "q", "answer": "yes", "response": "yes", "correct": True},
        {"question": "q", "answer": "no", "response": "yes", "correct": 0},
    ]
    (folder / "results.json").write_text(json.dumps(rows))
    (folder / "metrics.json").write_text(json.dumps({"total metrics": {"acc": 0.5}}))

    code, out, _ = call("import", folder.parent, "--out", tmp_path / "in", "--json")

    scores = json.loads(out)
    assert code == 0
    assert (scores["model"], scores["tasks"]["path_vqa"]["score"]) == ("model-x", 0.5)


def test_a_zip_that_reaches_outside_is_refused(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "evil.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../outside.txt", "x")

    code, _, err = call("import", path, "--out", tmp_path / "in")

    assert code == 2
    assert "outside" in err
    assert not (tmp_path.parent / "outside.txt").exists()
