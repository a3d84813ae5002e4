"""The one task class behind every task file, in stock lm-eval and in this harness, and its opening.

lm-eval builds it through a task file's `class:` field. It keeps images as stored bytes (stock
decodes a whole split when a task opens), and checks every row it reads: a withheld label or a
missing option is an error that names the row, never a silently wrong reference. Here tasks are
opened before anything is sent, and all that is missing is said at once.
"""

from __future__ import annotations

import ast
import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeVar

import datasets
from datasets.config import HF_DATASETS_CACHE
from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES
from jinja2 import BaseLoader, StrictUndefined, TemplateError, meta, nodes, pass_context
from jinja2.runtime import Context
from lm_eval.api.registry import get_aggregation
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager
from lm_eval.utils import env
from PIL import Image

from medix_eval.data.hub import offline_if_out_of_reach
from medix_eval.data.rows import (
    ImageFiles,
    cache_of,
    cached_hashes,
    changes_since_pinned,
    check_columns,
    check_size,
    column_images,
    image_hashes,
    local_files,
    open_image_files,
    quiet,
    undecoded,
)
from medix_eval.data.tasks import Catalogue, TaskFile, read_settings
from medix_eval.errors import BadRow, ConfigError, DatasetError, full_disk, one_line, whole_story
from medix_eval.records import IMAGE_MARK, Kind
from medix_eval.rules.answers import extract_answer
from medix_eval.rules.decide import decide
from medix_eval.rules.text import normalise
from medix_eval.storage.images import as_rgb, damage
from medix_eval.storage.mirror import Mirror, read_mirror, rows_key, sha256_of
from medix_eval.storage.sandbox import Sandbox

Row = Mapping[str, Any]
"""One row of a dataset, as `datasets` gives it, images not decoded."""
_UNREADABLE = (TemplateError, ArithmeticError, LookupError, TypeError, ValueError, SyntaxError)
_HINT = "point --data-root at a folder that holds a full copy as ORG/NAME"
_DEFAULT_METRIC = {"metric": "exact_match"}
_FREE = frozenset({Kind.OPEN, Kind.REPORT})


class MedixTask(ConfigurableTask):  # type: ignore[misc]  # lm-eval has no types
    """A benchmark with its rows open.

    `rows` is what the task asks, after its own filter. The accessors take one of these rows, and
    its number for the error message.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self.name = str(config.get("task"))
        self.settings = read_settings(config.get("metadata"), where=f"task {self.name}")
        self.place = f"task {self.name}"
        self.changes: list[str] = []
        """How the data differs from what the task file pins, if the user accepted that."""
        self._splits: dict[str, datasets.Dataset] = {}
        self._plain_index = False
        try:
            # lm-eval hands over its own `class` field too, and then refuses it.
            own = {key: config[key] for key in config if key != "class"}
            # A stock group may hold a task of this name: its table then says whose this is.
            own["task_alias"] = f"{config.get('task_alias') or self.name} (medix-eval)"
            super().__init__(config=own)
        except _UNREADABLE as error:
            # Last of all lm-eval renders row 0. A bad one must not close the task to the others:
            # like any other row it is reported when it is read.
            if not hasattr(self, "features"):
                raise DatasetError(f"task {self.name}: {one_line(error)}") from error
        if self.OUTPUT_TYPE == "generate_until" and self.settings.kind not in _FREE:
            # Not in the task files' lists: it affects no score, but would change their digests.
            self._aggregation_list["decided"] = get_aggregation("mean")
            self._higher_is_better["decided"] = True
        if self._plain_index:
            self._check_plain_index(str(self.config.doc_to_target))

    # What lm-eval calls

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **_: Any) -> None:
        """Load the dataset and see that it is what the task file says."""
        options = dict(dataset_kwargs or {})
        try:
            if files := self._files:
                others = [
                    one for split in files if split != self._test_split for one in files[split]
                ]
                place = self._folder or files[self._test_split][0]
                source = (place, self.DATASET_NAME, options, self._test_split)
                options["cache_dir"] = cache_of(source, self.table_hashes, others)
            super().download(options)
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            raise DatasetError(
                f"task {self.name}: cannot load {self.DATASET_PATH}: {whole_story(error)}",
                hint=_HINT,
            ) from error
        if (split := self._test_split) not in self.dataset:
            known = ", ".join(self.dataset)
            raise DatasetError(f"task {self.name}: there is no split {split!r}, only {known}")
        settings = self.settings
        needed = (*self._template_columns, *self._image_columns, *settings.keep_rows)
        needed += (settings.question,) if settings.question else ()
        needed += tuple(one.column for one in settings.derived.values())
        features = self.dataset[split].features
        index = None if self.config.doc_to_choice is None else self.config.doc_to_target
        self._plain_index = check_columns(self.name, settings, features, needed=needed, index=index)
        self._check_size()
        # A missing zip is found now, not after the first requests.
        self._image_files = self._open_image_files()

    def training_docs(self) -> datasets.Dataset | None:
        """Return the training rows, images not decoded."""
        return self._split(self.config.training_split)

    def validation_docs(self) -> datasets.Dataset | None:
        """Return the validation rows, images not decoded."""
        return self._split(self.config.validation_split)

    def test_docs(self) -> datasets.Dataset | None:
        """Return the test rows, images not decoded."""
        return self._split(self.config.test_split)

    # A function in place of a template's text: compiled once, and a target such as "[L] lung"
    # stays text (lm-eval would read a Python list).

    def doc_to_text(self, doc: Row, doc_to_text: Any = None) -> Any:
        """Render the prompt."""
        return super().doc_to_text(doc, self._compiled("text", doc_to_text, str))

    def doc_to_target(self, doc: Row, doc_to_target: Any = None) -> Any:
        """Render the reference, or where there are options the index of the right one."""
        read = _index_or_text if self._offers_options(doc) else str
        return super().doc_to_target(doc, self._compiled("target", doc_to_target, read))

    def doc_to_choice(self, doc: Row, doc_to_choice: Any = None) -> Any:
        """Render the options; a table with room for nine leaves the last ones empty."""
        read = self._compiled("choice", doc_to_choice, ast.literal_eval)
        options = super().doc_to_choice(doc, read)
        last = max((n for n, option in enumerate(options, 1) if option is not None), default=0)
        return options[:last]

    def doc_to_image(self, doc: Row, doc_to_image: Any = None) -> list[Image.Image] | None:
        """Decode the images, always to RGB: stock lm-eval cannot log a CMYK one."""
        if self.config.doc_to_image is None:
            return None
        images = self.stored_images(doc)
        for problem in filter(None, map(damage, images)):
            raise self._fault(None, problem)
        return [*map(as_rgb, images)]

    def process_results(self, doc: Row, results: list[Any]) -> dict[str, float]:
        """Score one answer without a judge: what no rule can decide counts 0, and not as `decided`.

        This harness, which has undecided answers, does not call this.
        """
        reference, kind = self.reference(doc), self.kind(doc)
        if self.OUTPUT_TYPE == "multiple_choice":
            return dict(super().process_results(doc, results))
        answer = extract_answer(results[0])
        score: float | None = float(normalise(answer) == normalise(reference))
        if kind not in _FREE:
            verdict = decide(answer, kind=kind, reference=reference, options=self.options(doc))
            score = verdict.score if verdict else None
        # A task file that lists no metric gets stock lm-eval's own for free answers.
        names = [one["metric"] for one in self.config.metric_list or [_DEFAULT_METRIC]]
        scores = dict.fromkeys(names, score or 0.0)
        if "decided" in self._aggregation_list:
            scores["decided"] = float(score is not None)
        return scores

    # What this harness calls

    @property
    def rows(self) -> datasets.Dataset:
        """The rows of the task, after its own filter."""
        return self.eval_docs

    @cached_property
    def mirror(self) -> Mirror | None:
        """The manifest of the local copy that is read, if there is one."""
        return read_mirror(self._folder) if self._folder else None

    @property
    def revision(self) -> str | None:
        """The dataset commit that was loaded; None for rows that come from no hub."""
        if self._files or not self.DATASET_PATH:
            return self.mirror.revision if self.mirror else None
        # The cache keeps hub data in a folder named for the commit it came from.
        return Path(self.rows.cache_files[0]["filename"]).parent.name

    @cached_property
    def table_hashes(self) -> dict[str, str]:
        """The SHA-256 of each local file that the scored rows are read from, by its name."""
        files = self._files.get(self._test_split, [])
        above = os.path.commonpath([file.parent for file in files]) if files else ""
        folder = self._folder or Path(above)
        return {file.relative_to(folder).as_posix(): sha256_of(file) for file in files}

    def fingerprint(self, *, rehash: bool = False) -> dict[str, str]:
        """Return the hashes of the files that the scored rows come from; none if they are drawn.

        Tables are read; of images, each of which a run records, the manifest is believed unless
        `rehash` says otherwise.
        """
        if not self.DATASET_PATH:
            return {}
        images = self.settings.image_source
        if self._files:
            folder = self._folder
            beside = image_hashes(images, folder, self.mirror, rehash=rehash) if folder else {}
            return dict(sorted((self.table_hashes | beside).items()))
        with quiet():
            return cached_hashes(
                str(self.DATASET_PATH),
                config=self.DATASET_NAME,
                split=self._test_split,
                revision=str(self.revision),
                images=images,
            )

    def prompt_text(self, doc: Row, *, row: int | None = None) -> str:
        """Return the prompt; each image stands at its `<image>` mark."""
        for column in self._template_columns:
            value = doc.get(column)
            # Jinja would print a missing value as the word None.
            if value is None or (isinstance(value, str) and not value.strip()):
                raise self._fault(row, f"column {column!r} is empty")
        text = self._read("prompt", row, self.doc_to_text, doc)
        if not isinstance(text, str):
            raise self._fault(row, f"the prompt is not text: {text!r}")
        return text

    def kind(self, doc: Row, *, row: int | None = None) -> Kind:
        """Return what sort of answer a row asks for."""
        other = self.settings.kind_without_options
        return self.settings.kind if other is None or self.options(doc, row=row) else other

    @property
    def is_restricted(self) -> bool:
        """Whether a data use agreement covers the rows."""
        return self.settings.data_class == "dua"

    def options(self, doc: Row, *, row: int | None = None) -> tuple[str, ...]:
        """Return the texts of the options in their order; none if the row offers none."""
        if not self._offers_options(doc):
            return ()
        options = list(self._read("options", row, self.doc_to_choice, doc))
        for number, option in enumerate(options):
            if not isinstance(option, str) or not option.strip():
                letter = chr(ord("A") + number)
                raise self._fault(row, f"option {letter} is not text: {option!r}")
        if len(options) < 2:  # noqa: PLR2004
            raise self._fault(row, f"a choice needs at least two options, found {len(options)}")
        return tuple(options)

    def reference(
        self, doc: Row, *, row: int | None = None, options: tuple[str, ...] | None = None
    ) -> str:
        """Return the gold answer: of a choice, the text of the right option.

        A caller that already has the options may pass them.
        """
        target = self._read("reference", row, self.doc_to_target, doc)
        options = self.options(doc, row=row) if options is None else options
        if options:
            if isinstance(target, bool) or not isinstance(target, int):
                raise self._fault(row, f"the answer {target!r} is not the index of an option")
            if not 0 <= target < len(options):
                why = "the label is withheld" if target < 0 else f"{len(options)} options"
                raise self._fault(row, f"the answer index is {target}: {why}")
            return options[target]
        if not isinstance(target, str) or not target.strip():
            raise self._fault(row, f"the reference is not text: {target!r}")
        return target

    def facts(self, doc: Row, *, row: int | None = None) -> dict[str, str]:
        """Return what a report must state, by column; a fact that a row lacks is left out."""
        return self._texts(doc, self.settings.facts, row)

    def columns(self, doc: Row, *, row: int | None = None) -> dict[str, str]:
        """Return slices, cluster and kept columns as text; an image becomes its hash."""
        made = {name: one.value_of(doc) for name, one in self.settings.derived.items()}
        return self._texts(doc, self.settings.row_columns, row) | made

    def stored_images(self, doc: Row, *, row: int | None = None) -> list[bytes]:
        """Return the encoded images, exactly as the dataset stores them."""
        if self.config.doc_to_image is None:
            return []
        if self._image_files:
            try:
                return [self._image_files.read(doc)]
            except BadRow as error:
                raise self._fault(row, str(error)) from error
        columns = self._image_columns
        found = [self._column_images(doc[name], row) for name in columns]
        images = [image for several in found for image in several]
        if self.settings.image_order:
            first = [one[0] if one else None for one in found]
            order = _template(self.settings.image_order, f"{self.place}: image_order")

            def in_order(doc: Row) -> list[bytes]:
                return in_named_order(order.render(doc), first)

            images = self._read("order of the images", row, in_order, doc)
        if not images:
            raise self._fault(row, f"no image in {', '.join(columns)}")
        return images

    def missing_images(self) -> list[str]:
        """Return the image files that rows name and that are not there; none is opened."""
        if self._image_files is None:
            return []
        columns = self.rows.select_columns(self._image_columns)
        return self._image_files.missing(columns)

    def slice_values(self) -> list[tuple[str, ...]]:
        """Return every row's values of the slice columns; only these columns are read."""
        columns = [map(str, self.rows[column]) for column in self.settings.slices]
        return list(zip(*columns, strict=True)) if columns else [()] * len(self.rows)

    def cluster_values(self) -> list[str] | None:
        """Return what each row shares with others, where a plain column tells; no image is read."""
        column = self.settings.cluster
        is_plain = column and not isinstance(self.rows.features[column], datasets.Image)
        return list(map(str, self.rows[column])) if is_plain else None

    @property
    def option_prefix(self) -> str | None:
        """What stands before an option whose likelihood is asked for; None if answers are text."""
        return self.config.target_delimiter if self.OUTPUT_TYPE == "multiple_choice" else None

    # Inside

    @property
    def _test_split(self) -> str:
        return str(self.config.test_split or self.config.validation_split)

    @cached_property
    def _folder(self) -> Path | None:
        """The local folder that stands for the dataset, found as `datasets` finds it.

        A link is followed: `datasets` follows some, and would name files outside of the folder.
        """
        path = self.DATASET_PATH  # a reader of `datasets` comes before a folder of its name
        folder = Path(path) if path and path not in _PACKAGED_DATASETS_MODULES else None
        return folder.resolve() if folder and folder.is_dir() else None

    @cached_property
    def _files(self) -> dict[str, list[Path]]:
        """The local files of each split; none of a dataset on the hub."""
        path = str(self.DATASET_PATH or "")
        if not self._folder and path not in _PACKAGED_DATASETS_MODULES:
            return {}
        return local_files(
            str(self._folder or path), self.DATASET_NAME, self.config.dataset_kwargs or {}
        )

    @cached_property
    def _image_columns(self) -> list[str]:
        columns = self.config.doc_to_image
        return [columns] if isinstance(columns, str) else list(columns or [])

    def _open_image_files(self) -> ImageFiles | None:
        if self.settings.image_source is None:
            return None
        try:
            return open_image_files(
                self.settings.image_source,
                repository=str(self.DATASET_PATH),
                folder=self._folder,
                revision=self.revision,  # table and images of one commit
            )
        except DatasetError as error:
            raise DatasetError(f"task {self.name}: {one_line(error)}", hint=_HINT) from error

    def _offers_options(self, doc: Row) -> bool:
        if self.config.doc_to_choice is None or self.settings.kind_without_options is None:
            return self.config.doc_to_choice is not None
        return bool(self._read("options", None, self.doc_to_choice, doc))

    @cached_property
    def _template_columns(self) -> tuple[str, ...]:
        """The columns that prompt, options and reference are made of, without images."""
        config = self.config
        sources = (config.doc_to_text, config.doc_to_choice, config.doc_to_target)
        texts = [source for source in sources if isinstance(source, str)]
        found = dict.fromkeys(column for text in texts for column in columns_of(text))
        return tuple(column for column in found if column not in self._image_columns)

    def _split(self, split: str | None) -> datasets.Dataset | None:
        if split is None:
            return None
        if split not in self._splits:
            rows = undecoded(self.dataset[split])
            for column, value in self.settings.keep_rows.items():
                wanted = {value} if isinstance(value, str) else set(value)
                # Reads this column only; `Dataset.filter` would also write to the cache.
                kept = [row for row, found in enumerate(rows[column]) if str(found) in wanted]
                rows = rows.select(kept)
            self._splits[split] = rows
        return self._splits[split]

    def _check_size(self) -> None:
        split = self._test_split
        if self.mirror:
            key = rows_key(self.DATASET_NAME, split, self.config.dataset_kwargs or {})
            listed = self.mirror.rows.get(key)
            found = len(self.dataset[split])
            check_size(self.name, expected=listed, found=found, where="the mirror's manifest")
        if not (self.mirror and self.mirror.synthetic):
            expected = self.settings.num_samples
            check_size(self.name, expected=expected, found=len(self.rows), where="the task file")
        if not len(self.rows):
            raise DatasetError(f"task {self.name}: split {split!r} has no rows")

    def _check_plain_index(self, column: str) -> None:
        """Refuse plain numbers in place of labels unless all of them must count from 0."""
        if doubt := next(self._doubts(column), None):
            files = ", ".join([*self.fingerprint()][:_NAMED])
            raise DatasetError(
                f"task {self.name}: {files}: {doubt}",
                hint=f"subtract 1 if it counts from 1, else store {column!r} as a ClassLabel",
            )

    def _doubts(self, column: str) -> Iterator[str]:
        """Look at every row: 1 to 4 without a 4 would be read as other options, unnoticed."""
        values = set()
        for row, doc in enumerate(self.rows.select_columns(list(self._template_columns))):
            values.add(value := doc[column])
            with suppress(BadRow):  # of its options: reported when the row is read
                last = len(self.options(doc)) - 1
                if value is not None and not 0 <= value <= last:
                    yield f"row {row}: {column!r} is {value}, but options count from 0 to {last}"
        if 0 not in values:
            yield f"{column!r} is 0 in no row, so it may count from 1"

    def _compiled(self, what: str, source: Any, read: Callable[[str], Any]) -> Any:
        source = source or getattr(self.config, f"doc_to_{what}")
        if isinstance(source, str) and source not in self.features:
            compiled = _template(source, f"{self.place}: doc_to_{what}")
            return lambda doc: read(compiled.render(doc))
        return source

    def _texts(self, doc: Row, columns: tuple[str, ...], row: int | None) -> dict[str, str]:
        texts = {}
        for column in columns:
            value = doc[column]
            if isinstance(value, Mapping) and value.keys() == {"bytes", "path"}:
                value = hashlib.sha256(*self._column_images(value, row)).hexdigest()
            if value is not None:
                texts[column] = str(value)
        return texts

    def _column_images(self, value: Any, row: int | None) -> list[bytes]:
        try:
            return column_images(value)
        except BadRow as error:
            raise self._fault(row, str(error)) from error

    def _read(self, what: str, row: int | None, read: Callable[[Row], Any], doc: Row) -> Any:
        try:
            return read(doc)
        except _UNREADABLE as error:
            raise self._fault(row, f"the {what} cannot be read: {one_line(error)}") from error

    def _fault(self, row: int | None, message: str) -> BadRow:
        place = f"task {self.name}" if row is None else f"task {self.name}, row {row}"
        return BadRow(f"{place}: {message}")


def _index_or_text(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


_Image = TypeVar("_Image")


# As in lm-eval, so that it renders the same; but a stranger's task file gets at nothing.
_JINJA = Sandbox(loader=BaseLoader(), undefined=StrictUndefined, keep_trailing_newline=True)
_template = lru_cache(maxsize=256)(_JINJA.template)


def columns_of(source: str) -> list[str]:
    """Return the columns that a template cannot do without; a bare word is itself a column.

    >>> columns_of("{{ question }} {{ note if note is defined }}")
    ['question']
    >>> columns_of("answer")
    ['answer']
    """
    if source.isidentifier():
        return [source]
    tree = _JINJA.parse(source)
    optional = {
        test.node.name
        for test in tree.find_all(nodes.Test)
        if test.name == "defined" and isinstance(test.node, nodes.Name)
    }
    return sorted(meta.find_undeclared_variables(tree) - optional)


def unlettered(options: Mapping[str, str] | Sequence[str]) -> list[str]:
    """Return option texts without their own letters, if every option carries its own.

    Only then: the `E.` of "E. coli" is not an option letter.

    >>> unlettered(["A: lung", " B:liver"])
    ['lung', 'liver']
    >>> unlettered(["E. coli", "B. cereus"])
    ['E. coli', 'B. cereus']
    """
    texts = list(options.values() if isinstance(options, Mapping) else options)
    letters = [re.match(rf"\s*{chr(ord('A') + n)}\s*[:.)]", text) for n, text in enumerate(texts)]
    return [
        (text[letter.end() :] if letter and all(letters) else text).strip()
        for text, letter in zip(texts, letters, strict=True)
    ]


_NAMED_IMAGE = re.compile(r"<image (\d+)>")


def with_marks(text: str, images: Sequence[object]) -> str:
    """Put the mark of an image behind its name wherever a text names one; the others come first.

    >>> with_marks("Compare <image 2> with <image 1>.", ["a", "b", "c", None])
    '<image>Compare image 2 <image> with image 1 <image>.'
    """
    unnamed = IMAGE_MARK * len(_unnamed(text, images))
    return unnamed + _NAMED_IMAGE.sub(rf"image \1 {IMAGE_MARK}", text)


def image_names(text: str) -> str:
    """Write the names of images as words, so that a reader without the images can tell them apart.

    >>> image_names("<image 2>")
    'image 2'
    """
    return _NAMED_IMAGE.sub(r"image \1", text)


def in_named_order(text: str, images: Sequence[_Image | None]) -> list[_Image]:
    """Return the images in the order of their marks; one that is named twice comes twice.

    >>> in_named_order("Compare <image 2> with <image 1>.", ["a", "b", "c", None])
    ['c', 'b', 'a']
    """
    named = [images[int(number) - 1] for number in _NAMED_IMAGE.findall(text)]
    return [*_unnamed(text, images), *(image for image in named if image is not None)]


def _unnamed(text: str, images: Sequence[_Image | None]) -> list[_Image]:
    named = set(map(int, _NAMED_IMAGE.findall(text)))
    return [one for number, one in enumerate(images, 1) if one is not None and number not in named]


@pass_context
def _column(context: Context, name: str) -> object:
    """Return a column whose name is no identifier, as in `'Choice A' | column`."""
    return context[name]


_FILTERS = {
    "unlettered": unlettered,
    "with_marks": with_marks,
    "image_names": image_names,
    "literal": ast.literal_eval,
    "column": _column,
}
_JINJA.filters |= _FILTERS
env.filters |= _FILTERS  # the code of stock lm-eval can render these task files, too

_LOG = logging.getLogger(__name__)
_NAMED = 3


def open_task(
    task_file: TaskFile, *, data_root: Path | None = None, accept_change: bool = False
) -> MedixTask:
    """Load a task's dataset, from a local mirror if `data_root` is given.

    Every way in which the data can be wrong is a `DatasetError` that names the task. Data that is
    not what the file pins is one of these, unless the change is accepted: then the task keeps it.
    """
    override: dict[str, Any] = {"task": task_file.name}
    dataset = task_file.dataset_path
    from_hub = data_root is None and dataset and not Path(dataset).exists()
    if data_root is not None and dataset and dataset not in _PACKAGED_DATASETS_MODULES:
        folder = data_root.absolute() / dataset
        if not folder.is_dir():
            raise DatasetError(
                f"task {task_file.name}: there is no folder {folder}",
                hint=f"--data-root needs each dataset as ORG/NAME, here {dataset}",
            )
        override["dataset_path"] = str(folder)
    if accept_change and dataset:  # what draws its own rows needs to know how many
        settings = task_file.settings.model_dump(mode="json", exclude_unset=True)
        settings |= {"num_samples": None}
        override["metadata"] = {"version": task_file.version, "medix": settings}
    reached = offline_if_out_of_reach(task_file.name, str(dataset)) if from_hub else nullcontext()
    with quiet(), reached:
        manager = TaskManager(include_path=str(task_file.path.parent), include_defaults=False)
        read = manager.task_index[task_file.name].yaml_path  # lm-eval reads hidden files, too
        if not task_file.path.samefile(read):
            raise ConfigError(f"{read}: {task_file.name!r} is already defined in {task_file.path}")
        try:
            # Only a group's member may override single fields of a task that a file defines.
            loaded = manager.load({"group": "opened", "task": [override]})
        except (ConfigError, ImportError, AttributeError) as error:
            hint = getattr(error, "hint", "")
            raise ConfigError(f"{task_file.path}: {one_line(error)}", hint=hint) from error
        except DatasetError as error:
            if not full_disk(error):
                raise
            raise ConfigError(
                f"the disk is full: {dataset} does not fit into {HF_DATASETS_CACHE}",
                hint="free some space there, or set HF_HOME to another folder",
            ) from error
    task = loaded["tasks"][task_file.name]
    if not isinstance(task, MedixTask):
        raise ConfigError(f"{task_file.path}: class: must be medix_eval.lm_task.MedixTask")
    task.place = str(task_file.path)
    task.changes = changes_since_pinned(
        task_file,
        mirror=task.mirror,
        num_rows=len(task.rows),
        revision=task.revision,
        fingerprint=task.fingerprint() if task_file.settings.files else task.table_hashes,
    )
    if task.changes and not accept_change:
        raise DatasetError(
            f"task {task_file.name}: the data differs from its pins: {'; '.join(task.changes)}",
            hint="get the pinned data, or record the change with --accept-data-change",
        )
    return task


def open_all(
    names: Iterable[str],
    catalogue: Catalogue,
    *,
    data_root: Path | None,
    accept_change: bool = False,
    allow_fallback: bool = False,
) -> list[tuple[TaskFile, MedixTask]]:
    """Open these tasks, or raise one `DatasetError` that lists every one that cannot start.

    Another source of a benchmark is used only with `allow_fallback`; it is a task of its
    own, so its score never shares a column with the benchmark it replaces.
    """
    opened: list[tuple[TaskFile, MedixTask]] = []
    faults: dict[str, DatasetError] = {}
    for name in names:
        file = catalogue.tasks[name]
        others = file.settings.fallbacks if allow_fallback else ()
        for place in (name, *others):
            if place not in catalogue.tasks:
                raise ConfigError(f"{file.path}: fallbacks: no task is named {place!r}")
            try:
                task = _complete(catalogue.tasks[place], data_root, accept_change=accept_change)
            except DatasetError as error:
                faults[place] = error
                continue
            if place != name:
                _LOG.warning("%s; using %s instead", faults.pop(name), place)
            for tried in others:
                faults.pop(tried, None)
            opened.append((catalogue.tasks[place], task))
            break
    if faults:
        raise _all_of(faults, {} if allow_fallback else catalogue.tasks)
    return opened


def _complete(file: TaskFile, data_root: Path | None, *, accept_change: bool) -> MedixTask:
    task = open_task(file, data_root=data_root, accept_change=accept_change)
    if missing := task.missing_images():
        rest = len(missing) - _NAMED
        named = ", ".join(missing[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
        raise DatasetError(
            f"task {file.name}: missing images: {named}",
            hint=f"`medix-eval data pull --tasks {file.name} --to DIR` fetches them",
        )
    return task


def _all_of(faults: dict[str, DatasetError], files: Mapping[str, TaskFile]) -> DatasetError:
    """Put several faults under one another; a single one stays as it is.

    A hint names other sources of these files, unless they were tried.
    """
    hints = dict.fromkeys(error.hint for error in faults.values() if error.hint)
    others = [at for name in faults.keys() & files for at in files[name].settings.fallbacks]
    if others:
        hint = f"--allow-fallback uses {', '.join(others)}, which counts as another benchmark"
        hints[hint] = None
    if len(faults) == 1:
        (message,) = map(str, faults.values())
    else:
        listed = "\n".join(f"  {error}" for error in faults.values())
        message = f"the data of {len(faults)} tasks cannot be used:\n{listed}"
    return DatasetError(message, hint="; ".join(hints))
