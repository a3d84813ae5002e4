"""Runs leave as zips and come back, and nobody can bend one without being seen."""

from __future__ import annotations

import json
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scripted_run import HUB, scripted_run

from medix_eval.testing import ScriptedServer

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, ScriptedServer]]:
    """A run of three tasks (one restricted) with a judge, whose server still answers."""
    with scripted_run(tmp_path_factory.mktemp("runs")) as (run, judge):
        yield run, judge


@pytest.fixture
def submission(finished: tuple[Path, ScriptedServer], run: Run, tmp_path: Path) -> Path:
    code, out, err = run("submit", finished[0], "--out", tmp_path, "--allow-synthetic")

    assert code == 0, err
    return Path(out.strip())


def checked(run: Run, zipped: Path, *argv: str) -> tuple[int, dict[str, list[str]]]:
    known = ("--check", "--allow-synthetic", "--data-root", str(HUB), "--json")
    code, out, err = run("submit", zipped, *known, *argv)
    return code, json.loads(out) if out else {"problems": [err]}


def test_an_honest_submission_is_accepted(run: Run, submission: Path) -> None:
    code, found = checked(run, submission)

    assert (code, found["problems"]) == (0, [])
    assert {"files and checksums", "scores from verdicts", "verdicts from raw replies"} <= {
        *found["done"]
    }
    assert {"medqa against its data", "rad_vqa against its data"} <= {*found["done"]}


def test_a_submission_holds_no_restricted_text_and_no_machine(
    run: Run, submission: Path, finished: tuple[Path, ScriptedServer]
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
    run: Run, submission: Path, finished: tuple[Path, ScriptedServer], tmp_path: Path
) -> None:
    _, out, _ = run("submit", finished[0], "--out", tmp_path / "again", "--allow-synthetic")

    assert Path(out.strip()).read_bytes() == submission.read_bytes()


def test_a_signature_holds_for_its_signer_alone(
    run: Run, finished: tuple[Path, ScriptedServer], tmp_path: Path
) -> None:
    allowed = {}
    for name in ("ours", "other"):
        key = tmp_path / name
        keygen = [shutil.which("ssh-keygen") or "", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
        subprocess.run(keygen, check=True)
        allowed[name] = tmp_path / f"{name}.allowed"
        allowed[name].write_text(f"{name}@example.org {key.with_suffix('.pub').read_text()}")
    argv = ("--allow-synthetic", "--sign", str(tmp_path / "ours"), "--out", str(tmp_path))
    _, out, _ = run("submit", finished[0], *argv)

    good, _ = checked(run, Path(out.strip()), "--allowed-signers", str(allowed["ours"]))
    bad, _ = checked(run, Path(out.strip()), "--allowed-signers", str(allowed["other"]))

    assert (good, bad) == (0, 5)


def test_synthetic_runs_are_refused_unless_allowed(
    run: Run, finished: tuple[Path, ScriptedServer], submission: Path, tmp_path: Path
) -> None:
    written, _, err = run("submit", finished[0], "--out", tmp_path / "x")
    accepted, _, _ = run("submit", submission, "--check", "--data-root", HUB)

    assert (written, accepted) == (2, 5)
    assert "--allow-synthetic" in err


def test_the_official_layout_comes_back_with_the_same_scores(
    run: Run, finished: tuple[Path, ScriptedServer], tmp_path: Path
) -> None:
    argv = ("--official", "--allow-synthetic", "--out", tmp_path)
    _, zipped, _ = run("submit", finished[0], *argv)

    code, out, err = run("import", zipped.strip(), "--out", tmp_path / "in", "--json")

    (scores,) = finished[0].glob("judged/*/scores.json")
    ours, theirs = json.loads(scores.read_text())["tasks"], json.loads(out)["tasks"]
    assert code == 0, err
    assert {*theirs} == {"medqa", "rad_vqa"}
    assert all(theirs[name]["score"] == ours[name]["score"] for name in theirs)
    assert json.loads(out)["synthetic"]


def test_what_we_export_for_lm_eval_comes_back(
    run: Run, finished: tuple[Path, ScriptedServer], tmp_path: Path
) -> None:
    run("export", finished[0], "--format", "lm-eval", "--out", tmp_path / "lm")
    (folder,) = {path.parent for path in (tmp_path / "lm").rglob("results_*.json")}

    code, out, err = run("import", folder, "--out", tmp_path / "in", "--json")

    (scores,) = finished[0].glob("judged/*/scores.json")
    ours = json.loads(scores.read_text())["tasks"]
    assert code == 0, err
    assert json.loads(out)["tasks"]["medqa"]["score"] == ours["medqa"]["score"]
