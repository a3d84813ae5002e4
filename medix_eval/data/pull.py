"""Copy the datasets of tasks into a mirror: `DIR/ORG/NAME`, as on the hub, with a manifest.

A pull can be stopped at any time: the manifest lists what is complete, and the next pull continues
with the commit it names, so a mirror never mixes two.
"""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import datasets
import yaml

from medix_eval.data.hub import HubDataset, hub_dataset
from medix_eval.data.physionet import XRays
from medix_eval.data.rows import quiet
from medix_eval.data.tasks import TaskFile
from medix_eval.errors import ConfigError, DatasetError
from medix_eval.storage.mirror import Mirror, MirrorFile, load_manifest, rows_key

_LOG = logging.getLogger(__name__)
_CARD = "README.md"
"""Tells `datasets` the configs and the columns' types."""
_AS_ON_HUB = "as-on-hub"
"""Folder of the card as it was; the mirror's own card names only the configs that are here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """What a mirror now holds of one dataset."""

    repository: str
    folder: Path
    revision: str
    num_files: int
    num_fetched: int
    num_bytes: int


def pull(files: Iterable[TaskFile], to: Path) -> list[Pulled]:
    """Copy what these tasks need; tasks of one dataset share its folder."""
    by_repository: defaultdict[str, list[TaskFile]] = defaultdict(list)
    for file in files:
        if file.dataset_path:
            by_repository[file.dataset_path].append(file)
    return [_pull_one(name, members, to / name) for name, members in by_repository.items()]


def _pull_one(name: str, files: list[TaskFile], folder: Path) -> Pulled:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--to {folder} cannot be written to: {error.strerror}") from error
    manifest = load_manifest(folder)
    if manifest and manifest.synthetic:
        raise ConfigError(
            f"{folder} has synthetic rows; real rows cannot be added to it",
            hint="name another folder with --to",
        )
    dataset = hub_dataset(name, revision=_revision(files, manifest, folder))
    manifest = manifest or Mirror(
        source=name, revision=dataset.commit, files={}, rows={}, synthetic=False
    )
    wanted: dict[str, None] = {}
    for file in files:
        with quiet():
            wanted |= dict.fromkeys(dataset.files_of(file.dataset_name, file.dataset_kwargs))
        if file.settings.image_source and file.settings.image_source.zip:
            wanted[file.settings.image_source.zip] = None
    manifest, num_fetched = _fetch_all(dataset, list(wanted), folder, manifest)
    if _CARD in dataset.files:
        here = {str(file.dataset_name) for file in files}
        here |= {key.partition("/")[0] for key in manifest.rows}
        manifest = _write_card(dataset, folder, manifest, configs=here)
    for file in files:
        counted = _rows(folder, file.dataset_name, dict(file.dataset_kwargs))
        rows = {
            rows_key(file.dataset_name, split, file.dataset_kwargs): num
            for split, num in counted.items()
        }
        manifest = manifest.model_copy(update={"rows": {**manifest.rows, **rows}})
        manifest.write(folder)
        if (images := file.settings.image_source) and images.folder:
            addresses = _addresses(folder, file)
            xrays = XRays(folder=folder, place=images.folder, manifest=manifest)
            try:
                asyncio.run(xrays.fetch(addresses))
            finally:
                manifest = xrays.manifest
            num_fetched += xrays.num_fetched
            wanted |= dict.fromkeys(f"{images.folder}/{Path(one).name}" for one in addresses)
    return Pulled(
        repository=name,
        folder=folder,
        revision=dataset.commit,
        num_files=len(wanted),
        num_fetched=num_fetched,
        num_bytes=sum(manifest.files[one].bytes for one in wanted),
    )


def _revision(files: list[TaskFile], manifest: Mirror | None, folder: Path) -> str | None:
    """Return the commit to copy: what the mirror holds already, else what the tasks pin."""
    pinned = {file.revision for file in files if file.revision}
    begun = manifest.revision if manifest else None
    if len(pinned) > 1 or (begun and pinned - {begun}):
        raise DatasetError(
            f"{folder}: its copy is of commit {begun or 'unknown'}, "
            f"but the task files pin {', '.join(sorted(pinned))}",
            hint="pull into another folder with --to",
        )
    return begun or next(iter(pinned), None)


def _fetch_all(
    dataset: HubDataset, names: list[str], folder: Path, manifest: Mirror
) -> tuple[Mirror, int]:
    """Download what is not there yet; the manifest is written after every file."""
    num_fetched = 0
    for number, name in enumerate(names, 1):
        listed = manifest.files.get(name)
        path = folder / name
        if listed and path.is_file() and path.stat().st_size == listed.bytes:
            continue
        if name not in dataset.files:
            raise DatasetError(f"{dataset.name} has no file {name}")
        size = dataset.files[name].size
        _LOG.info("%s: %s, %d of %d, %s", dataset.name, name, number, len(names), size_text(size))
        copied = dataset.files[name].fits(path) or dataset.fetch(name, folder)
        manifest = manifest.model_copy(update={"files": {**manifest.files, name: copied}})
        manifest.write(folder)
        num_fetched += 1
    return manifest, num_fetched


def _write_card(
    dataset: HubDataset, folder: Path, manifest: Mirror, *, configs: Collection[str]
) -> Mirror:
    """Keep the hub's card, and write one that names only what was copied.

    `datasets` opens no config of a folder whose card names another one without files.
    """
    kept = dataset.files[_CARD].fits(folder / _AS_ON_HUB / _CARD)
    original = kept or dataset.fetch(_CARD, folder / _AS_ON_HUB)
    text = (folder / _AS_ON_HUB / _CARD).read_text(encoding="utf-8")
    _, mark, rest = text.partition("---\n")
    head, end, body = rest.partition("\n---")
    if mark and end and text.startswith(mark):
        fields = yaml.safe_load(head)
        for key in ("configs", "dataset_info"):
            if isinstance(listed := fields.get(key), list):
                fields[key] = [one for one in listed if one.get("config_name") in configs]
        text = f"---\n{yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)}---{body}"
    (folder / _CARD).write_text(text, encoding="utf-8")
    cards = {f"{_AS_ON_HUB}/{_CARD}": original, _CARD: MirrorFile.of(folder / _CARD)}
    return manifest.model_copy(update={"files": {**manifest.files, **cards}})


def _addresses(folder: Path, file: TaskFile) -> list[str]:
    """Return where the images of a task are, each once; only their column is read."""
    source = file.settings.image_source
    assert source is not None  # noqa: S101 (asked of such a task only)
    with quiet(), tempfile.TemporaryDirectory(dir=folder, prefix=".reading-") as scratch:
        rows = datasets.load_dataset(
            str(folder), file.dataset_name, split=file.split, cache_dir=scratch
        )
        return list(dict.fromkeys(source.member.format_map(row) for row in rows))


def _rows(folder: Path, config: str | None, options: dict[str, Any]) -> dict[str, int]:
    """Load the copy once, as an evaluation will, and count its rows by split."""
    options = {key: value for key, value in options.items() if key != "revision"}
    with quiet(), tempfile.TemporaryDirectory(dir=folder, prefix=".counting-") as scratch:
        try:
            found = datasets.load_dataset(str(folder), config, cache_dir=scratch, **options)
            return {str(split): len(rows) for split, rows in found.items()}
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            raise DatasetError(f"{folder}: the copy cannot be read: {error}") from error


def size_text(num_bytes: int) -> str:
    """Write a size for people.

    >>> size_text(18_900_000_000)
    '18.9 GB'
    """
    size, unit = float(num_bytes), "B"
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":  # noqa: PLR2004
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


Where = Literal["mirror", "cache", "drawn", "missing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataPlace:
    """Where a task's data is."""

    where: Where
    revision: str | None = None
    synthetic: bool = False
    num_bytes: int | None = None
    """Size of the files there; of a mirror all files of the dataset's folder."""


def place_of(file: TaskFile, *, data_root: Path | None) -> DataPlace:
    """Find out where a task's data is; with a mirror only the mirror counts."""
    if not file.dataset_path:
        return DataPlace(where="drawn")
    if data_root is not None:
        return _in_mirror(file, data_root / file.dataset_path)
    name = f"datasets--{file.dataset_path.replace('/', '--')}"
    snapshots = hub_cache() / name / "snapshots"
    for folder in sorted(snapshots.glob("*"), key=lambda one: one.stat().st_mtime, reverse=True):
        inside = [path for path in folder.rglob("*") if path.is_file()]
        of_config = any(path.parent.name == file.dataset_name for path in inside)
        if file.dataset_name is None or of_config:
            num_bytes = sum(path.stat().st_size for path in inside)
            return DataPlace(where="cache", revision=folder.name, num_bytes=num_bytes)
    return DataPlace(where="missing")


def hub_cache() -> Path:
    """Return the folder of the hub's cache, without importing its client."""
    home = os.environ.get("HF_HOME", "~/.cache/huggingface")
    return Path(os.environ.get("HF_HUB_CACHE", f"{home}/hub")).expanduser()


def _in_mirror(file: TaskFile, folder: Path) -> DataPlace:
    if not folder.is_dir():
        return DataPlace(where="missing")
    mirror = load_manifest(folder)
    if mirror is None:
        return DataPlace(where="mirror")
    if rows_key(file.dataset_name, file.split, file.dataset_kwargs) not in mirror.rows:
        return DataPlace(where="missing", revision=mirror.revision)
    return DataPlace(
        where="mirror",
        revision=mirror.revision,
        synthetic=mirror.synthetic,
        num_bytes=sum(listed.bytes for listed in mirror.files.values()),
    )
