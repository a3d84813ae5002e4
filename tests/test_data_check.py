"""`data check`, `data verify` and `data list`: what they say of a sound mirror, and of damage."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from scripted_servers import Run, Serve, candidate

from medix_eval.phantom import dataset as phantom

HUB = Path(__file__).parent / "fixtures" / "hub"
RAD, SLAKE, MCQ = "flaviagiammarino/vqa-rad", "BoKelvin/SLAKE", "openlifescienceai/medmcqa"
MEDQA, SETS = "GBaker/MedQA-USMLE-4-options-hf", "sahalshajim/medix-eval-sets"
RAD_TEST = f"{RAD}/data/test-00000-of-00001.parquet"


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    return Path(shutil.copytree(HUB, tmp_path / "mirror"))


def rehash(mirror: Path, name: str, **changes: Any) -> None:
    """Write a dataset's manifest anew, as for files that were copied like this."""
    folder = mirror / name
    manifest = json.loads((folder / "medix-mirror.json").read_text()) | changes
    for file in manifest["files"]:
        content = (folder / file).read_bytes()
        sha = hashlib.sha256(content).hexdigest()
        manifest["files"][file] = {"sha256": sha, "bytes": len(content)}
    (folder / "medix-mirror.json").write_text(json.dumps(manifest))


def rewrite(path: Path, change: Callable[[list[dict[str, Any]]], Any]) -> None:
    """Change the rows of a Parquet file, without decoding its images."""
    table = datasets.Dataset.from_parquet(str(path))
    if "image" in table.features and isinstance(table.features["image"], datasets.Image):
        table = table.cast_column("image", datasets.Image(decode=False))
    rows = list(table)
    features = change(rows) or table.features
    datasets.Dataset.from_list(rows, features=features).to_parquet(str(path))


def rewrite_splits(mirror: Path, change: Callable[[list[dict[str, Any]]], Any]) -> None:
    """Change all splits alike: `datasets` gives all of them the types of the first."""
    for path in (mirror / RAD / "data").glob("*.parquet"):
        rewrite(path, change)
    rehash(mirror, RAD)


# Each damages the mirror, and names the tasks to check and what must be said.


def miss_a_file(mirror: Path) -> None:
    (mirror / MCQ / "data/train-00000-of-00001.parquet").unlink()


def flip_a_byte(mirror: Path) -> None:
    path = mirror / MEDQA / "test.json"
    path.write_bytes(path.read_bytes().replace(b"invented", b"INVENTED").replace(b"A ", b"a ", 1))


def cut_a_parquet(mirror: Path) -> None:
    path = mirror / RAD_TEST
    path.write_bytes(path.read_bytes()[:-100])
    rehash(mirror, RAD)


def cut_a_zip(mirror: Path) -> None:
    path = mirror / SLAKE / "imgs.zip"
    path.write_bytes(path.read_bytes()[:-200])
    rehash(mirror, SLAKE)


def damage_inside_a_zip(mirror: Path) -> None:
    path = mirror / SLAKE / "imgs.zip"
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        first = archive.infolist()[0]
    start = first.header_offset + 30 + len(first.filename)
    content[start + 400 : start + 500] = bytes(100)
    path.write_bytes(content)
    rehash(mirror, SLAKE)


def lose_a_column(mirror: Path) -> None:
    def change(rows: list[dict[str, Any]]) -> Any:
        for row in rows:
            row["reply"] = row.pop("answer")
        text = datasets.Value("string")
        return datasets.Features({"image": datasets.Image(), "question": text, "reply": text})

    rewrite_splits(mirror, change)


def change_a_type(mirror: Path) -> None:
    def change(rows: list[dict[str, Any]]) -> Any:
        for row in rows:
            row["answer"] = len(row["answer"])
        text = datasets.Value("string")
        kinds = {"question": text, "answer": datasets.Value("int64")}
        return datasets.Features({"image": datasets.Image(), **kinds})

    rewrite_splits(mirror, change)


def lose_a_row(mirror: Path) -> None:
    rewrite(mirror / RAD_TEST, lambda rows: rows.pop() and None)
    rehash(mirror, RAD)


def spoil_an_image(mirror: Path) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        rows[3]["image"]["bytes"] = rows[3]["image"]["bytes"][:60]

    rewrite(mirror / RAD_TEST, change)
    rehash(mirror, RAD)


def withhold_a_label(mirror: Path) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        rows[2]["cop"] = -1

    rewrite(mirror / MCQ / "data/validation-00000-of-00001.parquet", change)
    rehash(mirror, MCQ)


def name_a_missing_image(mirror: Path) -> None:
    path = mirror / SLAKE / "test.json"
    path.write_text(path.read_text().replace("xmlab", "xmlap", 1))
    rehash(mirror, SLAKE)


def lose_an_x_ray(mirror: Path) -> None:
    (mirror / SETS / "files/invented-0002.jpg").unlink()


def lose_a_manifest(mirror: Path) -> None:
    (mirror / RAD / "medix-mirror.json").unlink()


DEFECTS = [
    (miss_a_file, MCQ, "data/train-00000-of-00001.parquet is missing"),
    (flip_a_byte, MEDQA, "but the manifest lists"),
    (cut_a_parquet, "rad_vqa", "cannot load"),
    (cut_a_zip, "slake_vqa", "cannot read the images in"),
    (damage_inside_a_zip, "slake_vqa", "no image imgs/"),
    (lose_a_column, "rad_vqa", "no column 'answer', only image, question, reply"),
    (change_a_type, "rad_vqa", "column 'answer' is int, but the task file says string"),
    (lose_a_row, "rad_vqa", "rows 9, but the mirror's manifest says 10"),
    (spoil_an_image, "rad_vqa", "row 3: image does not decode"),
    (withhold_a_label, "medmcqa", "row 2: the answer index is -1: the label is withheld"),
    (name_a_missing_image, "slake_vqa", "row 0: no image imgs/xmlap"),
    (lose_an_x_ray, SETS, "files/invented-0002.jpg is missing"),
    (lose_a_manifest, RAD, "medix-mirror.json is missing"),
]
TASKS = {RAD: "rad_vqa", SLAKE: "slake_vqa", MCQ: "medmcqa", MEDQA: "medqa"}


@pytest.mark.parametrize(
    ("defect", "where", "message"), DEFECTS, ids=[one[0].__name__ for one in DEFECTS]
)
def test_each_planted_defect_is_found_and_named(
    run: Run, mirror: Path, defect: Callable[[Path], None], where: str, message: str
) -> None:
    defect(mirror)
    task = TASKS.get(where, "mimic_cxr_report_generation" if "/" in where else where)

    code, out, err = run("data", "check", "--data-root", mirror, "--tasks", task, "--json")

    faults = json.loads(out)["faults"]
    assert code == 3
    assert any(fault["where"] == where and message in fault["message"] for fault in faults), faults
    assert f"error: {mirror}: problems found: {len(faults)}" in err


def test_the_fixture_mirror_is_clean_and_every_task_was_looked_at(run: Run) -> None:
    code, out, _ = run("data", "check", "--data-root", HUB, "--json")

    found = json.loads(out)
    assert (code, found["faults"], found["absent"]) == (0, [], [])
    assert {"medqa", "slake_vqa", "mimic_cxr_report_generation"} <= set(found["tasks"])
    assert found["tasks"]["slake_vqa"]["num_rows"] == 12


@pytest.mark.parametrize("linked", [".", RAD, "cais", f"{MEDQA}/test.json"])
def test_a_mirror_and_its_parts_may_be_links(
    run: Run, mirror: Path, tmp_path: Path, linked: str
) -> None:
    place = mirror / linked
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")

    tasks = "medqa,mmlu_anatomy,rad_vqa,slake_vqa"

    code, out, _ = run("data", "check", "--data-root", mirror, "--tasks", tasks, "--json")

    assert (code, json.loads(out)["faults"]) == (0, [])


def test_a_mirror_need_not_hold_every_benchmark(run: Run, tmp_path: Path) -> None:
    shutil.copytree(HUB / MEDQA, tmp_path / MEDQA)

    code, out, _ = run("data", "check", "--data-root", tmp_path)

    assert code == 0
    assert "medqa: 10 rows, 0 images, ok" in out
    assert "not in this mirror: " in out


def test_a_folder_that_is_no_mirror_is_told(run: Run, tmp_path: Path) -> None:
    code, _, err = run("data", "check", "--data-root", tmp_path)

    assert code == 2
    assert "has no data of any task" in err


def test_the_list_says_of_each_task_what_it_is_and_where(run: Run, tmp_path: Path) -> None:
    shutil.copytree(HUB / MEDQA, tmp_path / MEDQA)

    _, out, _ = run("data", "list", "--data-root", tmp_path, "--json")

    rows = {row["task"]: row for row in json.loads(out)}
    assert {name: rows[name]["where"] for name in ("medqa", "rad_vqa", "phantom_open")} == {
        "medqa": "mirror", "rad_vqa": "missing", "phantom_open": "drawn",
    }  # fmt: skip
    assert rows["medqa"]["synthetic"]
    assert rows["mimic_cxr_report_summarization"]["data_class"] == "dua"
    assert rows["mmlu_anatomy"]["source"] == "cais/mmlu:anatomy"


@pytest.fixture
def scored(run: Run, mirror: Path, tmp_path: Path) -> Path:
    """Return a run of an image task and a text task on the mirror."""
    answers = tmp_path / "answers.jsonl"
    task = {"task": "rad_vqa", "sample_id": "none", "completion": "yes"}
    answers.write_text(json.dumps(task) + "\n")
    run(
        *("--model", f"replay:{answers}", "--protocol", "rules", "--tasks", "rad_vqa,medqa"),
        *("--data-root", mirror, "--out", tmp_path / "out", "--limit", "5"),
    )
    (path,) = (tmp_path / "out").glob("*/*/run.json")
    return path.parent


def test_the_same_data_is_verified(run: Run, scored: Path, mirror: Path) -> None:
    code, out, _ = run("data", "verify", scored, "--data-root", mirror)

    assert code == 0
    assert out == ("rad_vqa: identical to what was scored\nmedqa: identical to what was scored\n")


def test_one_other_pixel_is_found_although_the_manifest_vouches_for_it(
    run: Run, scored: Path, mirror: Path
) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        out = io.BytesIO()
        image = datasets.Image().decode_example(rows[0]["image"])
        image.putpixel((0, 0), 255)
        image.save(out, format="PNG")
        for row in rows:
            row["image"]["bytes"] = out.getvalue()

    before = json.loads((mirror / RAD / "medix-mirror.json").read_text())
    rewrite(mirror / RAD_TEST, change)
    rehash(mirror, RAD)
    sizes = json.loads((mirror / RAD / "medix-mirror.json").read_text())
    file = "data/test-00000-of-00001.parquet"
    sizes["files"][file]["sha256"] = before["files"][file]["sha256"]
    (mirror / RAD / "medix-mirror.json").write_text(json.dumps(sizes))

    code, out, err = run("data", "verify", scored, "--data-root", mirror, "--json")

    found = json.loads(out)
    assert code == 3
    assert found["medqa"] == []
    assert any(f"files.{file}" in line for line in found["rad_vqa"])
    assert any("samples unlike those asked: 5 of 5" in line for line in found["rad_vqa"])
    assert "the local data is not what was scored" in err


def test_data_that_is_gone_cannot_be_verified(run: Run, scored: Path, mirror: Path) -> None:
    shutil.rmtree(mirror / RAD)

    code, out, _ = run("data", "verify", scored, "--data-root", mirror)

    assert code == 3
    assert "rad_vqa: task rad_vqa: there is no folder" in out


def test_a_benchmark_that_draws_itself_is_data_like_others(
    run: Run, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(lambda _: "left")
    asked = ("--tasks", "phantom", "--limit", "3", "--protocol", "rules", "--out", tmp_path / "out")
    run(*candidate(server), *asked)
    scored = next((tmp_path / "out").glob("*/*/run.json")).parent

    code, out, _ = run("data", "check", "--data-root", tmp_path, "--tasks", "phantom", "--json")
    checked = json.loads(out)
    assert (code, checked["faults"], checked["datasets"]) == (0, [], {})
    assert {name: one["num_images"] for name, one in checked["tasks"].items()} == {
        name: one["num_rows"] for name, one in checked["tasks"].items()
    }
    assert len(checked["tasks"]) == 4
    for argv in (("judge", "--protocol", "rules"), ("export",), ("compare", scored), ("report",)):
        assert run(argv[0], scored, *argv[1:])[0] == 0, argv
    code, out, _ = run("data", "verify", scored)
    assert (code, out.count("identical to what was scored")) == (0, 4)

    monkeypatch.setattr(phantom, "png", lambda pixels, png=phantom.png: png(255 - pixels))
    code, out, _ = run("data", "verify", scored)
    assert (code, out.count("samples unlike those asked: 3 of 3")) == (3, 4)
