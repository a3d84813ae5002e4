"""All tasks on the fixture mirror: as this harness shows them, and as stock lm-eval does.

After a wanted change of a prompt, write the golden files anew, and raise the task's version:

    python tests/test_lm_eval.py
"""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import lm_eval
import pytest
from lm_eval.api.task import ConfigurableTask
from lm_eval.config.group import GroupConfig
from lm_eval.config.task import FewshotConfig, TaskConfig
from lm_eval.tasks import TaskManager
from PIL import Image

from medix_eval.data import tasks
from medix_eval.data.lm_task import MedixTask, open_task
from medix_eval.records import IMAGE_MARK, Kind
from medix_eval.storage.bundled import bundled
from medix_eval.testing import ScriptedServer, prompt_text

TESTS = Path(__file__).resolve().parent
HUB = TESTS / "fixtures" / "hub"
GOLDEN = TESTS / "golden"
CATALOGUE = tasks.load_tasks([bundled("tasks")])
NAMES = sorted(name for name, file in CATALOGUE.tasks.items() if file.dataset_path)
WITH_IMAGES = [name for name in NAMES if CATALOGUE.tasks[name].settings.modality == "image"]
LIKELY = [name for name in NAMES if CATALOGUE.tasks[name].output_type == "multiple_choice"]
CHOICE = [
    name
    for name in NAMES
    if CATALOGUE.tasks[name].settings.kind is Kind.MULTIPLE_CHOICE and name not in LIKELY
]
DECIDED = {"decided": 1.0}
MMLU = (
    "anatomy", "clinical_knowledge", "college_biology", "college_medicine", "medical_genetics",
    "professional_medicine",
)  # fmt: skip


def open_fixture(name: str) -> MedixTask:
    return open_task(CATALOGUE.tasks[name], data_root=HUB)


def golden(name: str) -> str:
    """Return what a task shows of its first two rows."""
    task = open_fixture(name)
    parts = [f"{CATALOGUE.tasks[name].key}, {len(task.rows)} rows"]
    for row in (0, 1):
        doc = task.rows[row]
        parts += [f"=== row {row}: prompt", task.prompt_text(doc, row=row)]
        parts += [f"=== row {row}: reference", task.reference(doc, row=row)]
        parts += [f"=== row {row}: options", *task.options(doc, row=row)]
        parts += [f"=== row {row}: images", str(len(task.stored_images(doc, row=row)))]
    return "\n".join(parts) + "\n"


@pytest.mark.parametrize("name", NAMES)
def test_each_task_shows_its_golden_prompts(name: str) -> None:
    assert golden(name) == (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")


def test_there_is_no_golden_file_without_a_task() -> None:
    assert sorted(path.stem for path in GOLDEN.glob("*.txt")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_code_of_stock_lm_eval_renders_every_row_the_same(name: str) -> None:
    task = open_fixture(name)

    for row in task.rows:
        assert task.prompt_text(row) == ConfigurableTask.doc_to_text(task, row)
        target = ConfigurableTask.doc_to_target(task, row)
        options = task.options(row)
        if options:
            stock = ConfigurableTask.doc_to_choice(task, row)
            assert list(options) == [option for option in stock if option is not None]
        # Stock reads "4" as a number, but only where it runs without our class.
        assert task.reference(row) == (options[target] if options else str(target))


@pytest.mark.parametrize("name", WITH_IMAGES)
def test_each_image_has_its_mark_in_the_prompt(name: str) -> None:
    task = open_fixture(name)

    for row in task.rows:
        assert task.prompt_text(row).count(IMAGE_MARK) == len(task.stored_images(row)) > 0


def test_images_stand_where_question_and_options_name_them() -> None:
    shown = {}
    for name in ("mmmu_basic_medical_science", "mmmu_clinical_medicine"):
        task = open_fixture(name)
        for row in task.rows:
            # Each picture of the fixture is drawn from its own name.
            stored = [row[f"image_{number}"] for number in range(1, 8)]
            place = {one["bytes"]: number for number, one in enumerate(stored, 1) if one}
            order = [place[image] for image in task.stored_images(row)]
            shown[row["id"]] = (task.prompt_text(row).splitlines()[0], order)

    assert shown["validation_Basic_Medical_Science_2"] == (
        "Which of the two drawings shows the heart in systole? image 1 <image>",
        [1, 2, 3],
    )
    task = open_fixture("mmmu_basic_medical_science")
    assert "A. image 2 <image>\nB. image 3 <image>\nC. Both" in task.prompt_text(task.rows[1])
    assert task.reference(task.rows[1]) == "image 2"
    assert shown["validation_Clinical_Medicine_1"] == (
        "Compare image 2 <image> with image 1 <image>. What was removed?",
        [2, 1],
    )
    assert shown["validation_Clinical_Medicine_3"] == ("<image>Which sign is shown?", [1])


def test_the_published_mmmu_sends_the_first_image_only_and_leaves_the_names() -> None:
    task = open_fixture("mmmu_basic_medical_science_compat")
    row = task.rows[1]

    assert task.stored_images(row) == [row["image_1"]["bytes"]]
    assert "(A) <image 2>\n(B) <image 3>" in task.prompt_text(row)


def test_a_question_without_options_among_choices_asks_for_a_short_answer() -> None:
    kinds = {}
    for name in CATALOGUE.groups["mmmu_medical"]:
        task = open_fixture(name)
        kinds[name] = [task.kind(row).value for row in task.rows]
    task = open_fixture("mmmu_basic_medical_science")

    assert kinds["mmmu_basic_medical_science"] == ["multiple_choice", "multiple_choice", "open"]
    assert kinds["mmmu_pharmacy"] == ["multiple_choice", "open", "multiple_choice"]
    assert (task.reference(task.rows[2]), task.options(task.rows[2])) == ("4", ())


def test_stock_lm_eval_sends_the_same_prompts_and_pictures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(HUB)  # stock lm-eval finds ORG/NAME as a folder here
    manager = TaskManager(include_path=str(bundled("tasks")), include_defaults=False)
    stock = manager.load(NAMES)["tasks"]

    for name in NAMES:
        task = open_fixture(name)
        stock[name].build_all_requests()
        requests = {one.doc_id: one for one in stock[name].instances}
        for request, row in zip(requests.values(), task.rows, strict=True):
            assert request.args[0] == task.prompt_text(row)
            pictures = request.args[2]["visual"] if len(request.args) > 2 else []
            decoded = [Image.open(io.BytesIO(stored)) for stored in task.stored_images(row)]
            assert [picture.tobytes() for picture in pictures] == [
                picture.convert("RGB").tobytes() for picture in decoded
            ]


@pytest.mark.parametrize("style", ["{letter}", "{reference}", "<answer>{letter}</answer>"])
@pytest.mark.parametrize("name", CHOICE)
def test_every_right_choice_scores_full_marks(name: str, style: str) -> None:
    task = open_fixture(name)

    for row in task.rows:
        reference = task.reference(row)
        if not task.options(row):
            assert task.process_results(row, [reference]) == {"acc": 1.0} | DECIDED
            continue
        letter = "ABCDEFGHI"[task.options(row).index(reference)]
        said = style.format(letter=letter, reference=reference)
        assert task.process_results(row, [said]) == {"acc": 1.0} | DECIDED


@pytest.mark.parametrize("name", CHOICE)
def test_every_wrong_choice_scores_nothing(name: str) -> None:
    task = open_fixture(name)

    for row in task.rows:
        for number, option in enumerate(task.options(row)):
            if option != task.reference(row):
                said = ["ABCDEFGHI"[number]]
                assert task.process_results(row, said) == {"acc": 0.0} | DECIDED


def test_what_no_rule_can_decide_scores_nothing_and_is_not_decided_in_stock_lm_eval() -> None:
    task = open_fixture("medqa")

    found = task.process_results(task.rows[0], ["I would rather not say."])

    assert found == {"acc": 0.0, "decided": 0.0}


@pytest.mark.parametrize("name", sorted(set(NAMES) - {*CHOICE, *LIKELY}))
def test_a_free_answer_is_compared_with_its_reference_as_normalised_text(name: str) -> None:
    task = open_fixture(name)

    for row in task.rows:
        right = f"Let me think.</think><answer> {task.reference(row).upper()} </answer>"
        assert task.process_results(row, [right]) == {"exact_match": 1.0}
        assert task.process_results(row, ["something else"]) == {"exact_match": 0.0}


def test_the_table_of_fields_has_those_of_lm_eval_and_no_other() -> None:
    fields = {field.name for field in dataclasses.fields(TaskConfig)}
    listed = {name.partition(".")[0] for name in tasks._TASK_FIELDS}  # noqa: SLF001
    examples = {field.name for field in dataclasses.fields(FewshotConfig)}
    divided = {name.partition(".")[2] for name in tasks._TASK_FIELDS if "fewshot_config." in name}  # noqa: SLF001

    assert listed == fields | {"class"}
    assert divided <= examples


def test_the_groups_fields_that_are_accepted_are_those_of_lm_eval() -> None:
    group_fields = {field.name for field in dataclasses.fields(GroupConfig)}

    assert group_fields == tasks._GROUP_FIELDS  # noqa: SLF001


def run_stock(*argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lm_eval", *argv],
        cwd=HUB,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_lm_eval_validate_accepts_the_task_files() -> None:
    names = "medqa,medmcqa,pubmedqa,slake_vqa,path_vqa"

    done = run_stock("validate", "--include_path", str(bundled("tasks")), "--tasks", names)

    assert (done.returncode, "All tasks found and valid" in done.stdout) == (0, True)


@pytest.mark.slow
def test_a_stock_lm_eval_run_scores_multiple_choice_without_a_judge(tmp_path: Path) -> None:
    right = {"mmlu_anatomy": 6, "medqa": 10, "usmle_sa": 0}
    replies: dict[str, str] = {}
    for name, number in right.items():
        task = open_fixture(name)
        for row, doc in enumerate(task.rows):
            place = task.options(doc).index(task.reference(doc))
            letter = "ABCDEFGHI"[place if row < number else place - 1]
            is_silent = (name, row) == ("mmlu_anatomy", 7)
            replies[task.prompt_text(doc)] = "" if is_silent else f"<answer>{letter}</answer>"

    with ScriptedServer(lambda body: replies[prompt_text(body)]) as server:
        done = run_stock(
            *("run", "--model", "local-chat-completions", "--tasks", ",".join(right)),
            *("--model_args", f"model=scripted,base_url={server.url}/chat/completions"),
            *("--include_path", str(bundled("tasks")), "--output_path", str(tmp_path)),
            "--apply_chat_template",
            OPENAI_API_KEY="none",
        )

    assert done.returncode == 0, done.stderr[-2000:]
    (path,) = tmp_path.rglob("results_*.json")
    results = json.loads(path.read_text())["results"]
    found = {name: results[name]["acc,none"] for name in right}
    assert found == {"mmlu_anatomy": 6 / 8, "medqa": 1.0, "usmle_sa": 0.0}
    decided = {name: results[name]["decided,none"] for name in right}
    # One row of usmle_sa is answered with a letter that names no option.
    assert decided == {"mmlu_anatomy": 7 / 8, "medqa": 1.0, "usmle_sa": 9 / 10}


def test_stock_lm_eval_scores_image_tasks_and_sends_their_pictures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(HUB)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    sent: list[tuple[int, int]] = []

    def answer(body: dict[str, Any]) -> str:
        for part in body["messages"][-1]["content"]:
            if part["type"] == "image_url":
                stored = base64.b64decode(part["image_url"]["url"].partition(",")[2])
                sent.append(Image.open(io.BytesIO(stored)).size)
        return "yes"

    with ScriptedServer(answer) as server:
        found = lm_eval.simple_evaluate(
            model="local-chat-completions",
            model_args=f"model=scripted,base_url={server.url}/chat/completions",
            tasks=["path_vqa", "pmc_vqa"],
            task_manager=TaskManager(include_path=str(bundled("tasks")), include_defaults=False),
            apply_chat_template=True,
            bootstrap_iters=0,
        )

    assert sent == [(48, 48)] * 16
    assert found["results"]["path_vqa"]["exact_match,none"] == 2 / 8
    assert found["results"]["pmc_vqa"]["acc,none"] == 0.0


REPLACED = {
    *(f"mmlu_{subject}" for subject in MMLU),
    "medmcqa",
    "pubmedqa",
}


def test_eight_of_our_names_and_no_others_replace_stock_tasks() -> None:
    stock = TaskManager().task_index

    assert {*CATALOGUE.tasks, *CATALOGUE.groups} & stock.keys() == REPLACED


@pytest.mark.slow
def test_a_stock_group_shows_which_of_its_tasks_are_ours(tmp_path: Path) -> None:
    """It has MedQA of its own beside our eight, and gives six of them other titles."""
    done = run_stock(
        *("run", "--model", "dummy", "--tasks", "multimedqa", "--output_path", str(tmp_path)),
        *("--include_path", str(bundled("tasks")), "--limit", "1"),
        HF_HUB_OFFLINE="1",
    )

    assert done.returncode == 0, done.stderr[-2000:]
    (path,) = tmp_path.rglob("results_*.json")
    aliases = {name: one["alias"] for name, one in json.loads(path.read_text())["results"].items()}
    ours = {name for name, alias in aliases.items() if alias.endswith("(medix-eval)")}
    assert ours == REPLACED
    assert {"multimedqa", "medqa_4options"} == aliases.keys() - REPLACED
    assert "anatomy (mmlu) (medix-eval)" in done.stdout
    assert done.stderr.count("overrides existing task") >= len(REPLACED)


@pytest.mark.slow
def test_the_fixture_mirror_is_what_its_script_makes(tmp_path: Path) -> None:
    script = TESTS / "fixtures" / "make_hub.py"
    subprocess.run([sys.executable, str(script), str(tmp_path / "hub")], check=True)

    def files(hub: Path) -> list[str]:
        return sorted(str(path.relative_to(hub)) for path in hub.rglob("*") if path.is_file())

    def rows(hub: Path, name: str) -> list[dict[str, Any]]:
        path = str(hub / name)
        kind = path.rpartition(".")[2]
        table = datasets.load_dataset(kind, data_files=path, split="train")
        # Pictures are compared by their pixels' number: encoders differ from release to release.
        return [
            {
                key: value.size if isinstance(value, Image.Image) else value
                for key, value in row.items()
            }
            for row in table
        ]

    assert files(tmp_path / "hub") == files(HUB)
    for name in files(HUB):
        if name.endswith((".parquet", "train.json", "dev.json", "test.json", "validation.json")):
            assert rows(tmp_path / "hub", name) == rows(HUB, name)


def main() -> None:
    GOLDEN.mkdir(exist_ok=True)
    for path in GOLDEN.glob("*.txt"):
        path.unlink()
    for name in NAMES:
        (GOLDEN / f"{name}.txt").write_text(golden(name), encoding="utf-8")


if __name__ == "__main__":
    main()
