"""Slices that are made of a row's text: how, what they leave alone, and what is shown of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from opened_tasks import CATALOGUE, CHOICE, HUB, Open, open_fixture
from scripted_servers import Run, Serve, candidate, judge, records

from medix_eval.data import tasks
from medix_eval.data.samples import read_samples, select_rows
from medix_eval.errors import ConfigError, DatasetError
from medix_eval.evaluation.pipeline import line_of
from medix_eval.exchange.checking import differences_from_data
from medix_eval.records import Sample
from medix_eval.results.store import TaskEntry
from medix_eval.storage.bundled import bundled
from medix_eval.testing import prompt_text

DRUG = {"column": "question", "patterns": [["b", "beta"], ["a", "alpha"]], "default": "c"}


def value_of(file: str, text: str) -> str:
    given = {"column": "text", "file": file}
    return tasks.Derived.model_validate(given).value_of({"text": text})


def test_the_first_pattern_of_the_list_decides_wherever_it_stands(open_rows: Open) -> None:
    texts = ["alpha, then beta", "alpha", "gamma"]
    rows = [{"question": text, "answer": "x"} for text in texts]
    task = open_rows(rows, settings={"derived": {"drug": DRUG}})

    assert [task.columns(row)["drug"] for row in task.rows] == ["b", "a", "c"]


def test_an_empty_text_has_the_default(open_rows: Open) -> None:
    rows = [
        {"question": "q", "answer": "x", "note": None},
        {"question": "q", "answer": "x", "note": "beta"},
    ]
    task = open_rows(rows, settings={"derived": {"drug": DRUG | {"column": "note"}}})

    assert [task.columns(row)["drug"] for row in task.rows] == ["c", "b"]


def test_a_column_that_is_missing_is_named(open_rows: Open) -> None:
    with pytest.raises(DatasetError, match="no column 'stem'"):
        open_rows(
            [{"question": "q", "answer": "x"}],
            settings={"derived": {"drug": DRUG | {"column": "stem"}}},
        )


@pytest.mark.parametrize(
    ("derived", "said"),
    [
        ({"drug": DRUG | {"patterns": [["a", "("]]}}, "drug.patterns.0.1: .*regular expression"),
        ({"drug": DRUG | {"patterns": [[True, "x"]]}}, "drug.patterns.0.0: .*string"),
        (
            {"drug": {"column": "question", "file": "_none.yaml"}},
            "drug: .*_none.yaml cannot be read",
        ),
        ({"drug": {"file": "_sex.yaml"}}, "drug.column: Field required"),
        ({"drug": DRUG | {"files": "_sex.yaml"}}, "drug.files: Extra inputs"),
        ({"organ": DRUG}, "derived: 'organ' is the name of a column, too"),
    ],
)
def test_a_mistake_is_named_with_its_place(
    open_rows: Open, derived: dict[str, Any], said: str
) -> None:
    rows = [{"question": "q", "answer": "x", "organ": "lung"}]

    with pytest.raises(ConfigError, match=rf"mine\.yaml: metadata\.medix.*{said}"):
        open_rows(rows, settings={"slices": ["organ"], "derived": derived})


def test_a_changed_pattern_is_another_digest_of_its_tasks_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(bundled("tasks"), tmp_path / "tasks")
    monkeypatch.setattr(tasks, "bundled", lambda kind: tmp_path / kind)
    before = tasks.load_tasks([tmp_path / "tasks"]).tasks
    file = tmp_path / "tasks" / "slices" / "_sex.yaml"
    file.write_text(file.read_text().replace("gentleman", "chap"))
    after = tasks.load_tasks([tmp_path / "tasks"]).tasks

    assert {name: one.digest for name, one in before.items()} == {
        name: one.digest for name, one in CATALOGUE.tasks.items()
    }
    assert {name for name in before if before[name].digest != after[name].digest} == {
        "medqa", "medqa[fallback=gbaker]", "medqa_ll",
    }  # fmt: skip


def test_the_order_of_the_patterns_is_in_the_digest(tmp_path: Path) -> None:
    def digest(patterns: list[list[str]]) -> str:
        fields = yaml.safe_load(
            Path(bundled("tasks"), "phantom/phantom_open.yaml").read_text().replace("!function", "")
        )
        fields["metadata"]["medix"]["derived"] = {"drug": DRUG | {"patterns": patterns}}
        fields["include"] = str(bundled("tasks") / "_free_text.yaml")
        (tmp_path / "one.yaml").write_text(yaml.safe_dump(fields))
        return tasks.load_tasks([tmp_path]).tasks["phantom_open"].digest

    assert digest([["a", "x"], ["b", "y"]]) != digest([["b", "y"], ["a", "x"]])


@pytest.mark.parametrize("name", ["medqa", "medmcqa"])
def test_the_rows_of_a_limited_run_do_not_depend_on_slices_made_of_text(name: str) -> None:
    task = open_fixture(name)
    columns = [[str(row[column]) for column in task.settings.slices] for row in task.rows]
    plain = select_rows([*map(tuple, columns)], limit=6, seed=0, task=name)

    assert task.settings.derived
    assert select_rows(task.slice_values(), limit=6, seed=0, task=name) == plain


PICTURES = {
    "yes": [
        "An X-ray of the wrist is shown. Which bone is broken?",
        "His rash is shown in the accompanying photograph. What is it?",
        "There is a dark mole on her back (see image). What comes next?",
        "A chest film is taken (Figure 2). Which drug helps?",
        "Which cells make the hormone of the region in figure B?",
        "An ECG is performed and shown below. Which drug helps?",
        "The structure marked with an arrow is supplied by which nerve?",
        "A graph of pressure and volume is shown. The dashed line is which state?",
        "Refer to the image below of the brain. Which artery is blocked?",
        "The picture shows a smear of his blood.",
        "His blood smear is pictured below. What is the cause?",
    ],
    "no": [
        "Laboratory values are shown below. Sodium: 140 mEq/L. What comes next?",
        "The results are shown in the following table: Drug 12, placebo 20.",
        "An X-ray of the wrist shows a fracture of the scaphoid.",
        "She sees two images on top of each other. Which nerve is weak?",
        "Biopsy shows cells with many mitotic figures. What is it?",
        "Studies have shown that statins lower the risk. By how much?",
        "He exhibits a fine tremor. The liver is 2 cm below the ribs.",
        "She has photophobia and works as a graphic designer. What is it?",
        "A pedigree is drawn for the family, in which two sons are ill.",
        "The child figures out how to draw a picture of a house. How old is it?",
        "Her weight is below the growth curve shown by most children.",
    ],
}  # fmt: skip
PEOPLE = [
    ("A 24-year-old woman has a cough.", "18 to 64 years", "female"),
    ("A previously healthy 71-year-old retired man has a cough.", "65 years or more", "male"),
    ("A 15-year-old boy is brought by his mother.", "12 to 17 years", "male"),
    ("An 18-month-old girl has a fever.", "1 to 11 years", "female"),
    ("A 6-week-old boy vomits.", "under 1 year", "male"),
    ("A 3900-g female newborn is delivered to a 30-year-old woman.", "under 1 year", "female"),
    ("A mother brings her 6-year-old daughter.", "1 to 11 years", "female"),
    ("A 31-year-old woman brings her 2-year-old son.", "unclear", "unclear"),
    ("A 29-year-old woman is giving birth to a boy.", "unclear", "unclear"),
    ("A 40-year-old nurse has back pain.", "18 to 64 years", "not told"),
    ("A 55-year-old patient is driven here by a man.", "18 to 64 years", "male"),
    ("Two hundred men were asked how old they are.", "not told", "not told"),
    ("Which enzyme does a statin inhibit?", "not told", "not told"),
]
REPORTS = {
    "normal": [
        "No acute cardiopulmonary process.",
        "The lungs are clear. There is no pleural effusion or pneumothorax.",
        "Normal chest radiograph.",
        "Lungs are clear without consolidation or edema.",
    ],
    "abnormal": [
        "No acute cardiopulmonary process. Stable cardiomegaly.",
        "Small left pleural effusion, no pneumothorax.",
        "Clear lungs, enlarged heart.",
        "Normal chest except for a nodule.",
    ],
    "unclear": [
        "No acute process, but there is a large right effusion.",
        "Chest is not normal.",
        "Endotracheal tube ends above the carina. Lungs are clear.",
        "No pneumothorax.",
        "As compared with the previous film, no relevant change.",
        "",
    ],
}


@pytest.mark.parametrize(("value", "text"), [(v, text) for v in PICTURES for text in PICTURES[v]])
def test_a_question_about_a_picture_that_is_not_there_is_known(value: str, text: str) -> None:
    assert value_of("_absent_image.yaml", text) == value


@pytest.mark.parametrize(("text", "age", "sex"), PEOPLE)
def test_age_and_sex_are_those_of_the_patient(text: str, age: str, sex: str) -> None:
    assert (value_of("_age_group.yaml", text), value_of("_sex.yaml", text)) == (age, sex)


@pytest.mark.parametrize(("value", "text"), [(v, text) for v in REPORTS for text in REPORTS[v]])
def test_a_report_is_normal_only_where_nothing_in_it_says_otherwise(value: str, text: str) -> None:
    assert value_of("_normality.yaml", text) == value


def test_what_slices_a_task_has_is_listed_and_shown(run: Run) -> None:
    _, listed, _ = run("tasks")
    _, as_json, _ = run("tasks", "--json")
    _, shown, _ = run("show", "medmcqa", "--data-root", HUB)

    (line,) = [line for line in listed.splitlines() if line.startswith("medqa ")]
    assert line.endswith("public needs_absent_image age_group sex")
    slices = {one["name"]: one["slices"] for one in json.loads(as_json)["tasks"]}
    assert slices["medmcqa"] == ["subject_name", "choice_type", "needs_absent_image"]
    row = open_fixture("medmcqa").rows[0]
    assert f", subject_name: {row['subject_name']}, " in shown.splitlines()[0]
    assert shown.splitlines()[0].endswith("needs_absent_image: no")


def report_of(out: str) -> tuple[dict[str, Any], str, str]:
    scores = json.loads(out)
    place = Path(scores["run"])
    return scores, (place / "report.md").read_text(), (place / "report.html").read_text()


def answers_of(scores: dict[str, Any]) -> list[dict[str, Any]]:
    folders = Path(scores["run"]).parents
    return records(
        next(one for one in folders if (one / "completions.jsonl").exists()), "completions.jsonl"
    )


def test_the_score_without_absent_pictures_stands_beside_the_score(
    open_rows: Open, run: Run, serve: Serve, tmp_path: Path
) -> None:
    asked = ["What is it? (see image)", "An ECG is shown. Which drug?", *"defgh"]
    rows = [
        {"question": f"{text}\nA. x\nB. y", "choices": ["x", "y"], "index": at % 2}
        for at, text in enumerate(asked)
    ]
    derived = {"needs_absent_image": {"column": "question", "file": "_absent_image.yaml"}}
    open_rows(rows, settings={"derived": derived}, **CHOICE)
    argv = (
        "--tasks",
        "mine",
        "--include-path",
        tmp_path / "tasks",
        "--data-root",
        tmp_path / "hub",
    )

    code, out, err = run(
        *candidate(serve(lambda _: "A")),
        *argv,
        "--protocol",
        "rules",
        "--out",
        tmp_path / "out",
        "--json",
    )

    assert code == 0, err
    scores, markdown, page = report_of(out)
    kept = [float(at % 2 == 0) for at in range(2, len(asked))]
    without = scores["tasks"]["mine"]["slices"]["needs_absent_image"]["no"]
    assert (without["n"], without["score"]) == (5, sum(kept) / 5) == (5, 0.6)
    for shown in (markdown, page):
        assert "mine: 60.0 (" in shown
        assert "without 2 questions about a picture that is not there." in shown


def test_specialties_pool_the_samples_of_several_tasks(evaluate: Run, serve: Serve) -> None:
    server = serve(lambda _: "A")
    code, out, err = evaluate(
        *candidate(server), "--tasks", "medmcqa,mmlu_anatomy", "--protocol", "rules"
    )

    assert code == 0, err
    scores, markdown, page = report_of(out)
    names = {"medmcqa": "Anatomy", "mmlu_anatomy": None}
    right = [
        one["reference"] == one["options"][0]
        for one in answers_of(scores)
        for subject in [names[one["task"].partition("@")[0]]]
        if subject in (None, one.get("columns", {}).get("subject_name"))
    ]
    assert len(right) > scores["tasks"]["mmlu_anatomy"]["n"]
    said = f"anatomy {100 * sum(right) / len(right):.1f} (n {len(right)})"
    assert f"By specialty, all tasks together: {said}." in markdown
    assert said in page


def test_every_specialty_names_tasks_and_values_that_exist() -> None:
    known = yaml.safe_load((bundled("tasks") / "slices" / "_specialties.yaml").read_text())
    sources = [source.split("/", 2) for several in known.values() for source in several]

    assert len({*map(tuple, sources)}) == len(sources)
    for task, *place in sources:
        assert task in CATALOGUE.tasks
        assert not place or place[0] in CATALOGUE.tasks[task].settings.slices


NORMAL = "No acute process."


def test_an_always_normal_report_is_judged_in_place_of_the_models(
    open_rows: Open, run: Run, serve: Serve, tmp_path: Path
) -> None:
    answers = [NORMAL, "A fracture.", NORMAL, "A large effusion.", "Pneumonia."]
    settings = {
        "kind": "report", "score_range": [0, 5], "normal_report": NORMAL,
        "derived": {"normality": {"column": "answer", "file": "_normality.yaml"}},
    }  # fmt: skip
    rows = [{"question": f"q{at}", "answer": text} for at, text in enumerate(answers)]
    open_rows(rows, settings=settings)
    model = serve(lambda _: "A fracture.")

    def marks(body: dict[str, Any]) -> str:
        """Full marks where the answer is the reference."""
        text = prompt_text(body)
        is_same = any(text.count(one) == 2 for one in answers)
        return '{"score": 5}' if is_same else '{"score": 0}'

    flags = (*candidate(model), *judge(serve(marks)), "--tasks", "mine", "--out", tmp_path / "out")
    data = ("--include-path", tmp_path / "tasks", "--data-root", tmp_path / "hub")
    _, out, err = run(*flags, *data, "--control", "always-normal", "--json")

    scores, markdown, page = report_of(out)
    assert len(model.requests) == len(answers), err  # those of the plain run only
    assert scores["tasks"]["mine"]["score"] == 2 / 5
    assert {one["completion"] for one in answers_of(scores)} == {NORMAL}
    gain = scores["effect"]["tasks"]["mine"]
    assert (scores["effect"]["name"], gain["n"]) == ("gain over normal", 5)
    assert gain["difference"] == pytest.approx(1 / 5 - 2 / 5)
    for shown in (markdown, page):
        assert "mine: normal are 40.0 % of the references" in shown
        assert "CONTROL always-normal" in shown


def test_a_task_without_a_normal_report_is_refused_before_anything_is_sent(
    run: Run, serve: Serve, tmp_path: Path
) -> None:
    server = serve(lambda _: "x")
    argv = ("--tasks", "phantom_report,phantom_open", "--protocol", "rules", "--out", tmp_path)

    code, _, err = run(*candidate(server), *argv, "--control", "always-normal")

    assert (code, server.requests) == (2, [])
    assert "--control always-normal: no normal report in phantom_report, phantom_open" in err


def test_a_run_of_a_version_without_these_slices_still_matches_its_data() -> None:
    task, file = open_fixture("medqa"), CATALOGUE.tasks["medqa"]
    rows = range(len(task.rows))
    read = read_samples(task, rows, key=file.key, done=frozenset(), taken=set())
    now = {(file.key, one.id): line_of(one) for one in read if isinstance(one, Sample)}
    old = {name: one.model_copy(update={"columns": {}}) for name, one in now.items()}

    def differences(stored: Any, slices: list[str]) -> list[str]:
        entry = TaskEntry(
            version="1", digest="d", source={}, synthetic=True, num_rows=len(rows),
            limit=None, seed=0, rows=None, slices=slices,
            data_class="public", modality="text", kind="multiple_choice",
        )  # fmt: skip
        return [*differences_from_data(task, entry, key=file.key, theirs=stored, has_text=True)]

    assert differences(now, [*file.settings.slice_names]) == differences(old, []) == []
    assert len(differences(old, [*file.settings.slice_names])) == len(now)
