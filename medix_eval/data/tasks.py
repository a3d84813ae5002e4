"""The task files: what each benchmark is, read without opening any dataset.

A task file is an lm-evaluation-harness task config, so stock lm-eval runs it unchanged; what only
this harness needs sits under `metadata.medix`. lm-eval forgives much (an unquoted `no` becomes
False, an unknown key fails late), so the files are read strictly here, and cheaply: listing the
tasks imports neither lm-eval nor datasets.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import PositiveInt, ValidationError, model_validator

from medix_eval.errors import ConfigError, UnknownName
from medix_eval.records import Frozen, Kind
from medix_eval.storage.bundled import bundled, read_mapping
from medix_eval.storage.digests import digest

_ALIASES = {"all": "medix"}

# lm-eval raises TypeError on any other key, but only when the task is opened.
_TASK_FIELDS: Mapping[str, str | tuple[Any, ...] | None] = {
    # None: honoured, as stock lm-eval does.
    **dict.fromkeys((
        "task", "class", "custom_dataset", "dataset_path", "dataset_name", "dataset_kwargs",
        "validation_split", "test_split", "doc_to_text", "doc_to_target", "doc_to_image",
        "doc_to_choice", "target_delimiter", "metadata",
    )),
    # A text: harmless, and why.
    "task_alias": "names the task in the tables of stock lm-eval",
    "tag": "another name to select the task by, in stock lm-eval",
    **dict.fromkeys(("training_split", "fewshot_split", "fewshot_config.sampler",
                     "fewshot_config.split"),
                    "for examples, and none are shown"),
    "generation_kwargs.max_gen_toks": "the protocol's limit is used, and stands in the result",
    "doc_to_decontamination_query": "only read with should_decontaminate",
    # A tuple: what does nothing, or what we do; any other value is refused.
    "output_type": ("generate_until", "multiple_choice"), "process_docs": (None,),
    "doc_to_audio": (None, "", []), "unsafe_code": (False, None), "process_results": (None,),
    "use_prompt": (None,), "description": ("", None), "fewshot_delimiter": ("\n\n",),
    "fewshot_config": (None, {}), "fewshot_config.samples": ([], None), "num_fewshot": (0, None),
    "generation_kwargs": (None, {}), "generation_kwargs.until": ([],),
    "generation_kwargs.do_sample": (False, None), "generation_kwargs.temperature": (0, None),
    "metric_list": (None,), "metric_list.aggregation": ("mean",),
    "metric_list.higher_is_better": (True,), "repeats": (1,), "filter_list": (None,),
    "should_decontaminate": (False, None), "gen_prefix": (None, ""),
}  # fmt: skip
"""What becomes of each field of lm-eval's `TaskConfig`, and of the parts of some."""
_DIVIDED = {"fewshot_config", "generation_kwargs", "metric_list"}
_METRICS = {"generate_until": ("acc", "exact_match"), "multiple_choice": ("acc", "acc_norm")}
_MOST_VALUES = 1_000_000
_GROUP_FIELDS = frozenset({"group", "group_alias", "task", "aggregate_metric_list", "metadata"})


class ImageSource(Frozen):
    """Where a task's images are, when they are files beside the dataset's table."""

    zip: str | None = None
    """A zip file of the dataset's repository, such as `imgs.zip`."""
    folder: str | None = None
    """A folder of the local mirror; the file is found in it by its bare name."""
    member: str
    """The image's name, with columns in braces, such as `imgs/{img_name}`."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.zip is None) == (self.folder is None):
            raise ValueError("name either a zip or a folder")
        return self


class Derived(Frozen):
    """A slice that is made of a row's text: its value is that of the first pattern found in it."""

    column: str
    patterns: tuple[tuple[str, re.Pattern[str]], ...]
    """Value and regular expression, in the order in which they are tried."""
    default: str
    """The value where none is found."""

    @model_validator(mode="before")
    @classmethod
    def _with_file(cls, given: Any) -> Any:
        """Take from `file`, one of `tasks/slices`, what is not said beside it."""
        if not isinstance(given, dict) or "file" not in given:
            return given
        own = dict(given)
        try:
            path = bundled("tasks") / "slices" / str(own.pop("file"))
            return read_mapping(path, what="patterns") | own
        except ConfigError as error:
            raise ValueError(str(error)) from None

    def value_of(self, row: Mapping[str, Any]) -> str:
        """Return the value of a row."""
        text = str(row[self.column] or "")
        return next((value for value, one in self.patterns if one.search(text)), self.default)


class TaskSettings(Frozen):
    """What this harness must know of a task beyond lm-eval's own fields: `metadata.medix`."""

    kind: Kind
    """What sort of answer is asked for; it picks the rules and the judge's rubric."""
    kind_without_options: Kind | None = None
    """The kind of a row of a multiple_choice task without options, such as `open`."""
    parser: Literal["mmmu_letters"] | None = None
    """A published parser that scores the task in place of rules and judge."""
    score_range: tuple[int, int] = (0, 1)
    """The scale a judge grades on: 0 to 1, or 0 to 5 for reports."""
    modality: Literal["text", "image"]
    """Whether the prompt carries images."""
    data_class: Literal["public", "gated", "dua"]
    """Who may see the data; `dua` (a data use agreement) never leaves the machine."""
    licence: str
    """The dataset's licence, or what is known of it."""
    num_samples: PositiveInt | None
    """How many rows the task has, after `keep_rows`; None only if it could not be checked."""
    cluster: str | None = None
    """Column that says which samples share an image or a patient."""
    slices: tuple[str, ...] = ()
    """Columns to report the score by."""
    derived: dict[str, Derived] = {}
    """More slices, by name, that are made of a row's text; `--limit` does not look at them."""
    columns: dict[str, str] = {}
    """The types that columns must have, such as `label: int`, or `string | list<string>`."""
    files: dict[str, str] = {}
    """SHA-256 of files of the scored split, where known."""
    keep_rows: dict[str, str | tuple[str, ...]] = {}
    """Only rows with these values belong to the task, such as `q_lang: en`."""
    kept_columns: tuple[str, ...] = ()
    """Columns stored with each sample although they are not used in scoring."""
    facts: tuple[str, ...] = ()
    """Columns that list what a report must state."""
    question: str | None = None
    """Column that the question begins with; a judge does not see what the prompt has before."""
    image_source: ImageSource | None = None
    """Where the images are, if not in an image column."""
    image_order: str | None = None
    """A template that names the images (`<image 2>`) in the order in which they are shown."""
    fallbacks: tuple[str, ...] = ()
    """Tasks with other sources of the same benchmark, for `--allow-fallback`."""
    normal_report: str | None = None
    """What `--control always-normal` answers in place of the model."""

    @model_validator(mode="after")
    def _known_scale(self) -> Self:
        if self.score_range not in {(0, 1), (0, 5)}:
            raise ValueError("score_range is [0, 1] or [0, 5]")
        if self.image_source and self.modality != "image":
            raise ValueError("image_source is only for modality: image")
        if both := self.derived.keys() & self.row_columns:
            raise ValueError(f"derived: {min(both)!r} is the name of a column, too")
        return self

    @property
    def slice_names(self) -> tuple[str, ...]:
        """All slices, those of columns first."""
        return (*self.slices, *self.derived)

    @property
    def row_columns(self) -> tuple[str, ...]:
        """The columns that are stored beside each sample, each once."""
        cluster = (self.cluster,) if self.cluster else ()
        return tuple(dict.fromkeys((*self.slices, *cluster, *self.kept_columns)))


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFile:
    """One benchmark, as its YAML file says."""

    name: str
    version: str
    """Goes up with any change that can affect a score."""
    path: Path
    settings: TaskSettings
    dataset_path: str | None
    """`ORG/NAME` on the hub; None if the task makes its own rows."""
    dataset_name: str | None
    revision: str | None
    """The dataset commit the file pins, if it pins one."""
    dataset_kwargs: Mapping[str, Any]
    """What else `load_dataset` is told, such as `data_files`."""
    split: str
    output_type: str = "generate_until"
    """`generate_until`, or `multiple_choice`: the likeliest option is the answer."""
    digest: str
    """Hash of the resolved file, with what it includes and its patterns."""

    @property
    def key(self) -> str:
        """Name and version; two results are comparable only if their keys are equal."""
        return f"{self.name}@{self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """All tasks and groups of some folders."""

    tasks: Mapping[str, TaskFile]
    groups: Mapping[str, tuple[str, ...]]
    """Task names of each group; groups inside groups are flattened."""

    def groups_of(self, task: str) -> tuple[str, ...]:
        """Return the groups that a task is in."""
        return tuple(name for name, members in self.groups.items() if task in members)

    def weighed(self, tasks: Iterable[str]) -> str:
        """Return those of these tasks that are answered by likelihood, with commas between them."""
        return ", ".join(n for n in tasks if self.tasks[n].output_type == "multiple_choice")

    def select(self, names: Iterable[str], *, twins: str | None = None) -> tuple[str, ...]:
        """Return the tasks that these names stand for, in order, each once.

        A name is a task, a group, or several with commas between them. With `twins` a task
        `NAME_<twins>` takes the place of NAME, where there is one.
        """
        wanted = [name.strip() for argument in names for name in argument.split(",")]
        wanted = [name for name in wanted if name]
        if not wanted:
            raise ConfigError("no task is named", hint="list them with `medix-eval tasks`")
        selected: dict[str, None] = {}
        for name in wanted:
            members = self.groups.get(_ALIASES.get(name, name), (name,))
            if members == (name,) and name not in self.tasks:
                known = [*self.tasks, *self.groups, *_ALIASES]
                raise UnknownName("task or group", name, known, listed_by="medix-eval tasks")
            selected |= dict.fromkeys(members)
        return tuple(dict.fromkeys(self._twin(name, twins) for name in selected))

    def groups_with(self, twins: str | None) -> Mapping[str, tuple[str, ...]]:
        """Return the groups with `NAME_<twins>` in place of NAME, where there is one."""
        return {
            group: tuple(self._twin(name, twins) for name in members)
            for group, members in self.groups.items()
        }

    def _twin(self, name: str, twins: str | None) -> str:
        return twin if (twin := f"{name}_{twins}") in self.tasks else name


def mirror_at(path: str | Path | None) -> Path | None:
    """Return the folder that `--data-root` names, or raise `ConfigError` if it is missing."""
    if path is not None and not Path(path).is_dir():
        raise ConfigError(
            f"--data-root {path} is not a folder",
            hint="expected a copy of each dataset as ORG/NAME",
        )
    return None if path is None else Path(path)


def open_catalogue(include_path: Iterable[str | Path] = ()) -> Catalogue:
    """Read the bundled task files, and those of folders of the user's own."""
    return load_tasks([bundled("tasks"), *map(Path, include_path)])


def load_tasks(folders: Iterable[Path]) -> Catalogue:
    """Read the task and group files of these folders; a leading `_` marks a file to include."""
    tasks: dict[str, TaskFile] = {}
    groups: dict[str, tuple[Path, list[str]]] = {}
    seen: dict[str, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"{folder} is not a folder of task files")
        for path in sorted(folder.rglob("*.yaml")):
            if path.name.startswith("_"):
                continue
            fields = _resolved(path, folder)
            if "group" in fields:
                name = str(fields["group"])
                groups[name] = (path, _group_members(path, fields))
            else:
                task = _task_file(path, fields)
                name = task.name
                tasks[name] = task
            if name in seen:
                raise ConfigError(f"{path}: {name!r} is already defined in {seen[name]}")
            seen[name] = path
    flat = {name: tuple(_flattened(name, tasks=tasks, groups=groups)) for name in groups}
    return Catalogue(tasks=tasks, groups=flat)


def read_settings(metadata: object, *, where: str) -> TaskSettings:
    """Read `metadata.medix`; a field that is missing, misspelt or wrong is named."""
    if not isinstance(metadata, dict) or not isinstance(metadata.get("medix"), dict):
        raise ConfigError(f"{where}: metadata.medix is missing")
    try:
        return TaskSettings.model_validate(metadata["medix"])
    except ValidationError as error:
        # A misspelt field is also a missing one; the misspelling is the cause.
        found = sorted(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
        first = found[0]
        field = ".".join(str(part) for part in ("metadata", "medix", *first["loc"]))
        hint = "the settings are described in `TaskSettings`, medix_eval/data/tasks.py"
        if first["type"] == "extra_forbidden":
            hint = _nearest(str(first["loc"][-1]), TaskSettings.model_fields)
        raise ConfigError(f"{where}: {field}: {first['msg']}", hint=hint) from None


# A `!function` is kept as text: nothing is imported for a listing.
class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    at: Path
    folder: Path

    def function(self, node: yaml.ScalarNode) -> str:
        """Refuse code outside of the folder that the user named; lm-eval finds it this way."""
        name = str(self.construct_scalar(node))
        module = name.rpartition(".")[0].replace(".", "/")
        beside = (self.at.resolve().parent / f"{module}.py").resolve()
        asks_for = beside if beside.exists() else self.at.resolve()
        is_ours = module.startswith("medix_eval/") and asks_for != beside
        if not is_ours and self.folder.resolve() not in asks_for.parents:
            said = f"!function {name} is code outside of {self.folder}"
            raise ConfigError(f"{self.at}: {said}", hint="--include-path names a folder with code")
        return name


_Loader.add_constructor("!function", _Loader.function)


def _resolved(path: Path, folder: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Read a file with what it includes, merged as lm-eval does: shallow, its own keys win."""
    try:
        loader = _Loader(path.read_bytes())
        loader.at, loader.folder = path, folder
        fields = loader.get_single_data()
        size = _written_out(fields, {})
    except FileNotFoundError:
        raise ConfigError(f"{seen[-1]}: include: there is no file {path}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if size > _MOST_VALUES:
        raise ConfigError(f"{path}: too many values, once what `*` repeats is written out")
    if not isinstance(fields, dict):
        raise ConfigError(f"{path}: a task file is a mapping of fields")
    included = fields.pop("include", None)
    if included is None:
        return fields
    if not isinstance(included, str):
        # lm-eval changed which file of a list wins, so a list means two things.
        raise ConfigError(f"{path}: include: name one file")
    base = path.parent / included
    if base in seen:
        raise ConfigError(f"{path}: include: {included} includes itself")
    return _resolved(base, folder, (*seen, path)) | fields


def _written_out(value: Any, known: dict[int, float]) -> float:
    """Count the values below one; what repeats others many times over is counted, not walked."""
    if isinstance(value, dict | list) and id(value) not in known:
        known[id(value)] = math.inf  # until it is known: what holds itself has no end
        parts = [*value, *value.values()] if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_written_out(one, known) for one in parts)
    return known.get(id(value), 1)


def _task_file(path: Path, fields: dict[str, Any]) -> TaskFile:
    _forbid_unknown(path, fields, [one for one in _TASK_FIELDS if "." not in one])
    name = fields.get("task")
    if not isinstance(name, str):
        raise ConfigError(f"{path}: task: the file names neither a task nor a group")
    metadata = fields.get("metadata")
    settings = read_settings(metadata, where=str(path))
    _check_prompt_fields(path, fields, settings)
    output_type = fields.get("output_type", "generate_until")
    _refuse_unhonoured(path, fields, output_type)
    split = fields.get("test_split") or fields.get("validation_split")
    if not split:
        raise ConfigError(f"{path}: test_split: the file names no split to test on")
    kwargs = fields.get("dataset_kwargs") or {}
    derived = settings.model_dump(mode="json", include={"derived"}) if settings.derived else {}
    return TaskFile(
        name=name,
        version=_version(path, metadata),
        path=path,
        settings=settings,
        dataset_path=fields.get("dataset_path"),
        dataset_name=fields.get("dataset_name"),
        revision=kwargs.get("revision"),
        dataset_kwargs=kwargs,
        split=split,
        output_type=output_type,
        digest=digest(fields | derived),
    )


def _refuse_unhonoured(path: Path, fields: Mapping[str, Any], output_type: str) -> None:
    """Refuse what stock lm-eval would do and this harness would not; of some fields every part."""
    table = {**_TASK_FIELDS, "metric_list.metric": _METRICS.get(str(output_type), ())}
    named: list[tuple[str, Any]] = []
    for field, value in fields.items():
        parts = value if isinstance(value, list) and value else [value]
        is_divided = field in _DIVIDED and all(isinstance(one, dict) and one for one in parts)
        inner = [(f"{field}.{key}", one[key]) for one in parts if is_divided for key in one]
        named += inner or [(field, value)]
    for field, value in named:
        accepted = table.get(field, ())
        if isinstance(accepted, tuple) and value not in accepted:
            hint = " or ".join(["leave it out", *(f"write {json.dumps(one)}" for one in accepted)])
            if field.startswith("generation_kwargs"):
                hint += "; the protocol says how answers are written: --set generation.KEY=VALUE"
            said = f"{value!r:.60} has an effect in stock lm-eval only"
            raise ConfigError(f"{path}: {field}: {said}", hint=hint)


def _check_prompt_fields(path: Path, fields: dict[str, Any], settings: TaskSettings) -> None:
    if not fields.get("dataset_path") and not fields.get("custom_dataset"):
        raise ConfigError(f"{path}: dataset_path: the file names no dataset")
    for field in ("class", "doc_to_text", "doc_to_target"):
        if field not in fields:
            raise ConfigError(f"{path}: {field}: the field is missing")
    choices = fields.get("doc_to_choice")
    if settings.kind is Kind.MULTIPLE_CHOICE and choices is None:
        raise ConfigError(f"{path}: doc_to_choice: a multiple_choice task needs its options")
    is_narrow = settings.modality == "image" or settings.kind_without_options
    if fields.get("output_type") == "multiple_choice" and (choices is None or is_narrow):
        raise ConfigError(f"{path}: output_type: multiple_choice needs options, and no images")
    texts = choices.values() if isinstance(choices, dict) else choices
    for choice in [] if texts is None or isinstance(texts, str) else texts:
        if not isinstance(choice, str):
            raise ConfigError(
                f"{path}: doc_to_choice: {choice!r} is not text",
                hint='quote it: YAML reads an unquoted yes or no as true or false, so write "yes"',
            )
    if (settings.modality == "image") != ("doc_to_image" in fields):
        raise ConfigError(
            f"{path}: doc_to_image: a task of modality {settings.modality} "
            f"{'needs' if settings.modality == 'image' else 'has no'} images"
        )


def _version(path: Path, metadata: Any) -> str:
    version = metadata.get("version")
    # 1.10 would be read as the number 1.1, and so would be another version than the one written.
    if isinstance(version, bool) or not isinstance(version, int | str) or not str(version):
        raise ConfigError(f"{path}: metadata.version: use an integer or a quoted string")
    return str(version)


def _group_members(path: Path, fields: dict[str, Any]) -> list[str]:
    _forbid_unknown(path, fields, _GROUP_FIELDS)
    members = fields.get("task")
    if not isinstance(members, list) or not members:
        raise ConfigError(f"{path}: task: a group lists its tasks")
    for member in members:
        if not isinstance(member, str):
            raise ConfigError(f"{path}: task: {member!r} is not a name")
    return members


def _flattened(
    name: str,
    *,
    tasks: Mapping[str, TaskFile],
    groups: Mapping[str, tuple[Path, list[str]]],
    above: tuple[str, ...] = (),
) -> dict[str, None]:
    """Return the tasks of a group as an ordered set."""
    path, members = groups[name]
    if name in above:
        raise ConfigError(f"{path}: task: group {name!r} contains itself")
    flat: dict[str, None] = {}
    for member in members:
        if member in groups:
            flat |= _flattened(member, tasks=tasks, groups=groups, above=(*above, name))
        elif member in tasks:
            flat[member] = None
        else:
            hint = _nearest(member, [*tasks, *groups])
            raise ConfigError(f"{path}: task: no task or group is named {member!r}", hint=hint)
    return flat


def _forbid_unknown(path: Path, fields: Mapping[str, Any], known: Iterable[str]) -> None:
    for field in fields:
        if field not in known:
            raise ConfigError(
                f"{path}: {field}: not a field of lm-eval",
                hint=_nearest(str(field), known) or "settings of this harness: metadata.medix",
            )


def _nearest(word: str, known: Iterable[str]) -> str:
    close: Sequence[str] = get_close_matches(word, list(known), n=1)
    return f"did you mean {close[0]!r}?" if close else ""
