"""What a task file says of its data, held against the data: columns, types, rows, bytes.

Invented rows (`synthetic: true`) must have the columns and the types of the real ones; their
number and their bytes are their own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from medix_eval.errors import DatasetError

if TYPE_CHECKING:
    from medix_eval.data.tasks import TaskFile, TaskSettings
    from medix_eval.storage.mirror import Mirror

_CHANGED = "a dataset that changed gives another score: see what changed"


def check_columns(
    task: str, settings: TaskSettings, features: Mapping[str, Any], *, needed: Collection[str]
) -> None:
    """Raise `DatasetError` for the first column that is missing or of another type."""
    for column in (*needed, *settings.facts, *settings.row_columns, *settings.columns):
        if column not in features:
            raise DatasetError(
                f"task {task}: the dataset has no column {column!r}, only {', '.join(features)}"
            )
    for column, expected in settings.columns.items():
        found = type_of(features[column])
        if found not in [one.strip() for one in expected.split("|")]:
            raise DatasetError(
                f"task {task}: column {column!r} is {found}, but the task file says {expected}",
                hint=_CHANGED,
            )


def check_size(task: str, *, expected: int | None, found: int, where: str) -> None:
    """Raise `DatasetError` for another number of rows than somebody wrote down."""
    if expected not in {None, found}:
        raise DatasetError(f"task {task}: {found} rows, but {where} says {expected}", hint=_CHANGED)


def changes_since_pinned(
    file: TaskFile,
    *,
    mirror: Mirror | None,
    num_rows: int,
    revision: str | None,
    fingerprint: Mapping[str, str],
) -> list[str]:
    """Name what differs from the task file's pins: commit, number of rows, hashes of files."""
    if mirror and mirror.synthetic:
        return []
    pinned = file.settings.files
    pairs = [
        ("revision", file.revision, revision),
        ("rows", file.settings.num_samples, num_rows),
        *((name, sha, fingerprint.get(name)) for name, sha in pinned.items()),
    ]
    return [f"{what}: {old}, now {new}" for what, old, new in pairs if old not in {None, new}]


def type_of(feature: Any) -> str:
    """Name the type of a column as task files do.

    >>> import datasets
    >>> type_of(datasets.List(datasets.Value("string")))
    'list<string>'
    """
    import datasets  # noqa: PLC0415 (heavy)

    if isinstance(feature, datasets.Value):
        kinds = {"large_string": "string", "string": "string", "bool": "bool"}
        name = str(feature.dtype)
        return kinds.get(name, name.rstrip("0123456789").removeprefix("u"))
    if isinstance(feature, datasets.ClassLabel):
        return "label"
    if isinstance(feature, datasets.Image):
        return "image"
    if isinstance(feature, datasets.List | datasets.LargeList):
        return f"list<{type_of(feature.feature)}>"
    if isinstance(feature, list):
        return f"list<{type_of(feature[0])}>"
    # One reader's dictionary is another's JSON.
    return "record" if isinstance(feature, dict | datasets.Json) else type(feature).__name__
