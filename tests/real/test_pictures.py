"""Real pictures through three adapters: what arrives is what the packages hold, pixel by pixel.

The fourth, vLLM, is in tests/vllm. Planted faults show that the comparison sees what it must see.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from originals import differing, sent, shown, source
from pictures import BY_TEXT, COLLECTION, HERE, NAME, TASKS, Arrived, Pixels, asked, in_request
from PIL import Image

import medix_eval
from medix_eval.data import lm_task, rows
from medix_eval.errors import DatasetError
from medix_eval.models import openai_server, transformers_model
from medix_eval.models.torch_cpu import declare_missing_operators
from medix_eval.phantom.dataset import model_folder
from medix_eval.records import Outcome
from medix_eval.storage import images
from medix_eval.testing import ScriptedServer, prompt_text

NUM_QUESTIONS = 34
JPEG_COSTS = 4.0
"""Grey levels, on average over a picture, that JPEG of quality 75 may cost."""


def reply(prompt: str, *, is_right: bool = True) -> str:
    """Answer as a model would, options by their letter."""
    question = BY_TEXT[asked(prompt)]
    if question.options:
        place = question.options.index(question.answer)
        return "ABCD"[place if is_right else (place + 1) % len(question.options)]
    wrong = {"yes": "no", "no": "yes"}.get(question.answer, f"1{question.answer}")
    return question.answer if is_right else wrong


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mirror")
    subprocess.run([sys.executable, HERE / "pictures.py", root], check=True)
    return root


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A finished run, and the pictures that arrived in it."""

    run: medix_eval.Run
    arrived: Arrived

    @property
    def scores(self) -> dict[str, float | None]:
        return {name: task.score for name, task in self.run.scores.tasks.items()}


def evaluate(mirror: Path, out: Path, **options: Any) -> medix_eval.Run:
    options = {"tasks": "real_pictures", "protocol": "rules"} | options
    return medix_eval.evaluate(data_root=mirror, include_path=TASKS, out=out, **options)


def through_server(mirror: Path, out: Path, **options: Any) -> Evaluated:
    """Ask a scripted server that is always right, and decode the pictures in its requests."""
    with ScriptedServer(lambda body: reply(prompt_text(body))) as server:
        run = evaluate(mirror, out, model="openai:scripted", base_url=server.url, **options)
    return Evaluated(run, dict(map(in_request, server.requests)))


@pytest.fixture(scope="module")
def through_openai(mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    return through_server(mirror, tmp_path_factory.mktemp("openai"))


# The pictures and the task


@pytest.mark.parametrize("name", COLLECTION.pictures)
def test_a_picture_is_the_file_that_was_looked_at(name: str) -> None:
    assert COLLECTION.pictures[name].path.is_file()
    assert any(name in question.pictures for question in COLLECTION.questions)


@pytest.mark.parametrize("change", [{"sha256": 64 * "0"}, {"file": "skimage/data/coin.png"}])
def test_a_changed_file_is_named_in_one_line(change: dict[str, str]) -> None:
    picture = COLLECTION.pictures["coins"].model_copy(update=change)

    with pytest.raises(DatasetError, match=r"^skimage/data/coin.*of scikit-image .*has changed"):
        picture.stored()


def test_the_mirror_stores_the_pixels_of_the_packages(mirror: Path) -> None:
    (file,) = (mirror / NAME).rglob("*.parquet")
    table = datasets.load_dataset("parquet", data_files=str(file), split="train")
    undecoded = table.cast_column("images", datasets.List(datasets.Image(decode=False)))
    stored = {
        row["question"]: [
            Pixels.of(Image.open(io.BytesIO(image["bytes"]))) for image in row["images"]
        ]
        for row in undecoded
    }

    assert len(stored) == NUM_QUESTIONS
    assert differing(stored, lambda pixels: pixels) == {}
    assert {one.mode for several in stored.values() for one in several} == {
        *("1", "L", "LA", "I;16", "P", "RGB", "RGBA")
    }


def test_the_data_check_passes(mirror: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = run(
        *("data", "check", "--tasks", "real_pictures"),
        *("--include-path", TASKS, "--data-root", mirror, "--json"),
    )

    checked = json.loads(out)
    assert code == 0, err
    assert len(checked["tasks"]) == 3


# The comparison, on each adapter


def test_what_a_server_is_sent_are_the_pixels_of_the_source(through_openai: Evaluated) -> None:
    assert len(through_openai.arrived) == NUM_QUESTIONS
    assert differing(through_openai.arrived, sent) == {}


def test_right_answers_about_them_score_full_marks(through_openai: Evaluated) -> None:
    assert through_openai.scores == {
        "real_pictures_choice": 1.0,
        "real_pictures_open": 1.0,
        "real_pictures_closed": 1.0,
    }


@dataclass(slots=True)
class Watched:
    """What a checkpoint in this process was shown."""

    arrived: Arrived
    tensors: list[tuple[list[str], Any]]
    """The questions of each batch, and the pixels that its model got."""


@contextmanager
def watching() -> Iterator[Watched]:
    """Look at the pictures that go into the processor, and at the tensors that come out."""
    declare_missing_operators()
    import transformers  # noqa: PLC0415

    model_class: Any = transformers.Qwen3VLForConditionalGeneration
    watched = Watched({}, [])
    batch: list[str] = []
    messages_of, generate = transformers_model._messages, model_class.generate  # noqa: SLF001

    def messages(prompt: Any, **options: Any) -> list[dict[str, Any]]:
        made = messages_of(prompt, **options)
        parts = [part for part in made[-1]["content"] if part["type"] == "image"]
        batch.append(asked(prompt.text))
        watched.arrived[batch[-1]] = [Pixels.of(part["image"]) for part in parts]
        return made

    def generated(model: Any, **inputs: Any) -> Any:
        watched.tensors.append(([*batch], inputs["pixel_values"]))
        batch.clear()
        return generate(model, **inputs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transformers_model, "_messages", messages)
        patch.setattr(model_class, "generate", generated)
        yield watched


def through_hf(mirror: Path, out: Path) -> Watched:
    with watching() as watched:
        evaluate(mirror, out, model="phantom", backend="hf", overrides=["generation.max_tokens=4"])
    return watched


@pytest.mark.slow
def test_what_a_checkpoint_sees_are_the_pixels_of_the_source(mirror: Path, tmp_path: Path) -> None:
    watched = through_hf(mirror, tmp_path)
    from transformers import AutoProcessor  # noqa: PLC0415

    assert len(watched.arrived) == NUM_QUESTIONS
    assert differing(watched.arrived, shown) == {}
    processor = AutoProcessor.from_pretrained(model_folder()).image_processor
    assert sum(len(questions) for questions, _ in watched.tensors) == NUM_QUESTIONS
    for questions, tensor in watched.tensors:
        seen = [shown(source(name)) for text in questions for name in BY_TEXT[text].pictures]
        pictures = [Image.fromarray(one.values.astype(np.uint8)) for one in seen]
        assert processor(pictures, return_tensors="pt")["pixel_values"].equal(tensor)


@pytest.mark.parametrize("is_right", [True, False])
def test_replayed_answers_are_right_or_wrong_as_a_whole(
    mirror: Path, through_openai: Evaluated, tmp_path: Path, *, is_right: bool
) -> None:
    answers = tmp_path / "answers.jsonl"
    lines = [
        {
            "task": sample.task,
            "sample_id": sample.completion.sample_id,
            "completion": reply(sample.completion.prompt, is_right=is_right),
        }
        for sample in through_openai.run.samples()
    ]
    answers.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")

    replayed = evaluate(mirror, tmp_path, model=f"replay:{answers}")

    expected = Outcome.CORRECT if is_right else Outcome.WRONG
    ended = {sample.completion.prompt: sample.verdict.outcome for sample in replayed.samples()}
    assert ended == dict.fromkeys(ended, expected)
    assert {task.score for task in replayed.scores.tasks.values()} == {float(is_right)}


without_alpha = partial(shown, drops_alpha=True)


def published(mirror: Path, out: Path) -> Arrived:
    """Return what arrives with the protocol that encodes pictures as was published."""
    with ScriptedServer(lambda _: '{"score": 1}') as judge:
        judged_by = {"judge": "openai:scripted", "judge_base_url": judge.url}
        return through_server(mirror, out, protocol="medix-compat", **judged_by).arrived


def test_the_published_jpeg_keeps_size_channels_and_nearly_the_pixels(
    mirror: Path, tmp_path: Path
) -> None:
    arrived = published(mirror, tmp_path)

    off = differing(arrived, without_alpha, tolerance=JPEG_COSTS)
    assert len(arrived) == NUM_QUESTIONS
    # JPEG halves the resolution of colours: three rows of pixels hardly keep one of their own.
    assert {name for text in off for name in BY_TEXT[text].pictures} == {"three_rows"}
    assert differing(arrived, without_alpha, tolerance=8 * JPEG_COSTS) == {}


# Planted faults

Fault = Callable[[Image.Image], Image.Image]


def other_channel_order(image: Image.Image) -> Image.Image:
    """Blue for red, as with OpenCV."""
    if image.mode not in {"P", "RGB", "RGBA"}:
        return image
    image = image.convert("RGB") if image.mode == "P" else image
    red, green, blue, *alpha = image.split()
    return Image.merge(image.mode, (blue, green, red, *alpha))


def one_pixel_wider(image: Image.Image) -> Image.Image:
    return image.resize((image.width + 1, image.height))


def made_smaller_and_larger_again(image: Image.Image) -> Image.Image:
    return image.resize((image.width - 1, image.height)).resize(image.size)


def transposed(image: Image.Image) -> Image.Image:
    return image.transpose(Image.Transpose.TRANSPOSE)


def mirrored(image: Image.Image) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def as_good_jpeg(image: Image.Image) -> Image.Image:
    out = io.BytesIO()
    image.convert("L" if image.mode == "L" else "RGB").save(out, format="JPEG", quality=95)
    return Image.open(out)


FAULTS: dict[Fault, str] = {
    other_channel_order: "the channels are in reverse order",
    one_pixel_wider: "size ",
    made_smaller_and_larger_again: "values are off by ",
    transposed: "rows and columns are exchanged",
    mirrored: "values are off by ",
    as_good_jpeg: "values are off by |mode RGB",
}


def changes(fault: Fault, pixels: Pixels) -> bool:
    """Tell whether a fault does anything to a picture: a grey one has no order of channels."""
    values = pixels.values.astype(np.uint8)
    image = Image.fromarray(values.squeeze(2) if values.shape[2] == 1 else values)
    return not np.array_equal(np.asarray(fault(image)), np.asarray(image))


def harmed(fault: Fault, seen: Callable[[Pixels], Pixels]) -> set[str]:
    return {
        text
        for text, question in BY_TEXT.items()
        if any(changes(fault, seen(source(name))) for name in question.pictures)
    }


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")  # aiohttp, above 1 MB
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_on_the_way_to_a_server_is_seen(
    fault: Fault, mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def harming(image: bytes) -> bytes:
        out = io.BytesIO()
        fault(Image.open(io.BytesIO(image))).save(out, format="PNG", compress_level=1)
        return images.data_url(out.getvalue())

    monkeypatch.setattr(openai_server, "data_url", harming)

    found = differing(through_server(mirror, tmp_path).arrived, sent)

    assert found.keys() == harmed(fault, sent)
    for said in found.values():
        assert any(re.search(FAULTS[fault], one) for one in said), said


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_on_the_way_to_a_checkpoint_is_seen(
    fault: Fault, mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transformers_model, "as_rgb", lambda image: fault(images.as_rgb(image)))

    found = differing(through_hf(mirror, tmp_path).arrived, shown)

    assert found.keys() == harmed(fault, shown)
    for said in found.values():
        assert any(re.search(FAULTS[fault], one) for one in said), said


@pytest.mark.slow
def test_another_channel_order_is_seen_through_the_jpeg(
    mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_jpeg = images.as_jpeg

    def harming(image: bytes, *, quality: int) -> bytes:
        out = io.BytesIO()
        other_channel_order(Image.open(io.BytesIO(image))).save(out, "PNG", compress_level=1)
        return as_jpeg(out.getvalue(), quality=quality)

    monkeypatch.setattr(images, "as_jpeg", harming)

    found = differing(published(mirror, tmp_path), without_alpha, tolerance=JPEG_COSTS)

    coloured = harmed(other_channel_order, without_alpha)
    assert coloured <= found.keys()
    for text in coloured:
        if "three_rows" not in BY_TEXT[text].pictures:
            assert any(FAULTS[other_channel_order] in one for one in found[text]), found[text]


def test_pictures_in_another_order_are_seen(
    mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lm_task, "column_images", lambda value: rows.column_images(value)[::-1])

    found = differing(through_server(mirror, tmp_path).arrived, sent)

    assert found == {
        question.question: [
            "picture 1: it is number 2 of the source",
            "picture 2: it is number 1 of the source",
        ]
        for question in COLLECTION.questions
        if len(question.pictures) == 2
    }


def test_a_picture_too_few_is_seen() -> None:
    question = next(one for one in COLLECTION.questions if len(one.pictures) == 2)
    arrived = [source(name) for name in question.pictures[:1]]

    assert differing({question.question: arrived}, lambda pixels: pixels) == {
        question.question: ["1 pictures in place of 2"]
    }
