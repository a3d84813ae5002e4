"""The phantom tasks' rows, drawn when a task is loaded: no download and no stored images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from medix_eval.phantom.drawing import png
from medix_eval.phantom.questions import TOPICS, Question, ask
from medix_eval.records import Kind

if TYPE_CHECKING:
    import datasets

TRAINING, EVALUATION = 1, 2
"""The first word of every seed: no evaluation seed starts the stream of a training seed."""


def stream(purpose: int, *words: int) -> np.random.Generator:
    """Return the random stream of one purpose (`TRAINING` or `EVALUATION`) and seed."""
    return np.random.default_rng([purpose, *words])


def questions(kind: Kind, *, num_samples: int, seed: int) -> list[Question]:
    """Draw the evaluation questions of one kind, its topics taking turns.

    The released benchmark is seed 0; any other seed gives images and questions nobody has seen.
    """
    rng = stream(EVALUATION, seed, list(Kind).index(kind))
    topics = TOPICS[kind]
    return [ask(rng, kind=kind, topic=topics[row % len(topics)]) for row in range(num_samples)]


def load(
    *, medix: Mapping[str, Any], seed: int = 0, **_other_metadata: object
) -> dict[str, datasets.Dataset]:
    """Return the test split of a phantom task, as lm-eval's `custom_dataset` asks for it.

    lm-eval passes the task's metadata, so kind and number of samples stand once, in the task file,
    and `--metadata '{"seed": 7}'` draws fresh images for a stock `lm_eval run`.
    """
    from datasets import Dataset, Features, Image, List, Value  # noqa: PLC0415  # heavy

    kind = Kind(medix["kind"])
    rows = [
        _row(question) for question in questions(kind, num_samples=medix["num_samples"], seed=seed)
    ]
    features: dict[str, Any] = {name: Value("string") for name in rows[0]}
    features["image"] = Image()
    if kind is Kind.MULTIPLE_CHOICE:
        features |= {"choices": List(Value("string")), "answer_index": Value("int64")}
    return {"test": Dataset.from_list(rows, features=Features(features))}


def _row(question: Question) -> dict[str, Any]:
    facts = question.facts
    row: dict[str, Any] = {
        "image": {"bytes": png(question.pixels), "path": None},
        "question": question.text,
        "answer": question.answer,
        "topic": question.topic,
        "modality": facts.modality,
        "count": str(facts.count),
        "side": facts.side or None,
        "size": facts.size or None,
    }
    if question.options:
        row["choices"] = list(question.options)
        row["answer_index"] = question.options.index(question.answer)
    return row
