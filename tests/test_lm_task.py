"""Open tasks: what the accessors give, and what is said of data that is not what its task says."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml
from datasets import Features, List, Value
from PIL import Image

from medix_eval.bundled import bundled
from medix_eval.data.opening import open_task
from medix_eval.errors import BadRow, ConfigError, DatasetError
from medix_eval.lm_task import MedixTask
from medix_eval.tasks import load_tasks

CATALOGUE = load_tasks([bundled("tasks")])
HUB = Path(__file__).parent / "fixtures" / "hub"

Open = Callable[..., MedixTask]


@pytest.fixture
def open_rows(tmp_path: Path) -> Open:
    """Return a function that opens a task on rows of its own."""

    def opened(
        rows: list[dict[str, Any]],
        *,
        features: dict[str, Any] | None = None,
        settings: dict[str, Any] | None = None,
        **fields: Any,
    ) -> MedixTask:
        folder = tmp_path / "hub" / "org" / "name"
        (folder / "data").mkdir(parents=True, exist_ok=True)
        table = datasets.Dataset.from_list(rows, features=features and Features(features))
        table.to_parquet(folder / "data" / "test-00000-of-00001.parquet")
        medix = {
            "kind": "multiple_choice" if "doc_to_choice" in fields else "open",
            "modality": "image" if "doc_to_image" in fields else "text",
            "data_class": "public",
            "licence": "mit",
            "num_samples": None,
            **(settings or {}),
        }
        task = {
            "task": "mine",
            "include": str(bundled("tasks") / "_free_text.yaml"),
            "dataset_path": "org/name",
            "test_split": "test",
            "doc_to_text": "{{ question }}",
            "doc_to_target": "answer",
            "metadata": {"version": 1, "medix": medix},
            **fields,
        }
        head = "class: !function medix_eval.lm_task.MedixTask\n"
        (tmp_path / "tasks").mkdir(exist_ok=True)
        (tmp_path / "tasks" / "mine.yaml").write_text(head + yaml.safe_dump(task))
        file = load_tasks([tmp_path / "tasks"]).tasks["mine"]
        return open_task(file, data_root=tmp_path / "hub")

    return opened


def open_fixture(name: str) -> MedixTask:
    return open_task(CATALOGUE.tasks[name], data_root=HUB)


def png(colour: str, *, mode: str = "RGB") -> bytes:
    out = io.BytesIO()
    Image.new(mode, (4, 4), colour).save(out, format="PNG")
    return out.getvalue()


CHOICE: dict[str, Any] = {"doc_to_choice": "choices", "doc_to_target": "index"}
IMAGE: dict[str, Any] = {"doc_to_image": "image", "features": {"image": datasets.Image()}}


# ---------------------------------------------------------------- what the accessors give


def test_reference_and_options_of_a_choice_are_texts(open_rows: Open) -> None:
    task = open_rows([{"question": "q", "choices": ["lung", "liver"], "index": 1}], **CHOICE)

    assert (task.options(task.rows[0]), task.reference(task.rows[0])) == (
        ("lung", "liver"),
        "liver",
    )


@pytest.mark.parametrize("answer", ["[1, 2]", "7", "[L] lung", "None", "{{ x }}"])
def test_a_reference_stays_the_text_it_is(open_rows: Open, answer: str) -> None:
    task = open_rows([{"question": "q", "answer": answer}], doc_to_target="{{ answer }}")

    assert task.reference(task.rows[0]) == answer


@pytest.mark.parametrize("text", ["[a]", "it's", 'say "x"', "a\nb", "{{ x }}", "é\\n", "None"])
def test_options_in_a_template_stay_the_texts_they_are(open_rows: Open, text: str) -> None:
    task = open_rows(
        [{"question": "q", "one": text, "two": "b", "index": 0}],
        doc_to_choice="{{ [one, two] }}",
        doc_to_target="index",
    )

    assert task.options(task.rows[0]) == (text, "b")


def test_options_that_a_row_leaves_off_at_the_end_are_absent() -> None:
    task = open_fixture("usmle_sa")

    sizes = [len(task.options(task.rows[row])) for row in range(len(task.rows))]

    assert sizes == [3, 4, 5, 5, 6, 6, 7, 8, 9, 4]
    assert "None" not in task.prompt_text(task.rows[0])


def test_pubmedqa_shows_every_section_under_its_label(open_rows: Open) -> None:
    config = open_fixture("pubmedqa").config
    row = {
        "CONTEXTS": ["Few know.", "We counted."],
        "LABELS": ["BACKGROUND", "METHODS"],
        "QUESTION": "Is it so?",
        "final_decision": "no",
    }
    keys = ("doc_to_text", "doc_to_choice", "doc_to_target")

    task = open_rows([row], **{key: config[key] for key in keys})

    assert task.prompt_text(task.rows[0]) == (
        "BACKGROUND: Few know.\nMETHODS: We counted.\n\nIs it so?\n\n"
        "Choices:\nA. yes\nB. no\nC. maybe"
    )


@pytest.mark.parametrize(
    "contexts",
    [
        pytest.param("Few know.", id="text"),
        pytest.param(["Few know."], id="list"),
        pytest.param({"contexts": ["Few know."], "labels": None}, id="record"),
    ],
)
def test_pubmedqa_takes_an_abstract_as_text_list_or_record(contexts: Any) -> None:
    task = open_fixture("pubmedqa")

    prompt = task.prompt_text({**task.rows[0], "CONTEXTS": contexts})

    assert prompt.startswith("Few know.\n\nDoes an evening walk")


def test_pmc_vqa_takes_options_as_a_list_or_a_record_with_or_without_letters() -> None:
    task = open_fixture("pmc_vqa")
    row = task.rows[0]
    plain = ["Lung", "E. coli"]

    shown = {
        task.options({**row, "choices": choices})
        for choices in (plain, ["A: Lung", " B.E. coli "], dict(zip("AB", plain, strict=True)))
    }

    assert shown == {("Lung", "E. coli")}


def test_slices_clusters_and_kept_columns_come_as_text() -> None:
    task = open_fixture("pubmedqa")

    assert task.columns(task.rows[1]) == {
        "final_decision": "no",
        "LONG_ANSWER": "Colour of scrubs was not associated with hand hygiene.",
    }


def test_samples_that_share_an_image_share_a_cluster() -> None:
    task = open_fixture("rad_vqa")

    clusters = [task.columns(task.rows[row])["image"] for row in range(4)]

    assert clusters[0] == clusters[1] != clusters[2] == clusters[3]


def test_slice_values_are_those_of_the_kept_rows() -> None:
    task = open_fixture("slake_vqa")

    columns = [task.columns(task.rows[row]) for row in range(len(task.rows))]

    assert task.slice_values() == [
        tuple(row[name] for name in task.settings.slices) for row in columns
    ]


def test_facts_are_read_and_one_that_a_row_lacks_is_left_out(open_rows: Open) -> None:
    task = open_rows(
        [{"question": "q", "answer": "r", "side": "left", "size": None}],
        features=dict.fromkeys(("question", "answer", "side", "size"), Value("string")),
        settings={"kind": "report", "facts": ["side", "size"]},
    )

    assert task.facts(task.rows[0]) == {"side": "left"}


# ---------------------------------------------------------------- images


@pytest.mark.parametrize("name", sorted(CATALOGUE.groups["vlm"]))
def test_opening_a_task_and_reading_its_stored_images_decodes_none(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("an image was decoded")

    monkeypatch.setattr(Image, "open", refuse)
    monkeypatch.setattr(datasets.Image, "decode_example", refuse)

    task = open_fixture(name)

    assert all(task.stored_images(row) for row in task.rows)


def test_stored_images_are_the_bytes_of_the_table() -> None:
    table = datasets.load_dataset(str(HUB / "flaviagiammarino/path-vqa"), split="test")
    expected = [
        row["bytes"] for row in table.cast_column("image", datasets.Image(decode=False))["image"]
    ]
    task = open_fixture("path_vqa")

    assert [task.stored_images(row) for row in task.rows] == [[image] for image in expected]


def test_images_in_a_zip_are_the_files_it_holds() -> None:
    task = open_fixture("slake_vqa")
    with zipfile.ZipFile(HUB / "BoKelvin/SLAKE/imgs.zip") as archive:
        expected = archive.read(f"imgs/{task.rows[0]['img_name']}")

    assert task.stored_images(task.rows[0]) == [expected]


def test_every_colour_mode_of_the_fixtures_becomes_rgb_for_stock_lm_eval() -> None:
    modes = set()
    for name in ("rad_vqa", "path_vqa", "pmc_vqa"):
        task = open_fixture(name)
        for row in task.rows:
            (stored,) = task.stored_images(row)
            modes.add(Image.open(io.BytesIO(stored)).mode)
            assert [image.mode for image in task.doc_to_image(row) or []] == ["RGB"]

    assert modes == {"L", "RGB", "RGBA", "P", "CMYK"}


def test_several_images_come_in_the_order_of_their_columns(open_rows: Open) -> None:
    told = {"first": png("red"), "second": png("blue"), "others": [png("green"), png("black")]}
    stored = {
        name: [{"bytes": one} for one in value] if isinstance(value, list) else {"bytes": value}
        for name, value in told.items()
    }
    image = datasets.Image()

    task = open_rows(
        [{"question": "q", "answer": "a", **stored}],
        features={
            **dict.fromkeys(("question", "answer"), Value("string")),
            "first": image,
            "second": image,
            "others": List(image),
        },
        doc_to_image=["second", "first", "others"],
    )

    others = told["others"]
    assert task.stored_images(task.rows[0]) == [told["second"], told["first"], *others]


def test_the_fixture_with_several_images_holds_one_two_and_three(open_rows: Open) -> None:
    table = datasets.load_dataset(str(HUB / "medix/several-images"), split="test")
    columns = ["image_1", "image_2", "more"]
    rows = list(table.cast_column("more", List(datasets.Image(decode=False))))

    task = open_rows(rows, features=table.features, doc_to_image=columns)

    assert [len(task.stored_images(row)) for row in task.rows] == [1, 2, 3]


def test_a_mimic_address_is_never_followed_out_of_the_folder(tmp_path: Path) -> None:
    task = open_fixture("mimic_cxr_report_generation")
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(b"secret")

    with pytest.raises(BadRow, match=r"row 3: no image .*secret\.jpg in files"):
        task.stored_images({**task.rows[0], "image": str(secret)}, row=3)


# ---------------------------------------------------------------- rows that cannot be asked

BAD_CHOICES = [
    ([None, "b"], 0, "option A is no text but None"),
    (["a", None, "c"], 0, "option B is no text but None"),
    (["a", "  "], 0, "option B is no text but '  '"),
    (["a"], 0, "a choice needs two options, here are 1"),
    (["a", None, None], 0, "a choice needs two options, here are 1"),
    (["a", "b"], -1, "the answer index is -1: the label is withheld"),
    (["a", "b"], 2, "the answer index is 2: 2 options"),
    (["a", "b", None], 2, "the answer index is 2: 2 options"),
    (["a", "b"], None, "the answer None is no index of an option"),
]


@pytest.mark.parametrize(("choices", "index", "message"), BAD_CHOICES)
def test_a_bad_choice_names_task_and_row(
    open_rows: Open, choices: list[str | None], index: int | None, message: str
) -> None:
    good = {"question": "q", "choices": ["a", "b"], "index": 0}
    features = {"question": Value("string"), "choices": List(Value("string"))}
    rows = [good, good | {"choices": choices, "index": index}]

    task = open_rows(rows, features=features | {"index": Value("int64")}, **CHOICE)

    with pytest.raises(BadRow) as error:
        task.reference(task.rows[1], row=1)
    assert str(error.value) == f"task mine, row 1: {message}"


@pytest.mark.parametrize(
    ("question", "answer", "message"),
    [
        (None, "a", "column 'question' is empty"),
        (" \n", "a", "column 'question' is empty"),
        ("q", None, "column 'answer' is empty"),
        ("q", "", "column 'answer' is empty"),
    ],
)
def test_an_empty_question_or_answer_is_never_sent(
    open_rows: Open, question: str | None, answer: str | None, message: str
) -> None:
    features = dict.fromkeys(("question", "answer"), Value("string"))

    task = open_rows([{"question": question, "answer": answer}], features=features)

    with pytest.raises(BadRow, match=message):
        task.prompt_text(task.rows[0], row=0)


@pytest.mark.parametrize("answer", [None, " "])
def test_an_empty_reference_names_task_and_row(open_rows: Open, answer: str | None) -> None:
    features = dict.fromkeys(("question", "answer"), Value("string"))
    task = open_rows([{"question": "q", "answer": answer}], features=features)

    with pytest.raises(BadRow, match="task mine, row 0: the reference is no text"):
        task.reference(task.rows[0], row=0)


@pytest.mark.parametrize("fields", [{}, {"doc_to_text": "question"}])
def test_a_number_where_text_is_needed_names_task_and_row(
    open_rows: Open, fields: dict[str, Any]
) -> None:
    task = open_rows([{"question": 1, "answer": 2}], **fields)

    with pytest.raises(BadRow, match="task mine, row 0: the reference is no text but 2"):
        task.reference(task.rows[0], row=0)
    if fields:
        with pytest.raises(BadRow, match="task mine, row 0: the prompt is no text but 1"):
            task.prompt_text(task.rows[0], row=0)


def test_an_answer_that_is_not_among_the_options_names_task_and_row() -> None:
    task = open_fixture("pubmedqa")

    with pytest.raises(
        BadRow, match="task pubmedqa, row 4: the reference cannot be read: 'perhaps'"
    ):
        task.reference({**task.rows[0], "final_decision": "perhaps"}, row=4)


def test_the_withheld_labels_of_medmcqa_are_told_by_task_and_row() -> None:
    task = open_fixture("medmcqa")
    withheld = task.dataset["test"][1]

    with pytest.raises(BadRow, match="task medmcqa, row 1: the answer index is -1"):
        task.reference(withheld, row=1)


def test_a_bad_first_row_does_not_close_the_task_to_the_others(open_rows: Open) -> None:
    rows = [
        {"question": "q", "choices": [None, "b"], "index": 0},
        {"question": "q", "choices": ["a", "b"], "index": 1},
    ]

    task = open_rows(rows, **CHOICE)

    assert task.reference(task.rows[1]) == "b"


def test_a_row_without_image_names_task_and_row(open_rows: Open) -> None:
    features = {**dict.fromkeys(("question", "answer"), Value("string")), **IMAGE["features"]}
    row = {"question": "q", "answer": "a", "image": None}

    task = open_rows([row], doc_to_image="image", features=features)

    with pytest.raises(BadRow, match="task mine, row 0: no image in image"):
        task.stored_images(task.rows[0], row=0)


def test_a_name_that_is_not_in_the_zip_names_task_and_row() -> None:
    task = open_fixture("slake_vqa")

    with pytest.raises(
        BadRow, match=r"task slake_vqa, row 2: no image imgs/none\.jpg in imgs\.zip"
    ):
        task.stored_images({**task.rows[0], "img_name": "none.jpg"}, row=2)


# ---------------------------------------------------------------- datasets that are not as told


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
    with pytest.raises(DatasetError, match="task mine: 1 rows, but the task file says 2"):
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

    assert "--data-root holds each dataset as ORG/NAME" in error.value.hint


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


# ---------------------------------------------------------------- mirrors


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

    with pytest.raises(DatasetError, match="1 rows, but the mirror's manifest says 9"):
        open_rows(rows)


@pytest.mark.parametrize(
    ("name", "problem"),
    [("data/test-00000-of-00001.parquet", "but the manifest lists 1 bytes"), ("x.zip", "missing")],
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
