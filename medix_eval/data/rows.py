"""The rows of a dataset and their images, checked against what a task file says of them.

Synthetic rows (`synthetic: true`) must have the columns and the types of the real ones; their
number and their bytes are their own. Images are passed on as they are stored: never decoded here.
"""

from __future__ import annotations

import logging
import re
import shutil
import time
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub

from medix_eval.data.tasks import ImageSource, TaskFile, TaskSettings
from medix_eval.errors import BadRow, DatasetError
from medix_eval.storage.digests import digest
from medix_eval.storage.mirror import Mirror, sha256_of

_CHANGED = "a changed dataset gives a different score: check what changed"


def check_columns(
    task: str,
    settings: TaskSettings,
    features: Mapping[str, Any],
    *,
    needed: Collection[str],
    index: object,
) -> bool:
    """Raise `DatasetError` for the first column that is missing or of another type.

    Return whether `index`, the column of the right option, has plain numbers in place of labels.
    """
    for column in (*needed, *settings.facts, *settings.row_columns, *settings.columns):
        if column not in features:
            raise DatasetError(
                f"task {task}: the dataset has no column {column!r}, only {', '.join(features)}"
            )
    is_plain = False
    for column, expected in settings.columns.items():
        found, known = type_of(features[column]), [one.strip() for one in expected.split("|")]
        if found not in known:
            is_plain = found == "int" and "label" in known and column == index
            if not is_plain:
                raise DatasetError(
                    f"task {task}: column {column!r} is {found}, but the task file says {expected}",
                    hint=_CHANGED,
                )
    return is_plain


def local_files(
    place: str, config: str | None, options: Mapping[str, Any]
) -> dict[str, list[Path]]:
    """Return the files of each split of a local dataset, as `datasets` itself finds them.

    `place` is a folder, or a reader of `datasets` such as `csv`, whose `data_files` are anywhere.
    Raises `DatasetError` for files of another machine: nothing could record what they hold.
    """
    options = {key: options[key] for key in options if key not in {"revision", "trust_remote_code"}}
    builder = datasets.load_dataset_builder(place, config, **options)
    found = builder.config.data_files or {}
    for path in (str(one) for paths in found.values() for one in paths):
        if "://" in path.split("::")[-1]:
            hint = "download it, or name its repository as dataset_path"
            raise DatasetError(f"data_files: {path} is not a local file", hint=hint)
    return {str(split): [*map(Path, paths)] for split, paths in found.items()}


def cache_of(source: Sequence[Any], scored: Mapping[str, str], others: Iterable[Path]) -> str:
    """Return the folder in which `datasets` keeps its reading of local files, as they are now.

    Left alone it would take rows read earlier from another copy, or from files changed since, if
    the card names files: then its cache is known by name and card only. So it is known here by its
    `source` (path first), the hashes of the `scored` files and the state of the files of `others`.
    Readings of the same source that are outdated are removed, and those of sources that are gone;
    not those of late, which another process may read or write.
    """
    states = [
        (str(path), (of := path.stat()).st_size, of.st_mtime_ns, of.st_ctime_ns) for path in others
    ]
    place = Path(datasets.config.HF_DATASETS_CACHE, "medix-eval")
    home = place / digest([*map(str, source)])[:16]
    now = home / digest([dict(scored), states])[:16]
    home.mkdir(parents=True, exist_ok=True)
    (home / _SOURCE).write_text(str(source[0]), encoding="utf-8")
    outdated = [
        one for one in home.iterdir() if one.is_dir() and one != now and _is_old(one, _HOUR)
    ]
    for note in place.glob(f"*/{_SOURCE}"):
        with suppress(OSError):  # another process may clean up, too
            is_gone = not Path(note.read_text(encoding="utf-8")).exists()
            outdated += [note.parent] if is_gone and _is_old(note, _WEEK) else []
    for one in outdated:
        shutil.rmtree(one, ignore_errors=True)
    return str(now)


def _is_old(path: Path, seconds: float) -> bool:
    return time.time() - path.stat().st_mtime > seconds


_HOUR, _WEEK = 3_600.0, 604_800.0
_SOURCE = "source"
"""A file beside the readings of one source: where it lies."""


def check_size(task: str, *, expected: int | None, found: int, where: str) -> None:
    """Raise `DatasetError` if the number of rows is not the stated one."""
    if expected not in {None, found}:
        raise DatasetError(f"task {task}: rows {found}, but {where} says {expected}", hint=_CHANGED)


def changes_since_pinned(
    file: TaskFile,
    *,
    mirror: Mirror | None,
    num_rows: int,
    revision: str | None,
    fingerprint: Mapping[str, str],
) -> list[str]:
    """Name what differs from what a copy's manifest lists, and from the task file's pins.

    Pinned are commit, number of rows and hashes of files; nothing of it of synthetic rows.
    """
    listed = mirror.files if mirror else {}
    edited = [
        f"{name}: SHA-256 {listed[name].sha256[:12]}… in the manifest, now {sha[:12]}…"
        for name, sha in fingerprint.items()
        if name in listed and listed[name].sha256 != sha
    ]
    if mirror and mirror.synthetic:
        return edited
    pinned = file.settings.files
    pairs = [
        ("revision", file.revision, revision),
        ("rows", file.settings.num_samples, num_rows),
        *((name, sha, fingerprint.get(name)) for name, sha in pinned.items()),
    ]
    return edited + [
        f"{what}: {old}, now {new}" for what, old, new in pairs if old not in {None, new}
    ]


def type_of(feature: Any) -> str:
    """Name the type of a column as task files do.

    >>> import datasets
    >>> type_of(datasets.List(datasets.Value("string")))
    'list<string>'
    """
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


_SHA256 = re.compile(r"[0-9a-f]{64}")


def image_hashes(
    images: ImageSource | None, folder: Path, mirror: Mirror | None, *, rehash: bool
) -> dict[str, str]:
    """Return the SHA-256 of a local copy's zip of images, or one of all the files in their folder.

    What the manifest lists is believed unless `rehash` says otherwise.
    """
    listed = mirror.files if mirror else {}
    if images and images.zip:
        known = None if rehash else listed.get(images.zip)
        return {images.zip: known.sha256 if known else sha256_of(folder / images.zip)}
    place = f"{images.folder}/" if images else "/"
    beside = {
        name: sha256_of(folder / name) if rehash else file.sha256
        for name, file in listed.items()
        if name.startswith(place)
    }
    return {place: digest(beside)} if beside else {}


def cached_hashes(
    repository: str, *, config: str | None, split: str, revision: str, images: ImageSource | None
) -> dict[str, str]:
    """Return the SHA-256 of the files of a split in the hub's cache, by name.

    The cache holds what was downloaded; the folder of a config and the name of a split tell which
    of these were scored.
    """
    from huggingface_hub import constants  # noqa: PLC0415

    name = f"datasets--{repository.replace('/', '--')}"
    folder = Path(constants.HF_HUB_CACHE) / name / "snapshots" / revision
    found = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in {"README.md", ".gitattributes"}
    }
    found = {name: at for name, at in found.items() if name.startswith(f"{config}/")} or found
    of_split = {name: path for name, path in found.items() if split in Path(name).name}
    if of_split and images and images.zip in found:
        of_split[images.zip] = found[images.zip]
    return {name: _cached_hash(path) for name, path in (of_split or found).items()}


def _cached_hash(path: Path) -> str:
    name = path.resolve().name
    return name if _SHA256.fullmatch(name) else sha256_of(path)


def undecoded(rows: datasets.Dataset) -> datasets.Dataset:
    """Make every image column give stored bytes in place of decoded images."""
    for column, feature in rows.features.items():
        if isinstance(feature, datasets.Image):
            rows = rows.cast_column(column, datasets.Image(decode=False))
        elif isinstance(feature, datasets.List) and isinstance(feature.feature, datasets.Image):
            rows = rows.cast_column(column, datasets.List(datasets.Image(decode=False)))
    return rows


def column_images(value: Any, *, folder: Path | None = None) -> list[bytes]:
    """Return the encoded images of one image column: none, one, or a list of them.

    One that is a text is the path of a file in `folder`. Raises `BadRow` for one that is not there.
    """
    images = value if isinstance(value, list) else [value]
    return [_stored(image, folder=folder) for image in images if image is not None]


def open_image_files(
    source: ImageSource, *, repository: str, folder: Path | None, revision: str | None
) -> ImageFiles:
    """Find a dataset's image files: in its local copy if there is one, else on the hub."""
    place = str(source.zip or source.folder)
    if folder:
        return ImageFiles(source, folder / place)
    try:
        downloaded = huggingface_hub.hf_hub_download(
            repository, place, repo_type="dataset", revision=revision
        )
    except OSError as error:  # all of its network and not-found errors are among these
        raise DatasetError(f"cannot get {place} of {repository}: {error}") from error
    return ImageFiles(source, Path(downloaded))


_UNREADABLE = (
    KeyError, OSError, RuntimeError, zipfile.BadZipFile, zlib.error, EOFError, ValueError,
)  # fmt: skip
"""Of a damaged zip, or one with a password."""


class ImageFiles:
    """The image files that a dataset keeps beside its table, in a zip or in a folder."""

    def __init__(self, source: ImageSource, place: Path) -> None:
        """`place` is the zip or the folder; that it is there is checked before any row is read."""
        self._source = source
        self._folder = place
        self._zip = None
        self._by_name: dict[str, str] = {}
        try:
            if source.zip:
                self._zip = zipfile.ZipFile(place)
        except (OSError, zipfile.BadZipFile) as error:
            raise DatasetError(f"cannot read the images in {place}: {error}") from error
        if source.folder and not place.is_dir():
            raise DatasetError(f"the image folder {place} is missing")

    def read(self, row: Mapping[str, Any]) -> bytes:
        """Return the encoded image of one row."""
        member = self._source.member.format_map(row)
        try:
            if self._zip:
                return self._zip.read(self._member(member))
            # The bare name only: a table must not reach files outside the folder.
            return (self._folder / Path(member).name).read_bytes()
        except _UNREADABLE as error:
            raise BadRow(f"no image {member} in {self._folder.name}: {error}") from error

    def missing(self, rows: Iterable[Mapping[str, Any]]) -> list[str]:
        """Return the files that rows name and that are not there, each once."""
        members = dict.fromkeys(self._source.member.format_map(row) for row in rows)
        if self._zip:
            inside = set(self._zip.namelist())
            return [member for member in members if self._member(member) not in inside]
        present = {path.name for path in self._folder.iterdir()}
        return [name for name in (Path(member).name for member in members) if name not in present]

    def _member(self, member: str) -> str:
        """Return a member's full name; a bare name is looked for in all folders of the zip."""
        assert self._zip is not None  # noqa: S101 (asked of a zip only)
        if "/" in member:
            return member
        if not self._by_name:
            self._by_name = {Path(name).name: name for name in self._zip.namelist()}
        return self._by_name.get(member, member)


def _stored(image: Mapping[str, Any] | str, *, folder: Path | None) -> bytes:
    if isinstance(image, str):
        image = {"bytes": None, "path": Path(folder or "", image)}
    if image["bytes"] is not None:
        return bytes(image["bytes"])
    try:
        return Path(image["path"]).read_bytes()
    except (OSError, TypeError) as error:
        raise BadRow(f"no image {image['path']}: {error}") from error


_NOISY = ("lm_eval", "datasets", "huggingface_hub")


@contextmanager
def quiet() -> Iterator[None]:
    """Silence progress bars and log lines of the libraries while a task opens."""
    loggers = [logging.getLogger(name) for name in _NOISY]
    levels = [logger.level for logger in loggers]
    was_disabled = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if not was_disabled:
            datasets.enable_progress_bars()
