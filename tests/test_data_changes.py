"""Which bytes were scored: fingerprints in `run.json`, and what happens when the data changes."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from scripted_servers import Run

from medix_eval.storage.bundled import bundled

HUB = Path(__file__).parent / "fixtures" / "hub"
MEDQA = "GBaker/MedQA-USMLE-4-options-hf"
Evaluate = Callable[..., tuple[int, str]]


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """Return a copy of two datasets of the fixture mirror, for tests that change it."""
    for name in (MEDQA, "sahalshajim/medix-eval-sets"):
        shutil.copytree(HUB / name, tmp_path / "mirror" / name)
    return tmp_path / "mirror"


@pytest.fixture
def evaluate(run: Run, tmp_path: Path, mirror: Path) -> Evaluate:
    """Return a function that evaluates replayed answers on the mirror."""
    answers = tmp_path / "answers.jsonl"
    answers.write_text('{"task": "medqa", "sample_id": "none", "completion": "A"}\n')

    def call(*argv: str, tasks: str = "medqa") -> tuple[int, str]:
        model = ("--model", f"replay:{answers}", "--protocol", "rules", "--tasks", tasks)
        code, _, err = run(*model, "--data-root", mirror, "--out", tmp_path / "out", *argv)
        return code, err

    return call


def change_rows(mirror: Path) -> None:
    """Add a row, and say so in the manifest, as a new copy of a changed dataset would."""
    folder = mirror / MEDQA
    lines = (folder / "test.json").read_text().splitlines()
    row = json.loads(lines[0]) | {"sent1": "Which organ is it?"}
    content = "\n".join([*lines, json.dumps(row)]) + "\n"
    (folder / "test.json").write_text(content)
    manifest = json.loads((folder / "medix-mirror.json").read_text())
    manifest["files"]["test.json"] = {
        "sha256": hashlib.sha256(content.encode()).hexdigest(),
        "bytes": len(content.encode()),
    }
    manifest["rows"]["default/test"] += 1
    (folder / "medix-mirror.json").write_text(json.dumps(manifest))


def runs(tmp_path: Path) -> list[dict[str, Any]]:
    paths = sorted(tmp_path.glob("out/*/*/run.json"), key=lambda path: path.stat().st_mtime_ns)
    return [json.loads(path.read_text()) for path in paths]


def pinned(tmp_path: Path, mirror: Path, *, real: bool = True, **changes: Any) -> str:
    """Write a task file that pins this; return the folder to include."""
    if real:
        manifest = json.loads((mirror / MEDQA / "medix-mirror.json").read_text())
        manifest |= {"synthetic": False, "revision": "b" * 40}
        (mirror / MEDQA / "medix-mirror.json").write_text(json.dumps(manifest))
    path = bundled("tasks") / "text" / "medqa.yaml"
    text = path.read_text().replace("!function ", "").replace("..", str(path.parent.parent))
    fields = yaml.safe_load(text)
    fields["task"] = "mine"
    fields["dataset_kwargs"] = {"revision": changes.pop("revision", "b" * 40)}
    fields["metadata"]["medix"] |= {"num_samples": 10, **changes}
    head = f"class: !function {fields.pop('class')}\n"
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "mine.yaml").write_text(head + yaml.safe_dump(fields))
    return str(tmp_path / "tasks")


def test_a_run_tells_the_hashes_of_the_files_it_scored_and_of_no_others(
    evaluate: Evaluate, tmp_path: Path, mirror: Path
) -> None:
    evaluate(tasks="medqa,pubmedqa")

    (run,) = runs(tmp_path)
    sources = {name: task["source"]["files"] for name, task in run["tasks"].items()}
    names = {"medqa": f"{MEDQA}/test.json", "pubmedqa": "sahalshajim/medix-eval-sets/"}
    parquet = "pubmedqa/test-00000-of-00001.parquet"
    expected = {
        "medqa": {"test.json": mirror / names["medqa"]},
        "pubmedqa": {parquet: mirror / names["pubmedqa"] / parquet},
    }
    assert sources == {
        task: {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
        for task, files in expected.items()
    }


def test_a_run_does_not_go_on_with_changed_data_and_names_old_and_new(
    evaluate: Evaluate, mirror: Path
) -> None:
    evaluate()
    change_rows(mirror)

    code, err = evaluate()

    assert code == 2
    assert "tasks.medqa.source.files.test.json: " in err
    assert "tasks.medqa.num_rows: 10, now 11" in err
    assert "--accept-data-change" in err


def test_an_accepted_change_is_recorded_in_a_run_of_its_own(
    evaluate: Evaluate, tmp_path: Path, mirror: Path
) -> None:
    evaluate()
    change_rows(mirror)
    evaluate("--accept-data-change")
    evaluate("--accept-data-change")

    old, new = runs(tmp_path)
    assert "accepted_data_changes" not in old["generation"]
    assert "tasks.medqa.num_rows: 10, now 11" in new["generation"]["accepted_data_changes"]
    assert new["tasks"]["medqa"]["num_rows"] == 11


@pytest.mark.parametrize(
    ("pin", "message"),
    [
        pytest.param({"revision": "a" * 40}, f"revision: {'a' * 40}, now {'b' * 40}", id="commit"),
        pytest.param({"files": {"test.json": "c" * 64}}, f"test.json: {'c' * 64}, now", id="bytes"),
        pytest.param({"num_samples": 12}, "rows 10, but the task file says 12", id="rows"),
    ],
)
def test_data_other_than_the_task_file_pins_is_an_error_until_it_is_accepted(
    evaluate: Evaluate, tmp_path: Path, mirror: Path, pin: dict[str, Any], message: str
) -> None:
    include = ("--include-path", pinned(tmp_path, mirror, **pin))

    refused, err = evaluate(*include, tasks="mine")
    accepted, _ = evaluate(*include, "--accept-data-change", tasks="mine")

    assert (refused, message in err) == (3, True)
    assert accepted == 1
    assert len(runs(tmp_path)[0]["tasks"]["mine"]["source"]["accepted_changes"]) == 1


def test_invented_rows_are_not_held_against_the_pins_of_the_real_ones(
    evaluate: Evaluate, tmp_path: Path, mirror: Path
) -> None:
    include = pinned(tmp_path, mirror, real=False, revision="a" * 40, num_samples=12)

    code, _ = evaluate("--include-path", include, tasks="mine")

    assert code == 1


def test_all_that_is_missing_is_listed_before_anything_starts(
    evaluate: Evaluate, tmp_path: Path, mirror: Path
) -> None:
    images = sorted((mirror / "sahalshajim/medix-eval-sets/files").iterdir())
    manifest = mirror / "sahalshajim/medix-eval-sets/medix-mirror.json"
    manifest.unlink()
    for image in images[:5]:
        image.unlink()

    code, err = evaluate(tasks="rad_vqa,medqa,slake_vqa,mimic_cxr_report_generation")

    assert code == 3
    assert "the data of 3 tasks cannot be used:" in err
    assert "task rad_vqa: there is no folder" in err
    assert "task slake_vqa: there is no folder" in err
    named = "invented-0000.jpg, invented-0001.jpg, invented-0002.jpg and 2 more"
    assert f"missing images: {named}" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("wanted", "fits"), [("string", True), ("int | string", True), ("list<string>", False)]
)
def test_a_column_of_another_type_than_the_task_file_says_is_an_error(
    evaluate: Evaluate, tmp_path: Path, mirror: Path, wanted: str, fits: str
) -> None:
    include = pinned(tmp_path, mirror, columns={"sent1": wanted})

    code, err = evaluate("--include-path", include, tasks="mine")

    message = f"column 'sent1' is string, but the task file says {wanted}"
    assert (code, message in err) == ((1, False) if fits else (3, True))


def test_two_benchmarks_of_one_name_each_show_score_and_verify_their_own_rows(
    run: Run, tmp_path: Path
) -> None:
    """Their cards are equal, and so are the names of their folders."""
    answers = tmp_path / "answers.jsonl"
    answers.write_text('{"task": "ward", "sample_id": "none", "completion": "left"}\n')
    scored = dict[str, Path]()
    places = {side: (tmp_path / side, tmp_path / f"made-{side}") for side in ("left", "right")}
    for side, (table, made) in places.items():
        table.mkdir()
        (table / "t.csv").write_text(f"question,answer\nThe {side} one: which side?,{side}\n")
        run("data", "new", table, "--name", "ward", "--to", made, "--data-class", "public")
        where = ("--include-path", made / "tasks", "--data-root", made / "data")

        _, shown, _ = run("show", "ward", *where)
        _, checked, _ = run("data", "check", "--tasks", "ward", *where)
        model = ("--model", f"replay:{answers}", "--protocol", "rules", "--tasks", "ward")
        run(*model, *where, "--out", tmp_path / f"out-{side}")

        assert f"The {side} one" in shown
        assert "ward: 1 row" in checked
        (scored[side],) = (tmp_path / f"out-{side}").glob("*/*")
        (record,) = (scored[side] / "completions.jsonl").read_text().splitlines()
        assert json.loads(record)["reference"] == side
        source = json.loads((scored[side] / "run.json").read_text())["tasks"]["ward"]["source"]
        for name, digest in source["files"].items():
            content = (made / "data/local/ward" / name).read_bytes()
            assert hashlib.sha256(content).hexdigest() == digest

    for side, (_, made) in places.items():
        where = ("--include-path", made / "tasks", "--data-root", made / "data")
        codes = {name: run("data", "verify", at, *where)[0] for name, at in scored.items()}
        assert codes == {name: 0 if name == side else 3 for name in places}
