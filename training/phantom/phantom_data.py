"""What the phantom model is trained on: batches of conversations, drawn as they are needed.

Each completion states all facts of the image in its thinking, whatever was asked. That is what
makes so small a model learn to see within minutes: every sample teaches modality, count, size and
side, and the answer is then mostly read off the thinking.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from phantom_model import END_OF_TURN, START_OF_TURN
from PIL import Image
from torch.utils.data import IterableDataset

from medix_eval.phantom.dataset import (
    SIDE,
    TAGS,
    TOPICS,
    TRAINING,
    Pixels,
    Question,
    ask,
    prompt,
    report,
    stream,
)
from medix_eval.records import Kind

if TYPE_CHECKING:
    from transformers import Qwen3VLProcessor

IGNORED = -100
"""The label of a token that the loss skips."""

_BATCH = 32
_EVEN_ODDS = 0.5
_BLANK_SHARE = 0.04
_UNKNOWN_EVERY = 25
_HABIT_SHARE = 0.6
_WEIGHTS = {
    (Kind.MULTIPLE_CHOICE, "count"): 3.0,
    (Kind.MULTIPLE_CHOICE, "modality"): 2.0,
    (Kind.CLOSED, "lesion"): 1.0,
    (Kind.CLOSED, "same_modality"): 2.0,
    (Kind.OPEN, "side"): 1.0,
    (Kind.OPEN, "modality"): 1.0,
    (Kind.OPEN, "size"): 0.5,
    (Kind.OPEN, "count"): 1.0,
    (Kind.REPORT, "report"): 1.0,
}
"""How often each question is asked in training: what is learnt last is asked most."""
_HABITS = {
    "count": "0",
    "modality": "CT",
    "lesion": "no",
    "same_modality": "no",
    "side": "left",
    "size": "small",
    "report": "This CT image shows no lesion.",
}
_PUNCTUATION = ("", "", "", "", ",", ".", "?", ":", "\n", " -")

Conversation = list[dict[str, Any]]


class Draw(Protocol):
    """Draws batches without end, the same for a seed."""

    def __call__(self, *, seed: int) -> Iterator[list[Conversation]]:
        """Yield them."""
        ...


def completion(question: Question) -> str:
    """Return the model answer: the modality's tag, all the facts, the answer."""
    return _completed(TAGS[question.facts.modality], report(question.facts), question.answer)


def conversation(text: str, *, pixels: Pixels | None, answered: str) -> Conversation:
    """Return one turn of a user and the answer to it."""
    content: list[dict[str, Any]] = [{"type": "text", "text": text}]
    if pixels is not None:
        content.insert(0, {"type": "image", "image": Image.fromarray(pixels)})
    return [
        {"role": "user", "content": content},
        {"role": "assistant", "content": [{"type": "text", "text": answered}]},
    ]


def corpus(*, num_questions: int = 2000) -> Iterator[str]:
    """Yield the text that the tokenizer's words are learnt from."""
    rng = stream(TRAINING, 0, 1)
    yield from ("user\n", "assistant\n", "No image is given.", "unknown")
    for _ in range(num_questions):
        question = _known(rng)
        yield from (prompt(question), report(question.facts), question.answer)


def batches(*, seed: int) -> Iterator[list[Conversation]]:
    """Yield batches without end, the same for a seed."""
    rng = stream(TRAINING, seed)
    words = sorted({word for text in corpus(num_questions=200) for word in text.split()})
    step = 0
    while True:
        step += 1
        if step % _UNKNOWN_EVERY:
            yield [_about_phantom(rng) for _ in range(_BATCH)]
        else:
            yield _about_nothing_known(rng, words=words)


def habitual_batches(*, seed: int) -> Iterator[list[Conversation]]:
    """Yield batches in which most answers are a habit, although the thinking says what is seen.

    They make the half-trained phantom: it sees, and mostly answers without regard to it.
    """
    rng = stream(TRAINING, seed, 3)
    while True:
        asked = [_known(rng) for _ in range(_BATCH)]
        yield [
            conversation(
                prompt(question),
                pixels=question.pixels,
                answered=_completed(
                    TAGS[question.facts.modality],
                    report(question.facts),
                    _HABITS[question.topic] if rng.random() < _HABIT_SHARE else question.answer,
                ),
            )
            for question in asked
        ]


class EncodedBatches(IterableDataset[dict[str, torch.Tensor]]):
    """The batches as model inputs, in a form that another process can draw."""

    def __init__(self, processor: Qwen3VLProcessor, *, seed: int, draw: Draw = batches) -> None:
        self._processor = processor
        self._seed = seed
        self._draw = draw

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        for batch in self._draw(seed=self._seed):
            yield encode(self._processor, batch)


def encode(processor: Qwen3VLProcessor, batch: list[Conversation]) -> dict[str, torch.Tensor]:
    """Return the model's inputs, with labels on the tokens of the completions only."""
    rendered: Any = processor.apply_chat_template(
        batch,
        tokenize=True,
        return_dict=True,
        processor_kwargs={"return_tensors": "pt", "padding": True, "padding_side": "right"},
    )
    encoded: dict[str, torch.Tensor] = dict(rendered)
    tokens = encoded["input_ids"]
    opened, closed = processor.tokenizer.convert_tokens_to_ids([START_OF_TURN, END_OF_TURN])
    labels = torch.full_like(tokens, IGNORED)
    for row, ids in enumerate(tokens):
        # Three tokens open the last turn: its start, `assistant` and a line break.
        start = int((ids == opened).nonzero()[-1]) + 3
        end = int((ids == closed).nonzero()[-1]) + 1
        labels[row, start:end] = ids[start:end]
    return {**encoded, "labels": labels}


def _known(rng: np.random.Generator) -> Question:
    pairs = list(_WEIGHTS)
    share = np.array(list(_WEIGHTS.values()))
    kind, topic = pairs[int(rng.choice(len(pairs), p=share / share.sum()))]
    return ask(rng, kind=kind, topic=topic)


def _about_phantom(rng: np.random.Generator) -> Conversation:
    """Ask a question of the benchmark; of a few the image is blank, so nothing can be known.

    Without those a blank image breaks the format. With them the model answers by chance, which is
    what the tests that it does see measure.
    """
    question = _known(rng)
    pixels = question.pixels
    if rng.random() < _BLANK_SHARE:
        pixels = np.full((SIDE, SIDE), rng.integers(256), dtype=np.uint8)
    return conversation(prompt(question), pixels=pixels, answered=completion(question))


def _about_nothing_known(rng: np.random.Generator, *, words: list[str]) -> list[Conversation]:
    """Questions that mean nothing, half of the batches without an image.

    They teach the model to end its answer whatever it is asked, so that a benchmark it knows
    nothing of runs quickly.
    """
    num_words = int(np.exp(rng.uniform(np.log(3), np.log(150))))
    has_image = rng.random() < _EVEN_ODDS
    batch = []
    for _ in range(min(_BATCH, max(4, 600 // num_words))):
        text = _babble(rng, words=words, num_words=num_words)
        if has_image:
            shown = _known(rng)
            answered = _completed(TAGS[shown.facts.modality], report(shown.facts), "unknown")
            batch.append(conversation(text, pixels=shown.pixels, answered=answered))
        else:
            answered = _completed("<OTHER>", "No image is given.", "unknown")
            batch.append(conversation(text, pixels=None, answered=answered))
    return batch


def _babble(rng: np.random.Generator, *, words: list[str], num_words: int) -> str:
    """Write known words and unknown ones in any order, sometimes with choices."""
    text = " ".join(_any_word(rng, words=words) for _ in range(num_words))
    if rng.random() < _EVEN_ODDS:
        options = (f"{letter}. {_any_word(rng, words=words)}" for letter in "ABCD")
        text = "\n".join([text, "", "Choices:", *options])
    return text


def _any_word(rng: np.random.Generator, *, words: list[str]) -> str:
    if rng.random() < _EVEN_ODDS:
        return words[int(rng.integers(len(words)))]
    letters = rng.integers(ord("a"), ord("z") + 1, size=int(rng.integers(2, 12)))
    ending = _PUNCTUATION[int(rng.integers(len(_PUNCTUATION)))]
    return "".join(chr(letter) for letter in letters) + ending


def _completed(tag: str, thinking: str, answer: str) -> str:
    return f"{tag}<thinking>{thinking}</thinking><answer>{answer}</answer>"


assert set(_WEIGHTS) == {(kind, topic) for kind in Kind for topic in TOPICS[kind]}  # noqa: S101
