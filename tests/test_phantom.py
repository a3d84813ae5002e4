"""The phantom benchmark is what its task files say, and its model truly sees."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from functools import cache
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from medix_eval.data.lm_task import open_task
from medix_eval.data.tasks import load_tasks
from medix_eval.phantom.dataset import (
    EVALUATION,
    MODALITIES,
    SIDE,
    SIDES,
    SIZES,
    TOPICS,
    TRAINING,
    Facts,
    Pixels,
    Question,
    ask,
    draw,
    load,
    model_folder,
    png,
    prompt,
    questions,
    report,
    stream,
)
from medix_eval.records import Kind
from medix_eval.rules.answers import extract_answer
from medix_eval.rules.decide import decide

TASKS = Path(__file__).parent.parent / "tasks"
FRESH_SEED = 20261122
NUM_FRESH = {Kind.MULTIPLE_CHOICE: 100, Kind.CLOSED: 100, Kind.OPEN: 64, Kind.REPORT: 60}
GREY = np.full((SIDE, SIDE), 128, dtype=np.uint8)


def hidden_facts(question: Question) -> dict[str, str]:
    facts = question.facts
    listed = {
        "modality": facts.modality,
        "count": str(facts.count),
        "side": facts.side,
        "size": facts.size,
    }
    return {name: value for name, value in listed.items() if value}


# The benchmark


@pytest.mark.parametrize("kind", list(Kind))
def test_one_seed_gives_the_same_rows_each_time(kind: Kind) -> None:
    medix = {"kind": kind.value, "num_samples": 12}

    rows = load(medix=medix)["test"].with_format("arrow")[:]

    assert rows == load(medix=medix)["test"].with_format("arrow")[:]
    assert rows != load(medix=medix, seed=1)["test"].with_format("arrow")[:]


def test_no_evaluation_image_is_drawn_in_training() -> None:
    evaluation = {
        png(question.pixels)
        for kind in Kind
        for question in questions(kind, num_samples=60, seed=0)
    }
    rng = stream(TRAINING, 0)
    training = {
        png(ask(rng, kind=kind, topic=topic).pixels)
        for _ in range(40)
        for kind in Kind
        for topic in TOPICS[kind]
    }

    assert len(evaluation) == 240
    assert not evaluation & training


def test_a_training_stream_never_equals_an_evaluation_stream() -> None:
    training, evaluation = (
        {tuple(stream(purpose, seed).integers(2**32, size=4)) for seed in range(50)}
        for purpose in (TRAINING, EVALUATION)
    )

    assert not training & evaluation


def test_the_tasks_hold_four_hundred_samples_and_fifty_of_each_kind() -> None:
    catalogue = load_tasks([TASKS])
    settings = [catalogue.tasks[name].settings for name in catalogue.groups["phantom"]]
    counts = {each.kind: each.num_samples or 0 for each in settings}

    assert counts.keys() == set(Kind)
    assert min(counts.values()) >= 50
    assert sum(counts.values()) >= 400


@pytest.mark.parametrize("kind", list(Kind))
def test_a_task_asks_exactly_what_the_model_is_trained_on(kind: Kind) -> None:
    task = open_task(load_tasks([TASKS]).tasks[f"phantom_{kind}"])
    drawn = questions(kind, num_samples=len(task.rows), seed=0)
    asked = [
        (task.prompt_text(row), task.reference(row), task.options(row), task.stored_images(row))
        for row in task.rows
    ]

    assert asked == [
        (f"<image>{prompt(each)}", each.answer, each.options, [png(each.pixels)]) for each in drawn
    ]


def test_a_stored_image_is_a_grey_png_of_its_pixels() -> None:
    (question,) = questions(Kind.REPORT, num_samples=1, seed=0)

    with Image.open(io.BytesIO(png(question.pixels))) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "L", (SIDE, SIDE))
        assert np.array_equal(np.asarray(image), question.pixels)


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("size", SIZES)
def test_the_lesions_are_where_the_facts_say(modality: str, side: str, size: str) -> None:
    facts = Facts(modality=modality, count=3, side=side, size=size)
    drawn = [draw(facts, stream(EVALUATION, 1, seed)) for seed in range(20)]
    without = [
        draw(Facts(modality=modality, count=0), stream(EVALUATION, 2, seed)) for seed in range(20)
    ]
    brighter = np.mean(drawn, axis=0) - np.mean(without, axis=0)
    halves = {"left": brighter[:, : SIDE // 2].sum(), "right": brighter[:, SIDE // 2 :].sum()}

    assert max(halves, key=lambda half: halves[half]) == side


@pytest.mark.parametrize("kind", list(Kind))
def test_no_answer_is_so_common_that_guessing_it_pays(kind: Kind) -> None:
    drawn = questions(kind, num_samples=120, seed=0)
    answers = {topic: Counter[str]() for topic in TOPICS[kind]}
    for question in drawn:
        answers[question.topic][question.answer] += 1

    shares = {topic: max(found.values()) / found.total() for topic, found in answers.items()}
    assert max(shares.values()) < 0.7


@pytest.mark.parametrize("question", questions(Kind.REPORT, num_samples=24, seed=0))
def test_a_reference_report_states_every_fact(question: Question) -> None:
    stated = report(question.facts).replace("no lesion", "0 lesion")

    assert all(value in stated for value in hidden_facts(question).values())


@pytest.mark.parametrize("kind", list(Kind))
def test_the_gold_answer_of_every_sample_scores_full_marks(kind: Kind) -> None:
    verdicts = [
        verdict(each, answer=each.answer) for each in questions(kind, num_samples=60, seed=0)
    ]

    assert verdicts == [1.0] * 60


# The model, on images of a seed that neither training nor the released benchmark has used


@cache
def fresh(kind: Kind) -> tuple[Question, ...]:
    return tuple(questions(kind, num_samples=NUM_FRESH[kind], seed=FRESH_SEED))


@cache
def loaded() -> tuple[Any, Any]:
    from medix_eval.models.torch_cpu import declare_missing_operators  # noqa: PLC0415

    declare_missing_operators()
    from transformers import AutoModelForImageTextToText, AutoProcessor  # noqa: PLC0415

    model = AutoModelForImageTextToText.from_pretrained(model_folder())
    return model, AutoProcessor.from_pretrained(model_folder())


def complete(asked: Sequence[tuple[str, Pixels | None]]) -> list[str]:
    """Ask the shipped model: the one place where these tests generate."""
    model, processor = loaded()
    completions: list[str] = []
    for start in range(0, len(asked), 64):
        conversations = []
        for text, pixels in asked[start : start + 64]:
            content: list[dict[str, Any]] = [{"type": "text", "text": text}]
            if pixels is not None:
                content.insert(0, {"type": "image", "image": Image.fromarray(pixels)})
            conversations.append([{"role": "user", "content": content}])
        encoded = processor.apply_chat_template(
            conversations,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            processor_kwargs={"return_tensors": "pt", "padding": True},
        )
        generated = model.generate(**encoded, max_new_tokens=48, do_sample=False)
        answered = generated[:, encoded["input_ids"].shape[1] :]
        completions += processor.batch_decode(answered, skip_special_tokens=True)
    return completions


@pytest.mark.slow
@given(text=st.text())
def test_the_tokenizer_takes_any_text(text: str) -> None:
    _, processor = loaded()

    assert processor.tokenizer.decode(processor.tokenizer.encode(text)) == text


@pytest.mark.slow
def test_the_chat_template_takes_several_images_and_a_system_message() -> None:
    _, processor = loaded()
    image = {"type": "image"}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [image, {"type": "text", "text": "Or\n"}, image]},
        {"role": "assistant", "content": [{"type": "text", "text": "A"}]},
        {"role": "user", "content": " Sure? "},
    ]
    one = "<|vision_start|><|image_pad|><|vision_end|>"

    assert processor.apply_chat_template(messages, add_generation_prompt=True) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        f"<|im_start|>user\n{one}Or\n{one}<|im_end|>\n"
        "<|im_start|>assistant\nA<|im_end|>\n"
        "<|im_start|>user\n Sure? <|im_end|>\n"
        "<|im_start|>assistant\n"
    )


@pytest.mark.slow
def test_a_question_it_was_not_taught_gets_a_short_answer() -> None:
    vignette = "A 45-year-old man has chest pain. Which drug comes first? " * 6
    (text_only,) = complete([(vignette, None)])
    (with_image,) = complete([(vignette, questions(Kind.OPEN, num_samples=1, seed=1)[0].pixels)])

    assert extract_answer(text_only) == "unknown"
    assert with_image.endswith("</answer>")


def test_the_model_is_tiny() -> None:
    assert sum(path.stat().st_size for path in model_folder().iterdir()) < 2_000_000


def verdict(question: Question, *, answer: str) -> float:
    decided = decide(
        answer,
        kind=question.kind,
        reference=question.answer,
        options=question.options,
        facts=hidden_facts(question) if question.kind is Kind.REPORT else {},
    )
    return decided.score if decided else 0.0


def score(kind: Kind, *, shown: Sequence[Pixels]) -> float:
    asked = fresh(kind)
    completions = complete([(prompt(each), px) for each, px in zip(asked, shown, strict=True)])
    answers = [extract_answer(completion) for completion in completions]
    verdicts = [verdict(each, answer=answer) for each, answer in zip(asked, answers, strict=True)]
    return float(np.mean(verdicts))


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(Kind))
def test_the_model_sees_images_of_a_fresh_seed(kind: Kind) -> None:
    assert score(kind, shown=[each.pixels for each in fresh(kind)]) >= 0.75


def guess(kind: Kind) -> float:
    """Return what the best answer without an image scores: each topic's most common one."""
    topics = {topic: Counter[str]() for topic in TOPICS[kind]}
    for question in fresh(kind):
        topics[question.topic][question.answer] += 1
    return sum(max(found.values()) for found in topics.values()) / NUM_FRESH[kind]


@pytest.mark.slow
@pytest.mark.parametrize("without", ["blank", "swapped"])
@pytest.mark.parametrize("kind", [Kind.MULTIPLE_CHOICE, Kind.CLOSED])
def test_without_its_image_a_question_is_answered_by_chance(kind: Kind, without: str) -> None:
    images = [each.pixels for each in fresh(kind)]
    shown = [GREY] * len(images) if without == "blank" else images[1:] + images[:1]
    chance = guess(kind)

    assert score(kind, shown=shown) <= chance + 2 * sqrt(chance * (1 - chance) / NUM_FRESH[kind])
