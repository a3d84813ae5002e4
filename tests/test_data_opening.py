"""Datasets that are not what their task or their mirror's manifest says, and quiet opening."""

from __future__ import annotations

import json
import os
import re
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml
from opened_tasks import CATALOGUE, HUB, Open, open_fixture, write_task

from medix_eval.data.lm_task import MedixTask, open_task
from medix_eval.data.tasks import load_tasks
from medix_eval.errors import ConfigError, DatasetError


def task_on(root: Path | None, folder: Path | None = None, **fields: Any) -> MedixTask:
    """Open a task of one's own on the files that are there."""
    place = folder or Path(root or "") / "tasks"
    write_task(place, **fields)
    return open_task(load_tasks([place]).tasks["mine"], data_root=root and root / "hub")


def test_a_missing_column_is_named_with_those_there_are(open_rows: Open) -> None:
    with pytest.raises(DatasetError) as error:
        open_rows([{"query": "q", "answer": "a"}])

    assert str(error.value) == (
        "task mine: the dataset has no column 'question', only query, answer"
    )


@pytest.mark.parametrize(
    ("fields", "column"),
    [
        pytest.param({"doc_to_target": "anwser"}, "anwser", id="target"),
        pytest.param({"doc_to_choice": "{{ [a, answer] }}"}, "a", id="choice"),
        pytest.param({"doc_to_image": "scan"}, "scan", id="image"),
        pytest.param({"settings": {"slices": ["organ"]}}, "organ", id="slice"),
        pytest.param({"settings": {"cluster": "patient"}}, "patient", id="cluster"),
        pytest.param({"settings": {"keep_rows": {"lang": "en"}}}, "lang", id="filter"),
        pytest.param({"settings": {"kind": "report", "facts": ["side"]}}, "side", id="fact"),
    ],
)
def test_a_missing_column_is_found_wherever_the_task_file_uses_it(
    open_rows: Open, fields: dict[str, Any], column: str
) -> None:
    with pytest.raises(DatasetError, match=f"no column '{column}'"):
        open_rows([{"question": "q", "answer": "a"}], **fields)


def test_a_missing_split_is_named_with_those_there_are(open_rows: Open) -> None:
    with pytest.raises(DatasetError, match="there is no split 'dev', only test"):
        open_rows([{"question": "q", "answer": "a"}], test_split="dev")


def test_another_number_of_rows_than_the_task_file_says_is_an_error(open_rows: Open) -> None:
    with pytest.raises(DatasetError, match="task mine: rows 1, but the task file says 2"):
        open_rows([{"question": "q", "answer": "a"}], settings={"num_samples": 2})


def test_rows_are_counted_after_the_filter(open_rows: Open) -> None:
    rows = [{"question": "q", "answer": "a", "lang": lang} for lang in ("en", "zh", "en")]

    task = open_rows(rows, settings={"num_samples": 2, "keep_rows": {"lang": "en"}})

    assert len(task.rows) == 2


def test_a_filter_that_keeps_nothing_is_an_error(open_rows: Open) -> None:
    rows = [{"question": "q", "answer": "a", "lang": "zh"}]

    with pytest.raises(DatasetError, match="task mine: split 'test' has no rows"):
        open_rows(rows, settings={"keep_rows": {"lang": "en"}})


def test_a_data_root_without_the_dataset_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"there is no folder .*cais/mmlu") as error:
        open_task(CATALOGUE.tasks["mmlu_anatomy"], data_root=tmp_path)

    assert "--data-root needs each dataset as ORG/NAME" in error.value.hint


def test_without_hub_and_mirror_the_error_names_task_and_cure() -> None:
    with pytest.raises(DatasetError, match="task medqa: cannot load GBaker/MedQA") as error:
        open_task(CATALOGUE.tasks["medqa"])

    assert "--data-root" in error.value.hint
    assert error.value.exit_code == 3
    assert "\n" not in str(error.value)


def test_a_dataset_that_was_downloaded_before_opens_offline_and_tells_its_commit(
    open_rows: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    made = open_rows([{"question": "q", "answer": "a"}])
    prepared = Path(made.rows.cache_files[0]["filename"]).parent
    commit = "0123456789abcdef0123456789abcdef01234567"
    # As `datasets` leaves it behind when it downloads from the hub.
    shutil.copytree(prepared, tmp_path / "cache" / "org___name" / "default" / "0.0.0" / commit)

    task = open_task(load_tasks([tmp_path / "tasks"]).tasks["mine"])

    assert (len(task.rows), task.revision, task.mirror) == (1, commit, None)


@pytest.mark.parametrize("place", ["hub", "copy"])
def test_rows_come_from_the_files_that_are_there_whatever_the_card_says(
    open_rows: Open, tmp_path: Path, place: str
) -> None:
    """With a card that names files, `datasets` knows a cache by name and card alone."""
    dataset = tmp_path / "hub" / "org" / "name"
    dataset.mkdir(parents=True)
    listed = [{"config_name": "default", "data_files": "data/test-*"}]
    (dataset / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': listed})}---\n")
    before = open_rows([{"question": "q", "answer": "a"}], test_split="train")
    if place == "copy":
        shutil.copytree(tmp_path / "hub", tmp_path / "copy")
    changed = datasets.Dataset.from_list([{"question": "q", "answer": "b"}])
    changed.to_parquet(tmp_path / place / "org/name/data/test-00000-of-00001.parquet")

    file = load_tasks([tmp_path / "tasks"]).tasks["mine"]
    after = open_task(file, data_root=tmp_path / place)

    assert [task.rows[0]["answer"] for task in (before, after)] == ["a", "b"]


def test_a_file_that_changed_in_size_and_time_alone_unseen_is_read_again(tmp_path: Path) -> None:
    """Swapped labels leave size and, copied with `cp -p`, the time as they were."""
    file = tmp_path / "hub/org/name/rows.csv"
    file.parent.mkdir(parents=True)
    (file.parent / "README.md").write_text(
        "---\nconfigs: [{config_name: default, data_files: rows.csv}]\n---\n"
    )
    file.write_text("question,answer\nq,left\nr,both\n")
    stat = file.stat()
    (before,) = {task_on(tmp_path, test_split="train").rows[0]["answer"]}

    file.write_text("question,answer\nq,both\nr,left\n")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    after = task_on(tmp_path, test_split="train")

    assert (before, after.rows[0]["answer"]) == ("left", "both")
    assert after.fingerprint() == {"rows.csv": sha256(file.read_bytes()).hexdigest()}


def test_readings_that_are_outdated_or_of_folders_that_are_gone_are_removed_later(
    open_rows: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")

    def readings() -> list[Path]:
        return [one for one in (tmp_path / "cache/medix-eval").glob("*/*") if one.is_dir()]

    open_rows([{"question": "q", "answer": "a"}])
    task = open_rows([{"question": "q", "answer": "b"}])
    assert len(readings()) == 2  # another process may still read the older one
    for one in readings():
        os.utime(one, (0, 0))
    task = open_rows([{"question": "q", "answer": "b"}])
    (reading,) = readings()
    assert reading in Path(task.rows.cache_files[0]["filename"]).parents

    shutil.move(tmp_path / "hub", tmp_path / "moved")
    file = load_tasks([tmp_path / "tasks"]).tasks["mine"]
    open_task(file, data_root=tmp_path / "moved")
    assert reading.exists()
    os.utime(reading.parent / "source", (0, 0))
    again = open_task(file, data_root=tmp_path / "moved")

    assert not reading.exists()
    assert again.rows[0]["answer"] == "b"


def test_two_splits_of_one_folder_keep_a_reading_each(tmp_path: Path) -> None:
    folder = tmp_path / "hub/org/name"
    folder.mkdir(parents=True)
    for split in ("validation", "test"):
        (folder / f"{split}.csv").write_text(f"question,answer\nq,{split}\n")

    first = task_on(tmp_path, test_split="test")
    made = Path(first.rows.cache_files[0]["filename"])
    os.utime(made.parents[4], (0, 0))  # the reading, in the folder of its source
    other = task_on(tmp_path, test_split="validation")

    assert made.exists()
    assert made.parents[5] != Path(other.rows.cache_files[0]["filename"]).parents[5]
    assert [one.rows[0]["answer"] for one in (first, other)] == ["test", "validation"]


def test_a_folder_named_like_a_reader_is_not_taken_for_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for place, answer in (("d", "read"), ("csv/d", "other")):
        Path(place).mkdir(parents=True)
        Path(place, "ward.csv").write_text(f"question,answer\nq,{answer}\n")
    files = {"data_files": {"test": "d/ward.csv"}}

    task = task_on(None, tmp_path / "tasks", dataset_path="csv", dataset_kwargs=files)

    assert task.rows[0]["answer"] == "read"
    assert task.fingerprint() == {"ward.csv": sha256(Path("d/ward.csv").read_bytes()).hexdigest()}


def test_images_that_are_fetched_do_not_make_the_rows_be_read_again(
    open_rows: Open, tmp_path: Path
) -> None:
    folder = tmp_path / "hub/org/name"
    source = {"folder": "files", "member": "{image}"}
    shown: dict[str, Any] = {
        "doc_to_image": "image",
        "doc_to_text": "<image>",
        "settings": {"image_source": source},
    }
    (folder / "files").mkdir(parents=True)
    open_rows([{"question": "q", "answer": "a", "image": "1.jpg"}], **shown)
    made = []
    for name in ("files/1.jpg", "files/2.jpg", ".index"):
        (folder / name).touch()
        (folder / f"gone_{name[-5:]}").symlink_to(tmp_path / "nothing")
        task = task_on(tmp_path, **shown)
        made.append(Path(task.rows.cache_files[0]["filename"]).stat().st_mtime_ns)

    assert len({*made}) == 1


def test_tables_that_a_reader_of_datasets_is_told_of_are_hashed_and_read_anew(
    tmp_path: Path,
) -> None:
    """`dataset_path: csv` with `data_files` is how many lm-eval tasks name files of their own."""
    file = tmp_path / "here" / "rows.csv"
    file.parent.mkdir()
    found = []
    for answer in ("one", "two"):
        file.write_text(f"question,answer\nq,{answer}\n")
        task = task_on(
            None,
            tmp_path / "tasks",
            dataset_path="csv",
            dataset_kwargs={"data_files": {"test": str(file)}},
        )
        found.append((task.rows[0]["answer"], task.revision))
        assert task.fingerprint() == {"rows.csv": sha256(file.read_bytes()).hexdigest()}

    assert found == [("one", None), ("two", None)]


def test_tables_of_another_machine_are_refused_because_nothing_records_them(tmp_path: Path) -> None:
    files = {"test": "https://localhost:9/rows.csv"}
    with pytest.raises(DatasetError, match=r"task mine: .*localhost:9/rows.csv") as error:
        task_on(None, tmp_path / "tasks", dataset_path="csv", dataset_kwargs={"data_files": files})

    assert "\n" not in str(error.value)


def test_a_copy_whose_table_was_edited_is_refused_until_the_change_is_accepted(
    tmp_path: Path,
) -> None:
    dataset = "GBaker/MedQA-USMLE-4-options-hf"
    shutil.copytree(HUB / dataset, tmp_path / dataset)
    table = tmp_path / dataset / "test.json"
    text = table.read_text()
    swapped = {"0": "1", "1": "0"}
    table.write_text(re.sub(r'(?<="label": )[01]', lambda label: swapped[label[0]], text))
    file, name = CATALOGUE.tasks["medqa"], "test.json"

    assert table.stat().st_size == (HUB / dataset / name).stat().st_size
    with pytest.raises(DatasetError, match=rf"{name}: SHA-256 \w{{12}}… in the manifest, now "):
        open_task(file, data_root=tmp_path)
    task = open_task(file, data_root=tmp_path, accept_change=True)

    assert task.fingerprint() == {name: sha256(table.read_bytes()).hexdigest()}
    assert [change.partition(":")[0] for change in task.changes] == [name]


def test_a_missing_zip_is_found_before_any_row_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "BoKelvin" / "SLAKE"
    folder.mkdir(parents=True)
    (folder / "test.json").write_bytes((HUB / "BoKelvin/SLAKE/test.json").read_bytes())
    rows = [row for row in json.loads((folder / "test.json").read_text()) if row["q_lang"] == "en"]
    (folder / "test.json").write_text(json.dumps((rows * 100)[:1061]))

    with pytest.raises(
        DatasetError, match=r"task slake_vqa: cannot read the images in .*imgs\.zip"
    ):
        open_task(CATALOGUE.tasks["slake_vqa"], data_root=tmp_path)


def test_a_task_file_with_another_class_is_refused(tmp_path: Path, open_rows: Open) -> None:
    open_rows([{"question": "q", "answer": "a"}])
    path = tmp_path / "tasks" / "mine.yaml"
    path.write_text(path.read_text().replace("medix_eval.lm_task.MedixTask", "nowhere.Task"))

    with pytest.raises(ConfigError, match=r"mine\.yaml: Cannot import module 'nowhere'"):
        open_task(load_tasks([path.parent]).tasks["mine"], data_root=tmp_path / "hub")


def write_manifest(folder: Path, **changes: Any) -> None:
    manifest = {
        "source": "org/name",
        "revision": "abc",
        "files": {},
        "rows": {},
        "synthetic": False,
    }
    (folder / "hub/org/name/medix-mirror.json").write_text(json.dumps(manifest | changes))


def test_a_mirror_says_where_it_came_from_and_that_it_is_invented() -> None:
    mirror = open_fixture("medqa").mirror

    assert mirror is not None
    assert (mirror.source, mirror.synthetic) == ("GBaker/MedQA-USMLE-4-options-hf", True)


def test_the_commit_of_a_copy_is_the_one_its_manifest_names(
    open_rows: Open, tmp_path: Path
) -> None:
    rows = [{"question": "q", "answer": "a"}]
    assert open_rows(rows).revision is None

    write_manifest(tmp_path)

    assert open_rows(rows).revision == "abc"


def test_a_copy_with_other_rows_than_its_manifest_lists_is_an_error(
    open_rows: Open, tmp_path: Path
) -> None:
    rows = [{"question": "q", "answer": "a"}]
    open_rows(rows)
    write_manifest(tmp_path, rows={"default/test": 9})

    with pytest.raises(DatasetError, match="rows 1, but the mirror's manifest says 9"):
        open_rows(rows)


@pytest.mark.parametrize(
    ("name", "problem"),
    [("data/test-00000-of-00001.parquet", "but the manifest lists 1 B"), ("x.zip", "missing")],
)
def test_a_copy_with_a_torn_or_missing_file_is_an_error(
    open_rows: Open, tmp_path: Path, name: str, problem: str
) -> None:
    rows = [{"question": "q", "answer": "a"}]
    open_rows(rows)
    write_manifest(tmp_path, files={name: {"sha256": "0" * 64, "bytes": 1}})

    with pytest.raises(DatasetError, match=problem):
        open_rows(rows)


def test_a_manifest_with_a_misspelt_field_is_an_error_that_names_it(
    open_rows: Open, tmp_path: Path
) -> None:
    rows = [{"question": "q", "answer": "a"}]
    open_rows(rows)
    write_manifest(tmp_path, sinthetic=True)

    with pytest.raises(DatasetError, match=r"medix-mirror\.json: sinthetic: Extra inputs"):
        open_rows(rows)


def test_opening_a_task_for_the_first_time_prints_nothing(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)

    open_fixture("slake_vqa")

    assert capfd.readouterr() == ("", "")


def test_a_task_that_makes_its_own_rows_opens_without_a_word_of_lm_eval(
    caplog: pytest.LogCaptureFixture,
) -> None:
    task = open_task(CATALOGUE.tasks["phantom_closed"], data_root=HUB)

    assert len(task.rows) == task.settings.num_samples
    assert caplog.records == []
    assert (task.mirror, task.revision) == (None, None)


def test_opening_a_task_leaves_progress_bars_as_they_were() -> None:
    datasets.enable_progress_bars()

    open_fixture("medqa")

    assert not datasets.are_progress_bars_disabled()
