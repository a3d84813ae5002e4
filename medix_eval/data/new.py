"""Turn a table and a folder of images into your own benchmark: task files and a mirror.

The table has a row per question. All its problems are reported at once, by row, and nothing is
written until there are none.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from medix_eval.data import options as choice
from medix_eval.errors import ConfigError
from medix_eval.records import IMAGE_MARK, Kind
from medix_eval.storage.images import damage
from medix_eval.storage.mirror import Mirror, MirrorFile

_READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    ".csv": lambda path: pd.read_csv(path, dtype=str, keep_default_na=False),
    ".xlsx": lambda path: pd.read_excel(path, dtype=str, keep_default_na=False),
    ".parquet": lambda path: pd.read_parquet(path).apply(_texts).astype("string").fillna(""),
}
_SHOWN = 10
_MOST_VALUES = 20
_FILE = re.compile(r".{1,200}\.\w{2,4}")
_ROWS_AT_ONCE = 100
Uses = dict[str, list[str]]
"""The columns of the table, by what becomes of them."""
_DATASET = "local"
"""The owner in `--data-root`: such a dataset is on no hub."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewQuestion:
    """One row of the table, checked."""

    id: str
    kind: Kind
    question: str
    answer: str
    options: tuple[str, ...]
    images: tuple[Path, ...]
    columns: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewBenchmark:
    """What was written."""

    tasks: dict[str, int]
    """Number of questions of each task."""
    columns: Uses
    notes: list[str]
    task_folder: Path
    data_root: Path


def new_benchmark(
    folder: Path, *, name: str, to: Path, licence: str, data_class: str
) -> NewBenchmark:
    """Write the task files and the mirror of a folder that holds a table and its images."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ConfigError(f"--name {name!r}: use lowercase letters, digits and _, such as ward_vqa")
    if (to / "tasks" / name).exists() or (to / "data" / _DATASET / name).exists():
        raise ConfigError(f"{to} already has a benchmark {name!r}", hint="choose another --name")
    by_kind: dict[Kind, list[NewQuestion]] = {}
    questions, columns, notes = _read(folder)
    for question in questions:
        by_kind.setdefault(question.kind, []).append(question)
    data = to / "data" / _DATASET / name
    tasks: dict[str, int] = {}
    try:
        (to / "tasks" / name).mkdir(parents=True)
        rows: dict[str, int] = {}
        for kind, some in by_kind.items():
            task = name if len(by_kind) == 1 else f"{name}_{kind.value}"
            path = data / kind.value / "test-00000-of-00001.parquet"
            _write_table(path, some)
            fields = _task(task, some, columns, name=name, licence=licence, data_class=data_class)
            file = path.relative_to(data).as_posix()
            fields["metadata"]["medix"]["files"] = {file: MirrorFile.of(path).sha256}
            head = "class: !function medix_eval.lm_task.MedixTask\n"
            _write_yaml(to / "tasks" / name / f"{task}.yaml", fields, head=head)
            rows[f"{kind.value}/test"] = tasks[task] = len(some)
        if len(by_kind) > 1:
            group = {"group": name, "task": list(tasks)}
            _write_yaml(to / "tasks" / name / f"{name}.yaml", group)
        _write_card(data, list(by_kind))
        files = sorted(path for path in data.rglob("*") if path.is_file())
        Mirror(
            source=f"{_DATASET}/{name}",
            revision=None,
            files={path.relative_to(data).as_posix(): MirrorFile.of(path) for path in files},
            rows=rows,
            synthetic=False,
        ).write(data)
    except OSError as error:
        raise ConfigError(f"--to {to} cannot be written to: {error.strerror or error}") from error
    places = {"task_folder": to / "tasks", "data_root": to / "data"}
    return NewBenchmark(tasks=tasks, columns=columns, notes=notes, **places)


def _read(folder: Path) -> tuple[list[NewQuestion], Uses, list[str]]:
    """Read the one table of a folder, and note odd rows; raise one error that lists every fault."""
    tables = sorted(path for path in folder.iterdir() if path.suffix.lower() in _READERS)
    if len(tables) != 1:
        found = ", ".join(path.name for path in tables) or "none"
        said = f"{folder} must have exactly one table (CSV, Excel or Parquet), found {found}"
        raise ConfigError(said)
    (table,) = tables
    try:
        frame = _READERS[table.suffix.lower()](table)
    except Exception as error:
        first_line = str(error).partition("\n")[0]
        raise ConfigError(f"{table} cannot be read: {first_line}") from error
    if any(frame.index.names):
        frame = frame.reset_index()
    names = [" ".join(str(column).split()) for column in frame.columns]
    layout, faults = choice.layout_of(names)
    if table.suffix.lower() == ".csv" and not isinstance(frame.index, pd.RangeIndex):
        faults.append("the rows have more cells than the first row has names")
    _refuse(table, faults, hint=choice.UNDERSTOOD)
    if frame.empty:
        raise ConfigError(f"{table} has no rows")
    ours = {name: known for known, name in layout.known.items()}
    keys = [ours.get(name, name) for name in names]
    rows = [
        dict(zip(keys, map(str.strip, cells), strict=True))
        for cells in frame.itertuples(index=False, name=None)
    ]
    sure = choice.sure_ways((row["answer"], [row[name] for name in layout.options]) for row in rows)
    questions: dict[int, NewQuestion] = {}
    seen: dict[object, int] = {}
    notes = []
    for number, row in enumerate(rows, 2):  # row 1 is the header
        try:
            one = _question(row, number=number, folder=folder, layout=layout, sure=sure)
            first = seen.setdefault((one.question, one.options, one.images), number)
        except ValueError as error:
            faults.append(f"row {number}: {error}")
            continue
        questions[number] = one
        if one.answer != questions[first].answer:
            faults.append(f"row {number}: the question of row {first}, with another answer")
        elif first != number:
            notes.append(f"row {number} repeats row {first}")
    shown = {one.kind for one in questions.values() if one.images}
    faults += [
        f"row {number}: no image, although other {one.kind.value} questions have one"
        for number, one in questions.items()
        if one.kind in shown and not one.images
    ]
    counts = Counter(one.id for one in questions.values())
    faults += [f"id {one!r} is used in {count} rows" for one, count in counts.items() if count > 1]
    _refuse(table, faults)
    return [*questions.values()], _uses(rows, layout), notes


def _refuse(table: Path, faults: list[str], *, hint: str = "") -> None:
    if faults:
        more = f"\n  and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        listed = "\n  ".join(faults[:_SHOWN])
        raise ConfigError(f"{table}: problems found: {len(faults)}\n  {listed}{more}", hint=hint)


def _texts(column: pd.Series[Any]) -> pd.Series[Any]:
    """Write lists and mappings as JSON, as other tables have them."""

    def plain(held: Any) -> Any:
        if hasattr(held, "tolist"):
            return held.tolist()
        said = f"column {column.name!r} holds {type(held).__name__}, not text"
        raise ValueError(f"{said}: a picture is a file that `image` names")

    def text(cell: Any) -> Any:
        is_text = not isinstance(cell, bytes) and not pd.api.types.is_list_like(cell)
        return cell if is_text else json.dumps(cell, default=plain, ensure_ascii=False)

    return column.map(text)


def _uses(rows: list[dict[str, str]], layout: choice.Layout) -> Uses:
    """Return what becomes of each column: also a column with few values becomes a slice."""
    uses = {ours: [name] for ours, name in layout.known.items()}
    uses |= {"options": uses.get("options", layout.options), "slices": [], "kept": []}
    for name in layout.others:
        key, values = choice.short(name), {row[name] for row in rows}
        few = 1 < len(values) <= _MOST_VALUES and 2 * len(values) < len(rows)
        is_slice = key.startswith("group") or (few and not choice.GOLD.fullmatch(key))
        uses["slices" if is_slice else "kept"].append(name)
    return uses


def _question(
    cells: dict[str, str], *, number: int, folder: Path, layout: choice.Layout, sure: set[str]
) -> NewQuestion:
    """Check one row; raises `ValueError` with what is wrong."""
    for column in ("question", "answer"):
        if cells[column] in choice.EMPTY:
            raise ValueError(f"the {column} is empty")
    for name in layout.others:
        file, shown = cells[name], cells.get("image", "")
        if _FILE.fullmatch(file) and file not in shown and (folder / file).is_file():
            raise ValueError(f"column {name!r} names {file}, which `image` does not (a.png|b.png)")
    options = choice.options_of([cells[name] for name in layout.options])
    kind = _kind(cells, options)
    named = choice.listed(cells.get("image", ""))
    named = named if isinstance(named, list) else named.split("|")
    return NewQuestion(
        id=cells.get("id") or str(number - 1),
        kind=kind,
        question=cells["question"],
        answer=choice.right_answer(cells, layout, options, sure=sure),
        options=options,
        images=tuple(_image(part, folder) for one in named if (part := str(one).strip())),
        columns={
            name: cell for name, cell in cells.items() if name in layout.others or name == "cluster"
        },
    )


def _kind(cells: dict[str, str], options: tuple[str, ...]) -> Kind:
    """Return the kind that the row names, else the one that it looks like."""
    if named := cells.get("kind"):
        if named not in list(Kind):
            raise ValueError(f"kind {named!r} is not one of {', '.join(Kind)}")
        if (Kind(named) is Kind.MULTIPLE_CHOICE) != bool(options):
            raise ValueError(f"kind {named} {'has no' if options else 'needs'} options")
        return Kind(named)
    if options:
        return Kind.MULTIPLE_CHOICE
    return Kind.CLOSED if cells["answer"].lower() in choice.YES_NO else Kind.OPEN


def _image(name: str, folder: Path) -> Path:
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ValueError(f"the image {name} is outside {folder}")
    if not path.is_file():
        raise ValueError(f"there is no image {name}")
    if problem := damage(path.read_bytes()):
        raise ValueError(f"the image {name} cannot be used: {problem}")
    return path


def _write_table(path: Path, questions: list[NewQuestion]) -> None:
    """Write the rows with their images' bytes, some at a time: memory does not grow with them."""
    path.parent.mkdir(parents=True)
    features: dict[str, Any] = dict.fromkeys(("id", "question", "answer"), datasets.Value("string"))
    features |= {"options": datasets.List(datasets.Value("string"))}
    features |= {"images": datasets.List(datasets.Image())}
    features |= dict.fromkeys(questions[0].columns, datasets.Value("string"))
    schema = datasets.Features(features).arrow_schema
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, len(questions), _ROWS_AT_ONCE):
            rows = list(_rows(questions[start : start + _ROWS_AT_ONCE]))
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
    path.chmod(0o600)


def _rows(questions: Iterable[NewQuestion]) -> Iterator[dict[str, Any]]:
    for one in questions:
        yield {
            "id": one.id,
            "question": one.question,
            "answer": one.answer,
            "options": list(one.options),
            "images": [{"bytes": path.read_bytes(), "path": path.name} for path in one.images],
            **one.columns,
        }


def _task(
    task: str, questions: list[NewQuestion], uses: Uses, *, name: str, licence: str, data_class: str
) -> dict[str, Any]:
    """Return the fields of a task file."""
    kind = questions[0].kind
    shows = bool(questions[0].images)
    # One mark for each image of the row.
    marks = "{% for image in images %}" + IMAGE_MARK + "{% endfor %}" if shows else ""
    text = marks + "{{ question }}"
    medix: dict[str, Any] = {
        "kind": kind.value,
        "score_range": [0, 5] if kind is Kind.REPORT else [0, 1],
        "modality": "image" if shows else "text",
        "data_class": data_class,
        "licence": licence,
        "num_samples": len(questions),
        "columns": {"question": "string", "answer": "string"},
        "slices": uses["slices"],
        "kept_columns": ["id", *uses["kept"]],
    }
    if "cluster" in questions[0].columns:
        medix["cluster"] = "cluster"
    fields: dict[str, Any] = {
        "task": task,
        "dataset_path": f"{_DATASET}/{name}",
        "dataset_name": kind.value,
        "test_split": "test",
        "output_type": "generate_until",
        "num_fewshot": 0,
        "fewshot_config": {"sampler": "first_n", "samples": []},
        "generation_kwargs": {"until": [], "do_sample": False, "max_gen_toks": 2048},
        "doc_to_text": text,
        "doc_to_target": "answer",
        "metric_list": [
            {
                "metric": "acc" if kind in {Kind.MULTIPLE_CHOICE, Kind.CLOSED} else "exact_match",
                "aggregation": "mean",
                "higher_is_better": True,
            }
        ],
        "metadata": {"version": 1, "medix": medix},
    }
    if shows:
        fields["doc_to_image"] = "images"
    if kind is Kind.MULTIPLE_CHOICE:
        letters = f"'{ascii_uppercase}'[loop.index0]"
        choices = "{% for one in options %}\n{{ " + letters + " }}. {{ one }}{% endfor %}"
        fields["doc_to_text"] = f"{text}\n\nChoices:{choices}"
        fields["doc_to_choice"] = "options"
        fields["doc_to_target"] = "{{ options.index(answer) }}"
    return fields


def _write_yaml(path: Path, fields: dict[str, Any], *, head: str = "") -> None:
    body = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
    path.write_text(head + body, encoding="utf-8")


def _write_card(data: Path, kinds: list[Kind]) -> None:
    """Tell `datasets` the configs: one for each kind of question."""
    configs = [
        {
            "config_name": kind.value,
            "data_files": [{"split": "test", "path": f"{kind.value}/test-*"}],
        }
        for kind in kinds
    ]
    text = f"---\n{yaml.safe_dump({'configs': configs})}---\n"
    (data / "README.md").write_text(text, encoding="utf-8")
