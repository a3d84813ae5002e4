"""The training data: rows as `MBZUAI/medix-rl-data` has them, turned into what TRL asks for.

Images stay encoded until their row is in a batch. All that is wrong with a row is found before a
model is loaded: texts are read whole, of an image its header. A stream is looked at as it comes.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from PIL import Image

from medix_eval.data.rows import column_images, quiet, undecoded
from medix_eval.errors import ConfigError, DatasetError
from medix_eval.evaluation.evaluation import template_around
from medix_eval.records import IMAGE_MARK
from medix_eval.storage.images import damage
from medix_train.completions import read_solution
from medix_train.recipe import DataSection
from medix_train.settings import refused

_LOG = logging.getLogger(__name__)
_COLUMNS = ("id", "image", "source", "problem", "solution")
_MANY_ROWS = 10_000
_PHANTOM = "phantom:"

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """Rows that can be trained on, and what was left out."""

    rows: datasets.Dataset | datasets.IterableDataset
    """`prompt`, `problem`, `solution`, `id`, `source`, and the `number` of the row."""
    stored: datasets.Dataset | None
    """The rows with their encoded images; None for a stream, whose rows hold them."""
    folder: Path | None
    num_too_long: int = 0

    def with_images(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """Return the rows with their images decoded, those of a group only once."""
        opened: dict[Any, list[Image.Image]] = {}
        for row in rows:
            if row["number"] not in opened:
                stored = row if self.stored is None else self.stored[row["number"]]
                opened[row["number"]] = _decoded(stored, folder=self.folder)
        return [
            {name: row[name] for name in row if name != "image"} | {"images": opened[row["number"]]}
            for row in rows
        ]


def load_training_data(section: DataSection, *, processor: Any) -> TrainingData:
    """Open the data and check it. Raises `DatasetError` or `ConfigError`."""
    opened = _open(section)
    missing = [name for name in _COLUMNS if name not in (opened.column_names or ())]
    if missing:
        raise DatasetError(
            f"{section.path} has no column {', '.join(map(repr, missing))}",
            hint=f"training data has {', '.join(_COLUMNS)}; it has {opened.column_names}",
        )
    folder = Path(section.path) if Path(section.path).is_dir() else None
    template = None
    if section.template:
        with refused("data.template"):
            template = Path(section.template).read_text(encoding="utf-8")
    reader = _Reader(processor=processor, template=template, folder=folder)
    longest = section.max_prompt_tokens
    if isinstance(opened, datasets.IterableDataset):
        read = opened.map(reader, with_indices=True).filter(lambda row: row["tokens"] <= longest)
        return TrainingData(rows=read, stored=None, folder=folder)
    workers = min(8, os.cpu_count() or 1) if len(opened) > _MANY_ROWS else None
    with nullcontext() if sys.stderr.isatty() else quiet():
        read = opened.map(
            reader,
            with_indices=True,
            remove_columns="image",
            num_proc=workers,
            desc="reading prompts",
        )
    kept = [row for row, length in enumerate(read["tokens"]) if length <= longest]
    if not kept:
        raise DatasetError(
            f"{section.path}: every prompt has more than {longest} tokens",
            hint="data.max_prompt_tokens, or model.max_pixels",
        )
    num_too_long = len(read) - len(kept)
    if num_too_long:
        _LOG.info("left out %d of %d rows: too long", num_too_long, len(read))
    return TrainingData(
        rows=read.select(kept), stored=opened, folder=folder, num_too_long=num_too_long
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reader:
    """Reads one row: its prompt, how many tokens that has, and all that can be wrong with it."""

    processor: Any
    template: str | None
    folder: Path | None

    def __call__(self, row: Row, number: int) -> dict[str, Any]:
        problem = str(row["problem"]).replace(IMAGE_MARK, "").strip()
        try:
            read_solution(str(row["solution"]))
            sizes = _sizes(row, folder=self.folder)
        except DatasetError as error:
            raise DatasetError(f"row {number} ({row['id']}): {error}", hint=error.hint) from error
        text = template_around(self.template, name="data.template")(problem)
        return {
            "number": number,
            "prompt": [{"role": "user", "content": text}],
            "problem": problem,
            "tokens": self._num_tokens(text, sizes=sizes),
        }

    def _num_tokens(self, text: str, *, sizes: list[tuple[int, int]]) -> int:
        prompt = rendered(self.processor, text, num_images=len(sizes))
        counted = self.processor._get_num_multimodal_tokens(image_sizes=sizes)  # noqa: SLF001
        # Each image is one token in the rendered text, and takes as many as the processor says.
        num_text_tokens = len(self.processor.tokenizer(prompt)["input_ids"]) - len(sizes)
        return int(num_text_tokens + sum(counted["num_image_tokens"]))


def rendered(processor: Any, text: str, *, num_images: int) -> str:
    """Return a prompt as its model reads it."""
    content = [*({"type": "image"} for _ in range(num_images)), {"type": "text", "text": text}]
    asked = [{"role": "user", "content": content}]
    return str(processor.apply_chat_template(asked, add_generation_prompt=True, tokenize=False))


def _encoded(row: Row, *, folder: Path | None) -> list[bytes]:
    """Return a row's images as they are stored; one that is a text is the path of a file."""
    value = row["image"]
    return column_images(
        [
            {"bytes": None, "path": (folder or Path()) / one} if isinstance(one, str) else one
            for one in (value if isinstance(value, list) else [value])
        ]
    )


def _sizes(row: Row, *, folder: Path | None) -> list[tuple[int, int]]:
    """Return height and width of each image, from their headers."""
    sizes = []
    for image in _encoded(row, folder=folder):
        if wrong := damage(image):
            raise DatasetError(wrong)
        with Image.open(io.BytesIO(image)) as opened:
            sizes.append((opened.height, opened.width))
    if not sizes:
        raise DatasetError("there is no image")
    return sizes


def _decoded(row: Row, *, folder: Path | None) -> list[Image.Image]:
    """Decode a row's images to RGB, as the harness does."""
    try:
        images = _encoded(row, folder=folder)
        return [Image.open(io.BytesIO(image)).convert("RGB") for image in images]
    except OSError as error:
        raise DatasetError(f"row {row['id']}: an image does not decode: {error}") from error


def _open(section: DataSection) -> datasets.Dataset | datasets.IterableDataset:
    if section.path.startswith(_PHANTOM):
        from medix_train.phantom_data import training_rows  # noqa: PLC0415

        number = section.path.removeprefix(_PHANTOM)
        if not number.isdecimal() or not int(number):
            raise ConfigError(
                f"data.path {section.path!r} draws nothing", hint="such as phantom:2048"
            )
        return datasets.Dataset.from_list(list(training_rows(int(number))))
    try:
        opened = datasets.load_dataset(
            section.path,
            split=section.split,
            revision=section.revision,
            streaming=section.streaming,
        )
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        said = " ".join(str(error).split())[:300]
        raise DatasetError(f"cannot load {section.path}: {said}") from error
    return undecoded(opened)
