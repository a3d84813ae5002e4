"""Runs leave as zips and come back, and nobody can bend one without being seen."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import published_scoring
import pytest

from medix_eval.cli import main
from medix_eval.testing import ScriptedServer, prompt_text

HUB = Path(__file__).parent / "fixtures" / "hub"
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


def says(body: dict[str, Any]) -> str:
    """A judge that finds every other answer right, by its question."""
    digit = int(
        hashlib.sha256(prompt_text(body).partition("=== answer")[0].encode()).hexdigest(), 16
    )
    return f'Looked at it. {{"score": {digit % 2}}}'


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, ScriptedServer]]:
    """A run of three tasks (one restricted) with a judge, whose server still answers."""
    out = tmp_path_factory.mktemp("runs")
    with ScriptedServer(lambda _: "It is the second one.") as model, ScriptedServer(says) as judge:
        with pytest.raises(SystemExit):
            main([
                *("--model", "openai:scripted", "--base-url", model.url),
                *("--judge", "openai:scripted", "--judge-base-url", judge.url),
                *("--tasks", "medqa,rad_vqa,mimic_cxr_report_summarization"),
                *("--data-root", str(HUB), "--out", str(out), "--no-cache"),
            ])  # fmt: skip
        (run,) = out.glob("*/*/run.json")
        yield run.parent, judge


@pytest.fixture
def submission(finished: tuple[Path, ScriptedServer], call: Call, tmp_path: Path) -> Path:
    code, out, err = call("submit", finished[0], "--out", tmp_path, "--allow-synthetic")

    assert code == 0, err
    return Path(out.strip())


def checked(call: Call, zipped: Path, *argv: str) -> tuple[int, dict[str, list[str]]]:
    known = ("--check", "--allow-synthetic", "--data-root", str(HUB), "--json")
    code, out, err = call("submit", zipped, *known, *argv)
    return code, json.loads(out) if out else {"problems": [err]}


def forged(zipped: Path, tmp_path: Path, edit: Callable[[Path], None]) -> Path:
    """Unpack, edit, compute every checksum anew as a forger would, and pack again."""
    folder = tmp_path / "forged"
    with zipfile.ZipFile(zipped) as archive:
        archive.extractall(folder)
    (inside,) = folder.iterdir()
    edit(inside)
    manifest = json.loads((inside / "submission.json").read_text())
    manifest["sha256"] = {
        name: hashlib.sha256((inside / name).read_bytes()).hexdigest()
        for name in manifest["sha256"]
    }
    (inside / "submission.json").write_text(json.dumps(manifest))
    return Path(shutil.make_archive(str(tmp_path / "forged"), "zip", folder))


def edit_line(path: Path, edit: Callable[[dict[str, Any]], None], *, task: str = "medqa") -> None:
    """Edit the first line of a task."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    edit(next(line for line in lines if line["task"].startswith(task)))
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_an_honest_submission_is_accepted(call: Call, submission: Path) -> None:
    code, found = checked(call, submission)

    assert (code, found["problems"]) == (0, [])
    assert {"checksums", "scores from verdicts", "verdicts from raw replies"} <= {*found["done"]}
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


def flip_verdict(folder: Path) -> None:
    def flip(line: dict[str, Any]) -> None:
        right = line["outcome"] == "correct"
        line |= {"outcome": "wrong" if right else "correct", "score": 0.0 if right else 1.0}

    edit_line(folder / "verdicts.jsonl", flip)
    rescored(folder)


def flip_points(folder: Path) -> None:
    """Outcome, score and points agree with each other, but not with the replies."""

    def flip(line: dict[str, Any]) -> None:
        right = line["outcome"] == "correct"
        line |= {"outcome": "wrong" if right else "correct", "score": 0.0 if right else 1.0}
        for vote in line["votes"]:
            vote["points"] = line["score"]

    edit_line(folder / "verdicts.jsonl", flip)
    rescored(folder)


def rescored(folder: Path) -> None:
    """State the scores that the edited verdicts give."""
    from medix_eval.bundled import bundled  # noqa: PLC0415
    from medix_eval.scoring import score_run  # noqa: PLC0415
    from medix_eval.store import load_judging_manifest, load_run_manifest  # noqa: PLC0415
    from medix_eval.tasks import load_tasks  # noqa: PLC0415

    scores = score_run(
        folder,
        folder,
        manifest=load_run_manifest(folder),
        judging=load_judging_manifest(folder),
        groups=load_tasks([bundled("tasks")]).groups,
    )
    (folder / "scores.json").write_text(scores.model_copy(update={"run": ""}).model_dump_json())


def raise_score(folder: Path) -> None:
    path = folder / "scores.json"
    scores = json.loads(path.read_text())
    scores["tasks"]["medqa"]["score"] = 0.99
    path.write_text(json.dumps(scores))


def drop_sample(folder: Path) -> None:
    for name in ("completions.jsonl", "verdicts.jsonl"):
        path = folder / name
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(lines[1:]))
    path = folder / "run.json"
    run = json.loads(path.read_text())
    run["tasks"][min(run["tasks"])]["num_rows"] -= 1
    path.write_text(json.dumps(run))
    rescored(folder)


def double_sample(folder: Path) -> None:
    path = folder / "verdicts.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], *lines]))


def change_reference(folder: Path) -> None:
    edit_line(folder / "completions.jsonl", lambda line: line.update(reference="second one"))


def hide_text(folder: Path) -> None:
    path = folder / "submission.json"
    manifest = json.loads(path.read_text())
    manifest["restricted"].append("medqa")
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (flip_verdict, "its replies give"),
        (flip_points, "its replies give"),
        (raise_score, "medqa states 0.990000"),
        (drop_sample, "of the dataset is missing"),
        (double_sample, "stands 2 times"),
        (change_reference, "has another reference than the dataset"),
        (hide_text, "its text is left out, but it is not restricted"),
    ],
)
def test_a_forged_submission_is_refused_with_its_reason(
    call: Call, submission: Path, tmp_path: Path, edit: Callable[[Path], None], reason: str
) -> None:
    code, found = checked(call, forged(submission, tmp_path, edit))

    assert code == 5
    assert any(reason in problem for problem in found["problems"]), found["problems"]


def test_an_edited_reply_is_found_by_asking_the_judge_again(
    call: Call, submission: Path, tmp_path: Path, finished: tuple[Path, ScriptedServer]
) -> None:
    def rewrite(folder: Path) -> None:
        def flip(line: dict[str, Any]) -> None:
            points = 1.0 - line["score"]
            line |= {"outcome": "correct" if points else "wrong", "score": points}
            for vote in line["votes"]:
                vote |= {"points": points, "reply": f'{{"score": {points:.0f}}}'}
            del line["votes"][2:]

        edit_line(folder / "verdicts.jsonl", flip)
        rescored(folder)

    bent = forged(submission, tmp_path, rewrite)
    judge = ("--judge", "openai:scripted", "--judge-base-url", finished[1].url, "--num", "500")

    unasked, _ = checked(call, bent)
    asked, found = checked(call, bent, *judge)
    honest, _ = checked(call, submission, *judge)

    assert (unasked, asked, honest) == (0, 5, 0)
    assert any("openai:scripted says" in problem for problem in found["problems"])


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
