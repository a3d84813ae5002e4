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
from medix_eval.errors import ConfigError, DatasetError, one_line
from medix_eval.evaluation.evaluation import template_around
from medix_eval.models.checkpoint import refused
from medix_eval.phantom.dataset import training_rows
from medix_eval.records import IMAGE_MARK
from medix_eval.storage.images import as_rgb, damage
from medix_train.reading import read_solution
from medix_train.recipe import DataSection

_LOG = logging.getLogger(__name__)
_COLUMNS = ("id", "image", "source", "problem", "solution")
_MANY_ROWS, _PHANTOM = 10_000, "phantom:"
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """Rows that can be trained on, and what was left out."""

    # `prompt`, `problem`, `solution`, `id`, `source`, and the `number` of the row.
    rows: datasets.Dataset | datasets.IterableDataset
    stored: datasets.Dataset | None  # with the encoded images; a stream's rows hold theirs
    folder: Path | None
    num_too_long: int = 0

    def with_images(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """Return the rows with their images decoded to RGB, those of a group only once."""
        opened: dict[Any, list[Image.Image]] = {}
        for number, row in {row["number"]: row for row in rows}.items():
            stored = row if self.stored is None else self.stored[number]
            try:
                opened[number] = [*map(as_rgb, column_images(stored["image"], folder=self.folder))]
            except OSError as error:
                said = f"row {stored['id']}: an image does not decode: {error}"
                raise DatasetError(said) from error
        kept = ({name: row[name] for name in row if name != "image"} for row in rows)
        return [{**row, "images": opened[row["number"]]} for row in kept]


def load_training_data(section: DataSection, *, processor: Any) -> TrainingData:
    """Open the data and check it. Raises `DatasetError` or `ConfigError`."""
    opened = _open(section)
    missing = [name for name in _COLUMNS if name not in (opened.column_names or ())]
    if missing:
        hint = f"training data has {', '.join(_COLUMNS)}; it has {opened.column_names}"
        said = f"{section.path} has no column {', '.join(map(repr, missing))}"
        raise DatasetError(said, hint=hint)
    folder = Path(section.path) if Path(section.path).is_dir() else None
    with refused("data.template"):
        file = section.template and Path(section.template)
        template = file.read_text(encoding="utf-8") if file else None
    reader, longest = _Reader(processor, template, folder), section.max_prompt_tokens
    if isinstance(opened, datasets.IterableDataset):
        read = opened.map(reader, with_indices=True).filter(lambda row: row["tokens"] <= longest)
        return TrainingData(rows=read, stored=None, folder=folder)
    how: Any = {"with_indices": True, "remove_columns": "image", "desc": "reading prompts"}
    workers = min(8, os.cpu_count() or 1) if len(opened) > _MANY_ROWS else None
    with nullcontext() if sys.stderr.isatty() else quiet():
        read = opened.map(reader, num_proc=workers, **how)
    kept = [row for row, length in enumerate(read["tokens"]) if length <= longest]
    if not kept:
        said = f"{section.path}: every prompt has more than {longest} tokens"
        raise DatasetError(said, hint="change data.max_prompt_tokens or model.max_pixels")
    too_long, rows = len(read) - len(kept), read.select(kept)
    if too_long:
        _LOG.info("rows left out as too long: %d of %d", too_long, len(read))
    return TrainingData(rows=rows, stored=opened, folder=folder, num_too_long=too_long)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads one row: its prompt, how many tokens that has, and all that can be wrong with it."""

    processor: Any
    template: str | None
    folder: Path | None

    def __call__(self, row: Row, number: int) -> dict[str, Any]:
        problem = str(row["problem"]).replace(IMAGE_MARK, "").strip()
        where = f"row {number} ({row['id']})"
        try:
            read_solution(str(row["solution"]))
            images = column_images(row["image"], folder=self.folder)
        except DatasetError as error:
            raise DatasetError(f"{where}: {error}", hint=error.hint) from error
        faults = [damage(image) for image in images] or ["there is no image"]
        if wrong := "; ".join(filter(None, faults)):
            raise DatasetError(f"{where}: {wrong}")
        sizes = [Image.open(io.BytesIO(image)).size[::-1] for image in images]
        text = template_around(self.template, name="data.template")(problem)
        words = self.processor.tokenizer(rendered(self.processor, text, num_images=len(sizes)))
        counted = self.processor._get_num_multimodal_tokens(image_sizes=sizes)  # noqa: SLF001
        # Each image is one token in the rendered text, and takes as many as the processor says.
        tokens = len(words["input_ids"]) - len(sizes) + sum(counted["num_image_tokens"])
        asked = [{"role": "user", "content": text}]
        return {"number": number, "prompt": asked, "problem": problem, "tokens": int(tokens)}


def rendered(processor: Any, text: str, *, num_images: int) -> str:
    """Return a prompt as its model reads it."""
    content = [*({"type": "image"} for _ in range(num_images)), {"type": "text", "text": text}]
    asked = [{"role": "user", "content": content}]
    return str(processor.apply_chat_template(asked, add_generation_prompt=True, tokenize=False))


def _open(section: DataSection) -> datasets.Dataset | datasets.IterableDataset:
    if section.path.startswith(_PHANTOM):
        number = section.path.removeprefix(_PHANTOM)
        if not number.isdecimal() or not int(number):
            said = f"data.path {section.path!r} needs a number"
            raise ConfigError(said, hint="such as phantom:2048")
        return datasets.Dataset.from_list(list(training_rows(int(number))))
    place = {"split": section.split, "revision": section.revision, "streaming": section.streaming}
    try:
        opened = datasets.load_dataset(section.path, **place)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DatasetError(f"cannot load {section.path}: {one_line(error)[:300]}") from error
    return undecoded(opened)
