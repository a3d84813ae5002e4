"""The phantom: rows that are drawn when a task is loaded, and the model that sees them.

An image is a body with two organs, lesions in one of them, the look of a modality. Lengths are in
units of its side. Nothing but the facts is to be read off it: where the organs lie, how wide the
body is and where in its organ a lesion sits are drawn at random.

A multiple-choice answer is the option's text. The letters are shown, as in every task, but a model
this small does not learn to map what it sees to a letter within minutes.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from medix_eval.records import Kind

if TYPE_CHECKING:
    import datasets

SIDE = 64
MODALITIES = ("X-ray", "CT", "ultrasound", "microscopy")
SIDES = ("left", "right")
SIZES = ("small", "large")
MAX_LESIONS = 3
_RADIUS = {"small": 0.036, "large": 0.066}
_RIM = 0.88
"""Where the bright rim of a CT begins, as a share of the body's radius."""
_NUM_CELLS = 45
_CELL_RADIUS = 0.016
_GAPS = (0.05, 0.035, 0.02, 0.01, 0.01, 0.01)
"""Room between two lesions: less is asked for each time they did not fit."""
_SLOTS = (-0.85, 0.0, 0.85)
Pixels = NDArray[np.uint8]
_Plane = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is to be seen on one phantom; side and size are empty where no lesion is."""

    modality: str
    count: int
    side: str = ""
    size: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Organ:
    x: float
    y: float
    width: float
    height: float


def draw(facts: Facts, rng: np.random.Generator) -> Pixels:
    """Return the grey image of these facts."""
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32) / SIDE + 0.5 / SIDE
    centre_x, centre_y = 0.5 + rng.uniform(-0.03, 0.03, 2)
    width, height = rng.uniform(0.40, 0.46), rng.uniform(0.38, 0.45)
    distance = np.sqrt(((x - centre_x) / width) ** 2 + ((y - centre_y) / height) ** 2)
    plane: _Plane = np.where(distance < 1, 0.50, 0.04).astype(np.float32)

    organ_width, organ_height = rng.uniform(0.125, 0.15), rng.uniform(0.23, 0.28)
    organs = {}
    for side, sign in zip(SIDES, (-1, 1), strict=True):
        organ = _Organ(
            x=centre_x + sign * 0.465 * width + rng.uniform(-0.01, 0.01),
            y=centre_y + rng.uniform(-0.02, 0.02),
            width=organ_width,
            height=organ_height,
        )
        inside = ((x - organ.x) / organ.width) ** 2 + ((y - organ.y) / organ.height) ** 2 < 1
        plane[inside] = 0.25
        organs[side] = organ

    plane = _tissue(plane, modality=facts.modality, distance=distance, grid=(x, y), rng=rng)
    if facts.count:
        radius = _RADIUS[facts.size]
        for lesion_x, lesion_y in _places(organs[facts.side], facts=facts, rng=rng):
            away = np.sqrt((x - lesion_x) ** 2 + (y - lesion_y) ** 2)
            plane = np.maximum(plane, np.clip((radius - away) * SIDE + 0.5, 0, 1))
    return _noise(plane, modality=facts.modality, rng=rng)


def png(pixels: Pixels) -> bytes:
    """Encode an image.

    Stored, not compressed: noise hardly shrinks, and the bytes, which a sample's id hashes, are
    then the same with every build of zlib.
    """
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=0)
    return buffer.getvalue()


def _tissue(
    plane: _Plane,
    *,
    modality: str,
    distance: _Plane,
    grid: tuple[_Plane, _Plane],
    rng: np.random.Generator,
) -> _Plane:
    """Give the body the marks of its modality, which lie under the lesions."""
    x, y = grid
    body = distance < 1
    if modality == "CT":
        plane[body & (distance > _RIM)] = 0.80
    elif modality == "X-ray":
        plane = (plane + np.float32(0.10) * (1 - y) * body).astype(np.float32)
    elif modality == "microscopy":
        plane = np.where(body, 0.62 + 0.35 * (plane - 0.5), 0.75).astype(np.float32)
        for cell_x, cell_y in rng.uniform(0.03, 0.97, (_NUM_CELLS, 2)):
            plane[(x - cell_x) ** 2 + (y - cell_y) ** 2 < _CELL_RADIUS**2] = 0.15
    return plane


def _places(organ: _Organ, *, facts: Facts, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Choose where the lesions lie in their organ, never touching each other."""
    for gap in _GAPS:
        apart = 2 * _RADIUS[facts.size] + gap
        places: list[tuple[float, float]] = []
        for across, along in rng.uniform(-1, 1, (80, 2)):
            x = organ.x + across * (organ.width - 0.03)
            y = organ.y + along * (organ.height - 0.04)
            if across**2 + along**2 < 1 and all(
                (x - other_x) ** 2 + (y - other_y) ** 2 > apart**2 for other_x, other_y in places
            ):
                places.append((x, y))
            if len(places) == facts.count:
                return places
    # Three large lesions in a small organ may not fit by chance: then they stand in a column.
    return [(organ.x, organ.y + slot * (organ.height - 0.04)) for slot in _SLOTS][: facts.count]


def _noise(plane: _Plane, *, modality: str, rng: np.random.Generator) -> Pixels:
    """Add the grain of a modality: speckle on ultrasound, blur on an X-ray."""
    if modality == "ultrasound":
        grainy = plane * rng.rayleigh(0.75, plane.shape).clip(0.15, 1.6)
    else:
        grainy = plane + rng.normal(0, 0.015 if modality == "X-ray" else 0.03, plane.shape)
    pixels: Pixels = (grainy.clip(0, 1) * 255).astype(np.uint8)
    if modality == "X-ray":
        blurred = Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(0.8))
        pixels = np.asarray(blurred, dtype=np.uint8)
    return pixels


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
        others = [modality for modality in MODALITIES if modality != facts.modality]
        named = facts.modality if rng.random() < _EVEN_ODDS else _one_of(rng, others)
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


def _one_of(rng: np.random.Generator, values: Sequence[str]) -> str:
    return values[int(rng.integers(len(values)))]


TRAINING, EVALUATION = 1, 2
"""The first word of every seed: no evaluation seed starts the stream of a training seed."""
TAGS = {
    "X-ray": "<X_RAY>",
    "CT": "<CT_SCAN>",
    "ultrasound": "<ULTRASOUND>",
    "microscopy": "<MICROSCOPY>",
}
"""What stands for a modality before the thinking, in a completion and in a solution."""


def model_folder() -> Path:
    """Return the folder of the shipped Qwen3-VL checkpoint, as `from_pretrained` takes it."""
    return Path(__file__).resolve().parent / "model"


def stream(purpose: int, *words: int) -> np.random.Generator:
    """Return the random stream of one purpose (`TRAINING` or `EVALUATION`) and seed."""
    return np.random.default_rng([purpose, *words])


def questions(kind: Kind, *, num_samples: int, seed: int) -> list[Question]:
    """Draw the evaluation questions of one kind, its topics taking turns.

    The released benchmark is seed 0; any other seed gives new images and questions.
    """
    rng = stream(EVALUATION, seed, list(Kind).index(kind))
    topics = TOPICS[kind]
    return [ask(rng, kind=kind, topic=topics[row % len(topics)]) for row in range(num_samples)]


def training_rows(number: int) -> Iterator[dict[str, Any]]:
    """Draw rows for GRPO from a stream that neither the model's training nor a benchmark has."""
    rng = stream(TRAINING, 0, 2)
    topics = [(kind, topic) for kind, named in TOPICS.items() for topic in named]
    for row in range(number):
        kind, topic = topics[row % len(topics)]
        question = ask(rng, kind=kind, topic=topic)
        yield {
            "id": f"phantom-{row}",
            "image": [{"bytes": png(question.pixels), "path": None}],
            "source": f"{kind}/{topic}",
            "problem": prompt(question),
            "solution": f"{TAGS[question.facts.modality]}\n{question.answer}",
        }


def load(
    *, medix: Mapping[str, Any], seed: int = 0, **_other_metadata: object
) -> dict[str, datasets.Dataset]:
    """Return the test split of a phantom task, as lm-eval's `custom_dataset` asks for it.

    lm-eval passes the task's metadata, so kind and number of samples stand once, in the task file,
    and `--metadata '{"seed": 7}'` draws fresh images for a stock `lm_eval run`.
    """
    from datasets import Dataset, Features, Image, List, Value  # noqa: PLC0415  # heavy

    kind = Kind(medix["kind"])
    rows = list(map(_row, questions(kind, num_samples=medix["num_samples"], seed=seed)))
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
