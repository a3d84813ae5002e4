"""Controls: what is disturbed, what stays, and what comes of it."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scripted_servers import HUB, Run

from medix_eval.cli.app import main
from medix_eval.data import tasks
from medix_eval.data.lm_task import MedixTask, open_task
from medix_eval.data.samples import BadSample, read_samples
from medix_eval.errors import BadRow, ConfigError, UnknownName
from medix_eval.evaluation.controls import KINDS, Control, Disturbance, disturbing
from medix_eval.models.openai_server import OpenAIServer
from medix_eval.records import Kind, Sample
from medix_eval.storage.bundled import bundled
from medix_eval.testing import ScriptedServer, prompt_text

CATALOGUE = tasks.load_tasks([bundled("tasks")])


def opened(name: str) -> tuple[MedixTask, list[Sample]]:
    task = open_task(CATALOGUE.tasks[name], data_root=HUB)
    rows = range(min(len(task.rows), 40))
    read = read_samples(task, rows, key=CATALOGUE.tasks[name].key, done=set(), taken=set())
    return task, [sample for sample in read if not isinstance(sample, BadSample)]


def question(*options: str, form: str = "{}. {}") -> Sample:
    lines = [form.format("ABCDE"[at], option) for at, option in enumerate(options)]
    prompt = "\n".join(["What is seen?", "", "Choices:", *lines])
    return Sample(
        id="one", task="t@1", row=3, kind=Kind.MULTIPLE_CHOICE, prompt=prompt,
        reference=options[0], options=options,
    )  # fmt: skip


def shuffled(sample: Sample, number: int = 1) -> Sample:
    task: Any = None
    return disturbing([Control("shuffle-options", number)], task)(sample)


def test_a_new_sort_of_control_is_for_the_tasks_that_have_what_it_disturbs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    upper = Disturbance("options", lambda _task, _number: lambda sample: sample)
    monkeypatch.setitem(KINDS, "upper-case", upper)

    control = Control.named("upper-case")

    assert control.disturbs == "options"
    assert control.fits(CATALOGUE.tasks["medqa"].settings)
    assert not control.fits(CATALOGUE.tasks["rad_vqa"].settings)


def test_an_unknown_sort_of_control_cannot_be_built() -> None:
    with pytest.raises(UnknownName, match="no control is named 'blank-page'"):
        Control("blank-page")


@pytest.mark.parametrize("name", ["no-image", "blank-image", "wrong-image"])
@pytest.mark.parametrize("of", ["rad_vqa", "slake_vqa", "phantom_open"])
def test_a_control_of_images_leaves_question_reference_and_id_alone(name: str, of: str) -> None:
    task, samples = opened(of)
    disturb = disturbing([Control(name)], task)

    for sample in samples:
        found = disturb(sample)

        assert (found.id, found.row, found.reference) == (sample.id, sample.row, sample.reference)
        assert found.images != sample.images
        assert found.prompt.count("<image>") == len(found.images)
        assert found.prompt.replace("<image>", "") == sample.prompt.replace("<image>", "")


def test_a_blank_image_has_the_size_of_the_image_and_one_shade() -> None:
    task, samples = opened("rad_vqa")

    (blank,) = disturbing([Control("blank-image")], task)(samples[0]).images

    before = Image.open(io.BytesIO(samples[0].images[0]))
    after = Image.open(io.BytesIO(blank))
    assert after.size == before.size
    assert len(after.getcolors() or ()) == 1


def test_a_wrong_image_is_another_one_of_the_same_modality_and_always_the_same() -> None:
    task, samples = opened("phantom_open")
    modality_of = {sample.images: sample.columns["modality"] for sample in samples}
    every = {task.stored_images(row)[0]: row["modality"] for row in task.rows}

    swapped = [disturbing([Control("wrong-image")], task)(sample) for sample in samples]
    again = [disturbing([Control("wrong-image")], task)(sample) for sample in reversed(samples)]

    assert swapped == again[::-1]
    assert len({sample.images for sample in swapped}) > len(samples) / 2
    for before, after in zip(samples, swapped, strict=True):
        assert before.images != after.images
        assert every[after.images[0]] == modality_of[before.images]


def test_options_move_in_prompt_and_record_and_the_reference_keeps_its_text() -> None:
    sample = question("lung", "liver", "left lung", "spleen", form="({}) {}")

    found = shuffled(sample)

    assert found.options != sample.options
    assert sorted(found.options) == sorted(sample.options)
    assert found.reference == "lung"
    assert found.prompt == question(*found.options, form="({}) {}").prompt


def test_every_task_with_options_has_some_that_move() -> None:
    names = [
        name
        for name, file in CATALOGUE.tasks.items()
        if file.settings.kind is Kind.MULTIPLE_CHOICE and "fallback" not in name
    ]
    moved: dict[str, int] = {}
    for name in names:
        task, samples = opened(name)
        disturb = disturbing([Control("shuffle-options")], task)
        for sample in samples:
            try:
                moved[name] = moved.get(name, 0) + (disturb(sample).options != sample.options)
            except BadRow:
                continue

    assert {name: moved.get(name, 0) for name in names if not moved.get(name)} == {}


@given(options=st.lists(st.text("ab(.[", min_size=1, max_size=4), min_size=2, max_size=5))
def test_other_orders_hold_the_same_options_or_the_sample_is_skipped(options: list[str]) -> None:
    sample = question(*options)
    try:
        found = shuffled(sample)
    except BadRow:
        return

    assert sorted(found.options) == sorted(options)
    assert found.options != sample.options
    assert found.prompt == question(*found.options).prompt


def test_none_of_the_above_stays_last() -> None:
    sample = question("lung", "liver", "spleen", "None of the above")

    orders = {shuffled(sample, number).options for number in range(1, 30)}

    assert {order[-1] for order in orders} == {"None of the above"}
    assert len(orders) == 5


@pytest.mark.parametrize(
    ("options", "why"),
    [
        pytest.param(("lung", "liver", "Both A and B"), "name each other", id="letters"),
        pytest.param(("lung", "All of the above", "liver"), "name each other", id="above"),
        pytest.param(("lung", "lung", "None of the above"), "only one order", id="equal"),
    ],
)
def test_options_that_cannot_move_are_no_answer_at_all(options: tuple[str, ...], why: str) -> None:
    with pytest.raises(BadRow, match=why):
        shuffled(question(*options))


@pytest.mark.parametrize("option", ["A", "Hepatitis A and B", "Vitamin D", "a fracture"])
def test_an_option_with_a_letter_in_it_moves(option: str) -> None:
    assert shuffled(question(option, "spleen")).options == ("spleen", option)


def test_options_that_a_prompt_does_not_list_are_not_moved() -> None:
    sample = question("lung", "liver")
    hidden = Sample(
        id="x", task="t@1", row=3, kind=sample.kind, prompt="lung or liver?",
        reference="lung", options=sample.options,
    )  # fmt: skip

    with pytest.raises(BadRow, match="row 3: its prompt must list its options once, one per line"):
        shuffled(hidden)


@pytest.mark.parametrize("name", ["no-images", "blank-image:2", "shuffle-options:0"])
def test_a_control_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        Control.named(name)


@pytest.fixture
def call(run: Run, tmp_path: Path) -> Run:
    def called(*argv: str) -> tuple[int, str, str]:
        return run(*argv, "--protocol", "rules", "--data-root", HUB, "--out", tmp_path)

    return called


@pytest.fixture
def seeing() -> Iterator[ScriptedServer]:
    """A server that says yes to every picture, and no where there is none."""

    def script(body: dict[str, Any]) -> str:
        return "yes" if "image_url" in json.dumps(body["messages"]) else "no"

    with ScriptedServer(script) as server:
        yield server


def test_a_control_asks_the_plain_run_too_and_compares(call: Run, seeing: ScriptedServer) -> None:
    asked = partial(call, "--model", "openai:scripted", "--base-url", seeing.url)
    code, out, _ = asked("--tasks", "slake_vqa", "--control", "no-image", "--json")

    scores = json.loads(out)
    effect = scores["effect"]
    plain = json.loads((Path(effect["plain"]) / "scores.json").read_text())
    assert code == 0
    assert scores["control"] == "no-image"
    assert plain["control"] is None
    assert effect["name"] == "vision gain"
    gain = effect["tasks"]["slake_vqa"]
    assert gain["n"] == scores["tasks"]["slake_vqa"]["n_scored"]
    assert gain["difference"] == pytest.approx(
        plain["tasks"]["slake_vqa"]["score"] - scores["tasks"]["slake_vqa"]["score"]
    )
    assert effect["changed"]["slake_vqa"]["share"] == 1.0


def test_a_control_is_stamped_wherever_its_scores_are_shown(
    call: Run, seeing: ScriptedServer
) -> None:
    asked = partial(call, "--model", "openai:scripted", "--base-url", seeing.url)
    argv = ("--tasks", "rad_vqa", "--control", "no-image")
    judged = Path(json.loads(asked(*argv, "--json")[1])["run"])
    num_asked = len(seeing.requests)

    _, out, _ = asked(*argv)

    assert len(seeing.requests) == num_asked
    for shown in (out, (judged / "report.md").read_text(), (judged / "report.html").read_text()):
        assert "not a score of the model" in shown
        assert "Vision gain" in shown


def test_compare_pairs_a_control_with_its_plain_run(
    call: Run, seeing: ScriptedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ("--tasks", "rad_vqa", "--control", "no-image", "--json")
    _, out, _ = call("--model", "openai:scripted", "--base-url", seeing.url, *argv)
    scores = json.loads(out)

    with pytest.raises(SystemExit):
        main(["compare", scores["run"], scores["effect"]["plain"], "--json"])

    compared = json.loads(capsys.readouterr().out)
    assert compared["mismatches"] == []
    assert compared["runs"][0]["settings"]["control"] == "no-image"
    assert compared["pairs"][0]["tasks"] == scores["effect"]["tasks"]


@pytest.mark.parametrize(
    ("blind", "said"),
    [
        pytest.param("no" * 3, "nothing to compare: no sample was scored in both", id="none"),
        pytest.param("no", "Samples not scored in both runs", id="some"),
    ],
)
def test_samples_that_not_both_runs_scored_are_told(
    call: Run, caplog: pytest.LogCaptureFixture, blind: str, said: str
) -> None:
    def script(body: dict[str, Any]) -> str:
        return "yes" if "image_url" in json.dumps(body["messages"]) else blind

    with ScriptedServer(script) as server:
        argv = ["--model", "openai:scripted", "--base-url", server.url, "--tasks", "slake_vqa"]
        _, out, _ = call(*argv, "--control", "no-image")

    assert said in out + caplog.text


def test_moved_options_move_the_letters_of_the_rules(call: Run) -> None:
    """A model that always says A is right as often as the reference stands first."""
    with ScriptedServer(lambda _: "A") as server:
        argv = ["--model", "openai:scripted", "--base-url", server.url, "--tasks", "medqa"]
        _, out, _ = call(*argv, "--control", "shuffle-options", "--json")

    scores = json.loads(out)
    lines = (Path(scores["run"]).parent.parent / "completions.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    first = [record["options"][0] == record["reference"] for record in records]
    assert scores["effect"]["name"] == "order sensitivity"
    assert scores["tasks"]["medqa"]["score"] == pytest.approx(sum(first) / len(first))
    assert scores["effect"]["changed"]["medqa"]["share"] > 0
    sent = {prompt_text(body).strip() for body in server.requests}
    assert {record["prompt"].strip() for record in records} < sent


def test_a_task_without_pictures_is_refused_before_anything_is_sent(
    call: Run, seeing: ScriptedServer
) -> None:
    model = ["--model", "openai:scripted", "--base-url", seeing.url]
    code, _, err = call(*model, "--tasks", "medqa,rad_vqa", "--control", "blank-image")

    assert code == 2
    assert "no images in medqa" in err
    assert "--tasks rad_vqa" in err
    assert seeing.requests == []


def test_a_control_is_not_submitted_and_stands_on_no_leaderboard_whatever_its_scores_say(
    call: Run, seeing: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ["--model", "openai:scripted", "--base-url", seeing.url]
    _, out, _ = call(*model, "--tasks", "rad_vqa", "--control", "no-image", "--json")
    judged = Path(json.loads(out)["run"])
    scores = json.loads((judged / "scores.json").read_text())
    (judged / "scores.json").write_text(json.dumps(scores | {"control": None}))
    with pytest.raises(SystemExit) as refused:
        main(["submit", str(judged), "--out", str(tmp_path / "zips"), "--allow-synthetic"])
    assert refused.value.code == 2
    assert "was made under --control no-image" in capsys.readouterr().err

    site = str(tmp_path / "site")
    with pytest.raises(SystemExit):
        main(["leaderboard", str(tmp_path), "--out", site, "--allow-synthetic"])

    boards = list((tmp_path / "site").rglob("scores.json"))
    models = [one for board in boards for one in json.loads(board.read_text())["models"]]
    assert len(models) == 1
    assert models[0]["tasks"]["rad_vqa"]["score"] is not None


@pytest.mark.slow
def test_what_the_phantom_scores_it_has_seen(call: Run) -> None:
    code, out, _ = call(
        "--model", "phantom", "--tasks", "phantom_closed,phantom_open", "--limit", "24",
        "--control", "blank-image", "--json",
    )  # fmt: skip

    effect = json.loads(out)["effect"]
    assert code == 0
    assert all(one["interval"][0] > 0.2 for one in effect["tasks"].values())


def test_a_model_that_cannot_see_is_asked_without_images_and_marked(
    call: Run, seeing: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OpenAIServer, "takes_images", False)
    argv = ("--model", "openai:scripted", "--base-url", seeing.url, "--tasks", "rad_vqa", "--json")

    refused, _, err = call(*argv)
    code, out, _ = call(*argv, "--allow-text-only")

    assert (refused, code) == (2, 0)
    assert "is text-only" in err
    scores = json.loads(out)
    assert (scores["text_only"], scores["control"], scores["effect"]) == (True, None, None)
    assert all("<image>" not in json.dumps(body["messages"]) for body in seeing.requests)
    assert all("image_url" not in json.dumps(body["messages"]) for body in seeing.requests)
