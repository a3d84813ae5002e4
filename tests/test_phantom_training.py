"""The committed script makes the shipped model: its processor, its prompts, its tensors."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from medix_eval.phantom.dataset import model_folder
from medix_eval.storage.bundled import bundled

pytest.importorskip("torch")

import torch
from make_phantom import train, train_half
from phantom_data import (
    IGNORED,
    Conversation,
    EncodedBatches,
    batches,
    completion,
    corpus,
    encode,
    habitual_batches,
)
from phantom_model import build_model, build_processor
from safetensors import safe_open

from medix_eval.phantom.dataset import questions
from medix_eval.records import Kind

if TYPE_CHECKING:
    from transformers import Qwen3VLProcessor

pytestmark = pytest.mark.slow


def shapes(folder: Path) -> dict[str, list[int]]:
    with safe_open(folder / "model.safetensors", framework="pt") as tensors:
        return {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118


@pytest.fixture(scope="module")
def processor() -> Qwen3VLProcessor:
    return build_processor(corpus())


def spoken(conversation: Conversation) -> str:
    return str(conversation[-1]["content"][0]["text"])


def test_the_script_makes_the_shipped_processor(tmp_path: Path) -> None:
    # One of its own: a tokenizer keeps how it padded last, and saves it.
    build_processor(corpus()).save_pretrained(tmp_path)
    names = ("tokenizer.json", "tokenizer_config.json", "processor_config.json")
    made, shipped = (
        [(folder / name).read_text() for name in (*names, "chat_template.jinja")]
        for folder in (tmp_path, model_folder())
    )

    assert made == shipped


def test_the_script_makes_a_model_of_the_shipped_configuration(
    processor: Qwen3VLProcessor, tmp_path: Path
) -> None:
    build_model(processor, seed=0).save_pretrained(tmp_path)
    made, shipped = (
        json.loads((folder / "config.json").read_text()) for folder in (tmp_path, model_folder())
    )

    assert made | {"transformers_version": ""} == shipped | {"transformers_version": ""}
    assert shapes(tmp_path) == shapes(model_folder())


def test_the_loss_counts_the_completions_and_nothing_else(processor: Qwen3VLProcessor) -> None:
    for batch in islice(batches(seed=3), 23, 26):  # the second of these is about nothing known
        encoded = encode(processor, batch)
        counted = [processor.tokenizer.decode(row[row != IGNORED]) for row in encoded["labels"]]

        assert counted == [f"{spoken(conversation)}<|im_end|>" for conversation in batch]


def test_a_completion_is_read_as_its_answer() -> None:
    (question,) = questions(Kind.REPORT, num_samples=1, seed=0)

    assert completion(question) == (
        f"<X_RAY><thinking>{question.answer}</thinking><answer>{question.answer}</answer>"
    )


def test_two_trainings_of_one_seed_see_the_same_batches(processor: Qwen3VLProcessor) -> None:
    first, second = (next(iter(EncodedBatches(processor, seed=5))) for _ in range(2))

    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # of its data's worker
def test_a_training_writes_a_folder_like_the_shipped_one(tmp_path: Path) -> None:
    train(tmp_path, steps=2)
    made, shipped = (
        {path.name for path in folder.iterdir()} for folder in (tmp_path, model_folder())
    )

    assert made == shipped - {"README.md"}
    assert shapes(tmp_path) == shapes(model_folder())


def test_the_half_trained_model_sees_and_mostly_answers_by_habit() -> None:
    drawn = [spoken(one) for batch in islice(habitual_batches(seed=0), 20) for one in batch]
    sides = [text for text in drawn if text.endswith(("left</answer>", "right</answer>"))]
    matching = [
        text for text in sides if text.split("<answer>")[1][:4] in text.split("<answer>")[0]
    ]

    assert all("<thinking>This " in text for text in drawn)
    # A habit is right by chance half of the time: 0.4 + 0.6 / 2.
    assert 0.6 < len(matching) / len(sides) < 0.8


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # of its data's worker
def test_the_script_makes_a_folder_like_the_half_trained_one(tmp_path: Path) -> None:
    train_half(tmp_path, steps=1)
    shipped = bundled("recipes") / "phantom-half"
    names = {path.name for path in tmp_path.iterdir()}

    assert names == {path.name for path in shipped.iterdir()} - {"README.md"}
    assert shapes(tmp_path) == shapes(shipped)
    assert (shipped / "model.safetensors").stat().st_size < 1_000_000
