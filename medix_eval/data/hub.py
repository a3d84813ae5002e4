"""The dataset hub: what a dataset consists of at one commit, and its files, one at a time.

An adapter of `huggingface_hub` and nothing more; every way in which the hub can refuse becomes a
`DatasetError` here.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import datasets
import datasets.config
import huggingface_hub
from huggingface_hub import constants, errors
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from medix_eval.errors import ConfigError, DatasetError, full_disk
from medix_eval.storage.mirror import MirrorFile

_OFFLINE = "the hub may be unreachable, or HF_HUB_OFFLINE is set; pull on a machine with access"
_TERMS = "accept its terms on its hub page, and set HF_TOKEN to a token of that account"


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFile:
    """A file as the hub lists it; one of the two hashes is known."""

    size: int
    sha256: str | None
    git_blob: str

    def fits(self, path: Path) -> MirrorFile | None:
        """Return the description of a copy, or None if it is not this file."""
        if not path.is_file() or path.stat().st_size != self.size:
            return None
        found = MirrorFile.of(path)
        if self.sha256 is not None:
            return found if found.sha256 == self.sha256 else None
        content = path.read_bytes()  # only small files have no SHA-256 on the hub
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
        return found if blob.hexdigest() == self.git_blob else None


@dataclass(frozen=True, slots=True, kw_only=True)
class HubDataset:
    """A dataset repository at one commit."""

    name: str
    commit: str
    files: Mapping[str, HubFile]

    def files_of(self, config: str | None, options: Mapping[str, Any]) -> list[str]:
        """Return the files that `datasets` would load for a config, all of its splits."""
        options = {key: value for key, value in options.items() if key != "revision"}
        with _explained(self.name):
            builder = datasets.load_dataset_builder(
                self.name, config, revision=self.commit, **options
            )
        found = builder.config.data_files or {}
        prefix = f"hf://datasets/{self.name}@{self.commit}/"
        return [path.removeprefix(prefix) for paths in found.values() for path in paths]

    def fetch(self, name: str, folder: Path) -> MirrorFile:
        """Download one file, or the rest of it, and compare its hash; twice if it is damaged."""
        for _ in range(2):
            path = folder / name
            self._download(name, path)
            if copied := self.files[name].fits(path):
                return copied
            path.unlink()
        raise DatasetError(
            f"{name} of {self.name}: the download is not what the hub lists",
            hint="a proxy may alter it, or the hub's copy is damaged; try again",
        )

    def _download(self, name: str, path: Path) -> None:
        """Fetch a file through a part beside it; a process that was killed leaves it for the next.

        `hf_hub_download` starts such a file over, and the images of PMC-VQA are 19 GB.
        """
        part = path.with_name(f".{path.name}.{self.files[name].git_blob[:8]}.part")
        path.parent.mkdir(parents=True, exist_ok=True)
        url = huggingface_hub.hf_hub_url(self.name, name, repo_type="dataset", revision=self.commit)
        size = self.files[name].size
        with _explained(self.name), part.open("ab") as file:
            if file.tell() > size:
                file.truncate(0)
            if size:
                http_get(
                    url,
                    file,
                    resume_size=file.tell(),
                    headers=build_hf_headers(),
                    expected_size=size,
                )
        part.replace(path)


def hub_dataset(name: str, *, revision: str | None) -> HubDataset:
    """Ask the hub what a dataset consists of."""
    with _explained(name):
        info = huggingface_hub.HfApi().dataset_info(name, revision=revision, files_metadata=True)
    files = {
        one.rfilename: HubFile(
            size=one.size or 0,
            sha256=one.lfs.sha256 if one.lfs else None,
            git_blob=one.blob_id or "",
        )
        for one in info.siblings or ()
    }
    return HubDataset(name=name, commit=str(info.sha), files=files)


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Say in one line why the hub did not give what was asked for."""
    try:
        yield
    except errors.GatedRepoError as error:
        raise DatasetError(f"{name} is gated: no access", hint=_TERMS) from error
    except (errors.RevisionNotFoundError, errors.EntryNotFoundError) as error:
        raise DatasetError(f"{name}: {_first_line(error)}") from error
    except errors.RepositoryNotFoundError as error:
        raise DatasetError(
            f"the hub has no dataset {name}, or it is private",
            hint="check whether it has moved; for a private dataset set HF_TOKEN",
        ) from error
    except errors.HTTPError as error:  # type: ignore[attr-defined]  # of its HTTP library
        raise DatasetError(f"cannot reach {name}: {_first_line(error)}", hint=_OFFLINE) from error
    except OSError as error:
        if full_disk(error):
            raise ConfigError(
                f"the disk is full: {name} does not fit",
                hint="copied files are kept; free some space or change --to, and pull again",
            ) from error
        raise DatasetError(f"cannot get {name}: {_first_line(error)}", hint=_OFFLINE) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


_WAIT_S = 4.0
"""For an address and a connection together."""
_NEXT_ADDRESS_S = 0.25


@contextmanager
def offline_if_out_of_reach(task: str, dataset: str) -> Iterator[None]:
    """Keep the hub's libraries offline inside, and say why, where the hub does not answer."""
    if constants.HF_HUB_OFFLINE or _answers(constants.ENDPOINT):
        yield
        return
    constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    except DatasetError as error:
        if not isinstance(error.__cause__, ConnectionError):
            raise  # the copy in the cache is at fault
        raise DatasetError(
            f"task {task}: no copy of {dataset}, and {constants.ENDPOINT} cannot be reached",
            hint=error.hint,
        ) from error
    finally:
        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = False


@cache
def _answers(address: str) -> bool:
    parts = urlsplit(address)
    if {parts.scheme, "all"} & getproxies().keys():  # then only the proxy knows, and it is near
        return True
    reached = threading.Event()

    async def connect() -> None:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        # All of its addresses side by side: a network may lose one family of them in silence.
        _, writer = await asyncio.open_connection(
            parts.hostname, port, happy_eyeballs_delay=_NEXT_ADDRESS_S
        )
        writer.close()
        reached.set()

    def reach() -> None:
        with suppress(OSError, ValueError):
            asyncio.run(connect())

    # A thread, because a name that nobody resolves has no time-out of its own.
    thread = threading.Thread(target=reach, daemon=True)
    thread.start()
    thread.join(_WAIT_S)
    return reached.is_set()
