"""Ask about one phantom: every kind of question, in several wordings, with the known answer.

A multiple-choice answer is the option's text. The letters are shown, as in every task, but a model
this small does not learn to map what it sees to a letter within minutes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medix_eval.phantom.drawing import (
    MAX_LESIONS,
    MODALITIES,
    SIDES,
    SIZES,
    Facts,
    Pixels,
    draw,
)
from medix_eval.records import Kind

TOPICS: dict[Kind, tuple[str, ...]] = {
    Kind.MULTIPLE_CHOICE: ("count", "modality"),
    Kind.CLOSED: ("lesion", "same_modality"),
    Kind.OPEN: ("side", "modality", "size", "count"),
    Kind.REPORT: ("report",),
}
"""What the questions of each kind ask about."""

_WORDINGS = {
    "lesion": (
        "Is there a lesion?",
        "Is a lesion visible in this image?",
        "Does this image show a lesion?",
        "Can you see any lesion here?",
        "Is any bright lesion present?",
    ),
    "same_modality": (
        "Is this {a_modality} image?",
        "Does this look like {a_modality} image?",
        "Was this image taken by {modality}?",
        "Is the modality {modality}?",
    ),
    "side": (
        "On which side of the image are lesions seen?",
        "Which side of the image shows lesions, left or right?",
        "Where are the lesions, left or right of the middle?",
        "Name the side that shows lesions.",
    ),
    "modality": (
        "What modality is this?",
        "What kind of image is this?",
        "Which imaging modality was used?",
        "Name the modality of this image.",
        "How was this image acquired?",
    ),
    "size": (
        "Are the lesions small or large?",
        "What is the size of the lesions, small or large?",
        "How big are the lesions, large or small?",
    ),
    "count": (
        "How many lesions are there?",
        "Count the lesions.",
        "What is the number of lesions in this image?",
        "How many bright lesions can you see?",
    ),
    "report": (
        "Describe the image.",
        "Write a short report of this image.",
        "Report the findings.",
        "What does this image show?",
    ),
}
_EVEN_ODDS = 0.5
_WITH_LESION = frozenset({"side", "size"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question about one phantom, with its answer."""

    kind: Kind
    topic: str
    facts: Facts
    pixels: Pixels
    text: str
    answer: str
    options: tuple[str, ...] = ()


def ask(rng: np.random.Generator, *, kind: Kind, topic: str) -> Question:
    """Draw a phantom and a question about it."""
    facts = _facts(rng, topic=topic)
    wording = _one_of(rng, _WORDINGS[topic])
    options: tuple[str, ...] = ()
    if topic == "lesion":
        answer = "yes" if facts.count else "no"
    elif topic == "same_modality":
        named = _named_modality(rng, shown=facts.modality)
        article = "a" if named in ("CT", "microscopy") else "an"
        wording = wording.format(modality=named, a_modality=f"{article} {named}")
        answer = "yes" if named == facts.modality else "no"
    elif topic == "report":
        answer = report(facts)
    else:
        answer = str(getattr(facts, topic))
    if kind is Kind.MULTIPLE_CHOICE:
        every = MODALITIES if topic == "modality" else range(MAX_LESIONS + 1)
        options = tuple(str(option) for option in rng.permutation(np.array(every, dtype=str)))
    return Question(
        kind=kind,
        topic=topic,
        facts=facts,
        pixels=draw(facts, rng),
        text=wording,
        answer=answer,
        options=options,
    )


def report(facts: Facts) -> str:
    """State all that is to be seen, in one sentence."""
    if not facts.count:
        return f"This {facts.modality} image shows no lesion."
    lesions = "lesion" if facts.count == 1 else "lesions"
    return (
        f"This {facts.modality} image shows {facts.count} {facts.size} {lesions}"
        f" on the {facts.side}."
    )


def prompt(question: Question) -> str:
    """Return the text that the task files render for this question, without the image mark."""
    if not question.options:
        return question.text
    lines = [f"{letter}. {option}" for letter, option in zip("ABCD", question.options, strict=True)]
    return "\n".join([question.text, "", "Choices:", *lines])


def _facts(rng: np.random.Generator, *, topic: str) -> Facts:
    """Draw facts, such that no answer to a question of this topic is much rarer than another."""
    if topic in _WITH_LESION or (topic == "lesion" and rng.random() < _EVEN_ODDS):
        count = int(rng.integers(1, MAX_LESIONS + 1))
    elif topic == "lesion":
        count = 0
    else:
        count = int(rng.integers(MAX_LESIONS + 1))
    modality = _one_of(rng, MODALITIES)
    if not count:
        return Facts(modality=modality, count=0)
    return Facts(modality=modality, count=count, side=_one_of(rng, SIDES), size=_one_of(rng, SIZES))


def _named_modality(rng: np.random.Generator, *, shown: str) -> str:
    if rng.random() < _EVEN_ODDS:
        return shown
    return _one_of(rng, [modality for modality in MODALITIES if modality != shown])


def _one_of(rng: np.random.Generator, values: Sequence[str]) -> str:
    return values[int(rng.integers(len(values)))]
