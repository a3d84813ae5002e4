"""Odd pictures through whole runs: no adapter sees another, and a bad one ends none."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from odd_pictures import EIGHT, ODD, RAMP, TURNED, black_dot, encoded, noise, on_white, png, turned
from opened_tasks import open_rows
from PIL import Image

import medix_eval
from medix_eval.data.tasks import load_tasks
from medix_eval.models import transformers_model
from medix_eval.report.pictures import read_pictures
from medix_eval.results.store import read_run
from medix_eval.storage.bundled import bundled
from medix_eval.testing import ScriptedServer, prompt_text

PLAIN = encoded(Image.new("RGB", (40, 40), "white"))
GOOD = {
    "plain": (PLAIN, np.full((40, 40, 3), 255)),
    "wide": (encoded(Image.fromarray(RAMP)), np.dstack([EIGHT] * 3)),
    "clear": (encoded(black_dot("RGBA")), on_white()),
    **{name: ODD[name] for name in ("animated-png", "cmyk", "turned-at-its-end", "no-end")},
}
BAD = {
    "cut-png": encoded(Image.fromarray(EIGHT), compress_level=0)[:400],
    "cut-jpeg": encoded(noise("RGB"), "JPEG")[:900],
    "cut-16-bits": encoded(Image.fromarray(RAMP), compress_level=0)[:400],
    "short": png((500, 500, 8, 2), raw=b"\0" * 100),
    "huge": png((60_000, 60_000, 8, 2), raw=b""),
    "long": encoded(Image.new("L", (70_000, 4))),
    "jpeg-2000": encoded(noise("RGB"), "JPEG2000"),
    "page": b"<html>404</html>",
    "nothing": b"",
}
FEATURES = {
    "question": datasets.Value("string"),
    "image": datasets.Image(),
    "answer": datasets.Value("string"),
}
Evaluate = Callable[..., medix_eval.Run]


@pytest.fixture
def evaluate(tmp_path: Path) -> Evaluate:
    """Evaluate on these pictures, by name."""

    def call(pictures: dict[str, bytes], **options: Any) -> medix_eval.Run:
        rows = [
            {"question": f"Is it {name}?", "answer": "yes", "image": {"bytes": b, "path": None}}
            for name, b in pictures.items()
        ]
        how = {"doc_to_image": "image", "doc_to_text": "<image>{{ question }}"}
        open_rows(tmp_path, rows, features=FEATURES, settings={"kind": "closed"}, **how)
        given: dict[str, Any] = {"data_root": tmp_path / "hub", "include_path": tmp_path / "tasks"}
        given |= {"tasks": "mine", "out": tmp_path / "out", "protocol": "rules"}
        return medix_eval.evaluate(**given | options)

    return call


def through_server(evaluate: Evaluate, pictures: dict[str, bytes], **options: Any) -> Any:
    """Return the run, and each picture as its request has it."""
    with ScriptedServer(lambda _: "yes") as server, ScriptedServer(lambda _: '{"score": 1}') as j:
        if options.get("protocol") == "medix-compat":
            options |= {"judge": "openai:scripted", "judge_base_url": j.url}
        run = evaluate(pictures, model="openai:scripted", base_url=server.url, **options)
    arrived: dict[str, Any] = {}
    for body in server.requests:
        (part,) = (one for one in body["messages"][0]["content"] if one["type"] == "image_url")
        name = prompt_text(body).split()[-1][:-1]  # asked first under a control, then without
        arrived.setdefault(name, decoded(part["image_url"]["url"]))
    return run, arrived


def through_checkpoint(evaluate: Evaluate, pictures: dict[str, bytes]) -> Any:
    arrived, messages_of = {}, transformers_model._messages  # noqa: SLF001

    def messages(prompt: Any, **options: Any) -> Any:
        made = messages_of(prompt, **options)
        (part,) = (one for one in made[-1]["content"] if one["type"] == "image")
        arrived[prompt.text.split()[-1][:-1]] = np.asarray(part["image"])
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transformers_model, "_messages", messages)
        short = {"overrides": ["generation.max_tokens=2"]}
        run = evaluate(pictures, model="phantom", backend="hf", **short)
    return run, arrived


def decoded(url: str) -> Any:
    """Decode as a server that turns nothing and knows no transparency."""
    stored = base64.b64decode(url.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(stored)).convert("RGB"))


def in_report(run: medix_eval.Run, folder: Path) -> dict[str, Any]:
    catalogue = load_tasks([bundled("tasks"), folder / "tasks"])
    found = read_pictures(read_run(run.path), catalogue, data_root=folder / "hub", size="original")
    return {name: decoded(url) for name, url in found.items()}


@pytest.mark.parametrize("through", [through_server, through_checkpoint])
def test_every_model_and_the_report_get_the_pixels_that_the_rule_says(
    through: Any, evaluate: Evaluate, tmp_path: Path
) -> None:
    stored = {name: image for name, (image, _) in GOOD.items()}

    run, arrived = through(evaluate, stored)

    reported = in_report(run, tmp_path)
    assert arrived.keys() == GOOD.keys()
    for name, (image, expected) in GOOD.items():
        assert np.array_equal(arrived[name], expected), name
        assert np.array_equal(reported[hashlib.sha256(image).hexdigest()], expected), name


def test_the_report_of_the_published_protocol_has_the_jpeg_that_was_sent(
    evaluate: Evaluate, tmp_path: Path
) -> None:
    stored = {name: image for name, (image, _) in GOOD.items()}

    run, arrived = through_server(evaluate, stored, protocol="medix-compat")

    reported = in_report(run, tmp_path)
    assert arrived["clear"].max() == 0
    assert arrived["turned-at-its-end"].shape == TURNED.shape
    for name, image in stored.items():
        assert np.array_equal(reported[hashlib.sha256(image).hexdigest()], arrived[name]), name


def ended(run: medix_eval.Run) -> dict[int, tuple[str, str]]:
    """Return outcome and reason by row."""
    found = {}
    for sample in run.samples():
        failure = sample.completion.failure
        outcome = sample.verdict.outcome.value
        found[sample.completion.row] = (outcome, failure.message if failure else "")
    return dict(sorted(found.items()))


def replayed(evaluate: Evaluate, pictures: dict[str, bytes], *, folder: Path) -> Any:
    run, _ = through_server(evaluate, pictures)
    lines = [
        {"task": one.task, "sample_id": one.completion.sample_id, "completion": "yes"}
        for one in run.samples()
        if one.completion.prompt
    ]
    answers = folder / "answers.jsonl"
    answers.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return evaluate(pictures, model=f"replay:{answers}"), None


def test_a_bad_picture_is_a_skipped_row_with_one_reason_through_every_adapter(
    evaluate: Evaluate, tmp_path: Path
) -> None:
    pictures = {"first": PLAIN, **BAD, "last": PLAIN}
    runs = [
        through_server(evaluate, pictures)[0],
        through_server(evaluate, pictures, protocol="medix-compat")[0],
        through_checkpoint(evaluate, pictures)[0],
        replayed(evaluate, pictures, folder=tmp_path)[0],
    ]

    for run in runs:
        rows = ended(run)
        assert not any(reason for reason in (rows.pop(0)[1], rows.pop(len(BAD) + 1)[1]))
        assert {outcome for outcome, _ in rows.values()} == {"skipped"}
        assert all(
            reason.startswith(f"task mine, row {row}: ") for row, (_, reason) in rows.items()
        )
        assert rows == {row: one for row, one in ended(runs[0]).items() if row in rows}


def test_a_control_takes_no_bad_picture_in_place_of_a_good_one(evaluate: Evaluate) -> None:
    pictures = {"first": PLAIN, **BAD, "last": encoded(noise())}

    run, arrived = through_server(evaluate, pictures, control="wrong-image")

    assert {row: one[0] for row, one in ended(run).items() if one[0] != "skipped"}.keys() == {
        0,
        len(BAD) + 1,
    }
    assert np.array_equal(arrived["last"], np.full((40, 40, 3), 255))


def test_a_run_under_another_rule_for_pictures_is_not_resumed(
    evaluate: Evaluate, tmp_path: Path
) -> None:
    with ScriptedServer(lambda _: "yes") as server:
        asked = {"model": "openai:scripted", "base_url": server.url}
        run = evaluate({"first": PLAIN}, **asked)
        path = next((tmp_path / "out").glob("*/*/run.json"))
        before = json.loads(path.read_text(encoding="utf-8"))
        assert before["tasks"]["mine"]["source"].pop("picture_rule") == 2
        path.write_text(json.dumps(before), encoding="utf-8")

        with pytest.raises(medix_eval.errors.RunMismatch, match=r"picture_rule: null, now 2"):
            evaluate({"first": PLAIN}, **asked)
        again = evaluate({"first": PLAIN}, accept_data_change=True, **asked)

    assert run.path != again.path
    assert len(server.requests) == 2


def test_a_photograph_with_its_side_in_exif_is_upright_at_the_server(evaluate: Evaluate) -> None:
    image = encoded(noise("RGB"), "JPEG", exif=turned(6))

    _, arrived = through_server(evaluate, {"side": image})

    assert np.array_equal(arrived["side"], np.rot90(np.asarray(Image.open(io.BytesIO(image))), -1))
