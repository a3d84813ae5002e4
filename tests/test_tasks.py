"""The task files as data: what they say, and what is said of one that is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from medix_eval.cli.app import main
from medix_eval.data.tasks import (
    _TASK_FIELDS,
    Catalogue,
    TaskFile,
    load_tasks,
)
from medix_eval.errors import ConfigError, UnknownName
from medix_eval.records import Kind
from medix_eval.storage.bundled import bundled

MMLU = "clinical_knowledge college_biology college_medicine medical_genetics professional_medicine"
OFFICIAL = [
    *(f"mmlu_{subject}" for subject in [*MMLU.split(), "anatomy"]),
    *("medmcqa", "medqa", "usmle_sa", "pubmedqa", "mimic_cxr_report_summarization"),
    *("slake_vqa", "rad_vqa", "path_vqa", "pmc_vqa", "pmc_vqa_hard"),
    "mimic_cxr_report_generation",
]

MINIMAL: dict[str, Any] = {
    "task": "mine",
    "class": "medix_eval.lm_task.MedixTask",
    "dataset_path": "org/name",
    "test_split": "test",
    "doc_to_text": "{{ question }}",
    "doc_to_target": "answer",
    "metadata": {
        "version": 1,
        "medix": {
            "kind": "open",
            "modality": "text",
            "data_class": "public",
            "licence": "mit",
            "num_samples": None,
        },
    },
}
CHOICE = {"doc_to_choice": ["yes", "no"], "metadata.medix.kind": "multiple_choice"}


def changed(changes: dict[str, Any]) -> dict[str, Any]:
    """Return the minimal task with some fields set; `...` takes a field away."""
    fields: dict[str, Any] = yaml.safe_load(yaml.safe_dump(MINIMAL))
    for dotted, value in changes.items():
        *above, last = dotted.split(".")
        place = fields
        for key in above:
            place = place[key]
        if value is ...:
            place.pop(last, None)
        else:
            place[last] = value
    return fields


def write(folder: Path, fields: dict[str, Any] | str, *, name: str = "mine") -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(fields if isinstance(fields, str) else yaml.safe_dump(fields))
    return path


def read(folder: Path, changes: dict[str, Any] | None = None) -> TaskFile:
    write(folder, changed(changes or {}))
    return load_tasks([folder]).tasks["mine"]


@pytest.mark.parametrize(
    ("group", "size"),
    [("medix", 17), ("llm", 11), ("vlm", 6), ("medvqa", 5), ("mmlu_medical", 6), ("mimic_cxr", 2)],
)
def test_each_published_group_has_its_published_size(
    catalogue: Catalogue, group: str, size: int
) -> None:
    assert len(set(catalogue.groups[group])) == len(catalogue.groups[group]) == size


def test_the_group_medix_is_the_17_official_tasks(catalogue: Catalogue) -> None:
    assert sorted(catalogue.groups["medix"]) == sorted(OFFICIAL)


def test_the_published_pubmedqa_exists_beside_the_correct_one_and_in_no_group(
    catalogue: Catalogue,
) -> None:
    assert "pubmedqa_compat" in catalogue.tasks
    assert catalogue.groups_of("pubmedqa_compat") == ()


def test_a_task_knows_all_of_its_groups(catalogue: Catalogue) -> None:
    assert set(catalogue.groups_of("slake_vqa")) == {"medix", "vlm", "medvqa"}


def test_all_is_another_name_for_medix(catalogue: Catalogue) -> None:
    assert catalogue.select(["all"]) == catalogue.select(["medix"])


def test_names_are_selected_in_order_and_once(catalogue: Catalogue) -> None:
    selected = catalogue.select(["pubmedqa, mimic_cxr", "mimic_cxr_report_generation,medqa"])

    assert selected == (
        "pubmedqa",
        "mimic_cxr_report_summarization",
        "mimic_cxr_report_generation",
        "medqa",
    )


@pytest.mark.parametrize("names", [[], [""], [" , "]])
def test_an_empty_selection_is_an_error(catalogue: Catalogue, names: list[str]) -> None:
    with pytest.raises(ConfigError, match="no task is named"):
        catalogue.select(names)


@pytest.mark.parametrize(("name", "nearest"), [("medmqca", "medmcqa"), ("medixx", "medix")])
def test_an_unknown_name_suggests_the_nearest(
    catalogue: Catalogue, name: str, nearest: str
) -> None:
    with pytest.raises(UnknownName, match=repr(name)) as error:
        catalogue.select([name])

    assert error.value.hint == f"did you mean {nearest!r}?"


def test_only_data_under_a_use_agreement_is_marked_so(catalogue: Catalogue) -> None:
    restricted = {
        name for name, task in catalogue.tasks.items() if task.settings.data_class == "dua"
    }

    assert restricted == set(catalogue.groups["mimic_cxr"])


def test_only_reports_are_graded_from_0_to_5(catalogue: Catalogue) -> None:
    official = [catalogue.tasks[name] for name in OFFICIAL]
    wide = {task.name for task in official if task.settings.score_range == (0, 5)}

    assert wide == {task.name for task in official if task.settings.kind is Kind.REPORT}


def test_the_listing_imports_no_heavy_package() -> None:
    script = (
        "import sys; from medix_eval.storage.bundled import bundled;"
        "from medix_eval.data.tasks import *;"
        "load_tasks([bundled('tasks')]);"
        "heavy = {'torch', 'transformers', 'datasets', 'lm_eval', 'pandas', 'openai', 'vllm'};"
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)"
    )

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_no_file_of_python_lies_among_the_task_files() -> None:
    assert not list(bundled("tasks").rglob("*.py"))


def test_a_minimal_task_file_is_read(tmp_path: Path) -> None:
    task = read(tmp_path)

    assert (task.key, task.split, task.dataset_path) == ("mine@1", "test", "org/name")


def test_a_pinned_commit_is_read_from_the_field_that_stock_lm_eval_uses(tmp_path: Path) -> None:
    assert read(tmp_path, {"dataset_kwargs": {"revision": "abc"}}).revision == "abc"


def test_any_change_of_the_resolved_file_changes_the_digest(tmp_path: Path) -> None:
    write(tmp_path, "tag: one\n", name="_base")
    before = read(tmp_path, {"include": "_base.yaml"})

    write(tmp_path, "tag: another\n", name="_base")

    assert load_tasks([tmp_path]).tasks["mine"].digest != before.digest


def test_the_digest_does_not_depend_on_where_the_file_is(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()

    assert read(folders[0]).digest == read(folders[1]).digest


def test_own_fields_win_over_included_ones_and_nested_ones_are_replaced_whole(
    tmp_path: Path,
) -> None:
    write(tmp_path, "test_split: base\ndataset_kwargs: {revision: base}\n", name="_base")

    task = read(tmp_path, {"include": "_base.yaml", "dataset_kwargs": {"other": 1}})

    assert (task.split, task.revision) == ("test", None)


BAD_FILES: list[tuple[dict[str, Any], str, str]] = [
    ({"doc_to_txt": "x"}, "doc_to_txt: not a field of lm-eval", "did you mean 'doc_to_text'?"),
    ({"task": ...}, "task: the file names neither a task nor a group", ""),
    ({"metadata": ...}, "metadata.medix is missing", ""),
    ({"metadata.medix": ...}, "metadata.medix is missing", ""),
    ({"metadata.medix.kindd": "open"}, r"metadata\.medix\.kindd: Extra", "did you mean 'kind'?"),
    ({"metadata.medix.kind": "essay"}, r"metadata\.medix\.kind: Input should be", ""),
    ({"metadata.medix.num_samples": ...}, r"metadata\.medix\.num_samples: Field required", ""),
    ({"metadata.medix.num_samples": 0}, r"metadata\.medix\.num_samples: ", ""),
    ({"metadata.medix.score_range": [0, 3]}, r"score_range is \[0, 1\] or \[0, 5\]", ""),
    ({"metadata.version": ...}, r"metadata\.version: use an integer", ""),
    ({"metadata.version": 1.10}, r"metadata\.version: use an integer", ""),
    ({"metadata.version": True}, r"metadata\.version: use an integer", ""),
    ({"test_split": ...}, "test_split: the file names no split", ""),
    ({"dataset_path": ...}, "dataset_path: the file names no dataset", ""),
    ({"class": ...}, "class: the field is missing", ""),
    ({"doc_to_text": ...}, "doc_to_text: the field is missing", ""),
    ({"doc_to_target": ...}, "doc_to_target: the field is missing", ""),
    (CHOICE | {"doc_to_choice": ...}, "doc_to_choice: a multiple_choice task needs", ""),
    (CHOICE | {"doc_to_choice": [True, False]}, "doc_to_choice: True is not text", "quote it"),
    (CHOICE | {"doc_to_choice": {"a": "yes", "b": False}}, "doc_to_choice: False is not", "quote"),
    ({"metadata.medix.modality": "image"}, "doc_to_image: a task of modality image needs", ""),
    ({"doc_to_image": "image"}, "doc_to_image: a task of modality text has no images", ""),
    (
        {"metadata.medix.image_source": {"zip": "a.zip", "member": "x"}},
        "image_source is only for modality: image",
        "",
    ),
    ({"metadata.medix.image_source": {"member": "x"}}, "name either a zip or a folder", ""),
    ({"include": ["_a.yaml", "_b.yaml"]}, "include: name one file", ""),
    ({"include": "_none.yaml"}, "include: there is no file", ""),
    ({"include": "mine.yaml"}, "include: mine.yaml includes itself", ""),
]


@pytest.mark.parametrize(
    ("changes", "message", "hint"), BAD_FILES, ids=["+".join(case[0]) for case in BAD_FILES]
)
def test_a_wrong_task_file_is_an_error_that_names_file_and_field(
    tmp_path: Path, changes: dict[str, Any], message: str, hint: str
) -> None:
    path = write(tmp_path, changed(changes))

    with pytest.raises(ConfigError, match=message) as error:
        load_tasks([tmp_path])

    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)
    assert hint in error.value.hint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("task: [", "not valid YAML", id="broken"),
        pytest.param("- task", "a task file is a mapping", id="list"),
        pytest.param("", "a task file is a mapping", id="empty"),
        pytest.param("task: !!python/name:os.system", "not valid YAML", id="python-tag"),
        pytest.param("group: g\ntask: medqa", "task: a group lists its tasks", id="group-of-text"),
        pytest.param("group: g\ntask: [1]", "task: 1 is not a name", id="group-of-numbers"),
        pytest.param("group: g\ntask: [medqa]", "no task or group is named 'medqa'", id="stranger"),
        pytest.param("group: g\ntask: [g]", "group 'g' contains itself", id="circle"),
        pytest.param(
            "group: g\ntask: [a]\ntaks: 1", "taks: not a field of lm-eval", id="group-field"
        ),
    ],
)
def test_a_file_that_is_no_task_or_group_is_an_error(
    tmp_path: Path, text: str, message: str
) -> None:
    path = write(tmp_path, text)

    with pytest.raises(ConfigError, match=message) as error:
        load_tasks([tmp_path])

    assert str(path) in str(error.value)


HONOURED_BY_STOCK_ONLY: dict[str, Any] = {
    "output_type": "loglikelihood",
    "process_docs": "my.rows",
    "doc_to_audio": "sound",
    "unsafe_code": True,
    "process_results": "my.scores",
    "use_prompt": "promptsource:first",
    "description": "Think well.",
    "fewshot_delimiter": "\n",
    "fewshot_config": "my.examples",
    "fewshot_config.samples": [{"question": "q", "answer": "a"}],
    "num_fewshot": 5,
    "generation_kwargs": ["until"],
    "generation_kwargs.until": ["\n\n"],
    "generation_kwargs.do_sample": True,
    "generation_kwargs.temperature": 0.7,
    "generation_kwargs.top_p": 0.9,
    "metric_list": [],
    "metric_list.metric": "f1",
    "metric_list.aggregation": "median",
    "metric_list.higher_is_better": False,
    "metric_list.ignore_case": True,
    "repeats": 3,
    "filter_list": [{"name": "strict", "filter": [{"function": "take_first"}]}],
    "should_decontaminate": True,
    "gen_prefix": "Answer:",
}


def with_field(dotted: str, value: Any) -> dict[str, Any]:
    """Return a change of the minimal task: one field, or one part of a field."""
    field, _, part = dotted.partition(".")
    if not part:
        return {field: value}
    base = {"metric": "exact_match"} if field == "metric_list" else {}
    return {field: [base | {part: value}] if field == "metric_list" else {part: value}}


@pytest.mark.parametrize("field", HONOURED_BY_STOCK_ONLY)
def test_what_only_stock_lm_eval_would_do_is_refused_by_file_and_field(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], field: str
) -> None:
    path = write(tmp_path, changed(with_field(field, HONOURED_BY_STOCK_ONLY[field])))

    with pytest.raises(SystemExit) as stopped:
        main(["tasks", "--include-path", str(tmp_path)])

    said, hint = capsys.readouterr().err.splitlines()
    assert stopped.value.code == 2
    assert said.startswith(f"error: {path}: {field}: ")
    assert hint.startswith("hint: leave it out")


def test_every_field_that_may_be_refused_is_tried() -> None:
    refused = {name for name, accepted in _TASK_FIELDS.items() if isinstance(accepted, tuple)}

    assert refused <= HONOURED_BY_STOCK_ONLY.keys()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param(field, value, id=f"{field}={value!r}")
        for field, accepted in _TASK_FIELDS.items()
        for value in (
            accepted if isinstance(accepted, tuple) else ["text"] if accepted is not None else []
        )
        if value != "multiple_choice"
    ],
)
def test_what_changes_nothing_is_accepted(tmp_path: Path, field: str, value: Any) -> None:
    assert read(tmp_path, with_field(field, value)).name == "mine"


@pytest.mark.parametrize(
    ("output_type", "metric"), [("generate_until", "acc_norm"), ("multiple_choice", "exact_match")]
)
def test_a_metric_that_is_not_computed_this_way_is_refused(
    tmp_path: Path, output_type: str, metric: str
) -> None:
    changes = {"output_type": output_type, "metric_list": [{"metric": metric}]}

    with pytest.raises(ConfigError, match=r"metric_list\.metric: '" + metric):
        read(tmp_path, CHOICE | changes)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="no options"),
        pytest.param(CHOICE | {"metadata.medix.kind_without_options": "open"}, id="some options"),
        pytest.param(
            CHOICE | {"metadata.medix.modality": "image", "doc_to_image": "image"}, id="images"
        ),
    ],
)
def test_only_text_with_options_is_asked_for_likelihoods(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match="output_type: multiple_choice needs options, and no im"):
        read(tmp_path, {"output_type": "multiple_choice"} | changes)


def test_every_text_task_with_options_has_a_twin_by_likelihood(catalogue: Catalogue) -> None:
    """But for other sources of the same benchmark; no engine of lm-eval weighs text on images."""
    twins = {
        f"{name}_ll"
        for name, task in catalogue.tasks.items()
        if task.settings.kind is Kind.MULTIPLE_CHOICE
        and (task.settings.modality, task.output_type) == ("text", "generate_until")
        and "[" not in name
    }

    assert {*catalogue.groups["medix_ll"]} == twins
    assert {n for n, task in catalogue.tasks.items() if task.output_type != "generate_until"} == (
        twins
    )
    others = (set(members) for name, members in catalogue.groups.items() if name != "medix_ll")
    assert not twins & set().union(*others)


def test_two_files_with_one_task_name_are_an_error(tmp_path: Path) -> None:
    write(tmp_path, changed({}))
    write(tmp_path, changed({}), name="other")

    with pytest.raises(
        ConfigError, match=r"other\.yaml: 'mine' is already defined in .*mine\.yaml"
    ):
        load_tasks([tmp_path])


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a folder of task files"):
        load_tasks([tmp_path / "none"])


def test_tasks_of_a_second_folder_are_added(tmp_path: Path) -> None:
    write(tmp_path, changed({}))

    assert {"mine", "medqa"} <= load_tasks([bundled("tasks"), tmp_path]).tasks.keys()


def test_the_listing_says_which_names_replace_those_of_stock_lm_eval(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["tasks"])

    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith("stock lm-eval runs these medmcqa, pubmedqa and mmlu_* for its own.")
