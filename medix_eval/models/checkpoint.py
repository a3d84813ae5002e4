"""A checkpoint on disk or on the hub, which one it is, and the GPUs for it. Needs no torch."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from argparse import ArgumentError
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medix_eval.errors import ConfigError, ServerError, one_line

_IDENTITY_FILES = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
)
_BLOCK = 4096
_SIGHT = ("vision", "visual", "image", "img")
"""Words in the config keys of a vision model; older ones have no `vision_config`."""
_TEMPLATES = ("chat_template.jinja", "chat_template.json", "tekken.json")
"""Files that say how a chat is written; the last is Mistral's way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What the small files of a checkpoint say about it, before anything is loaded."""

    config: Mapping[str, Any]
    """`config.json`; empty if unavailable."""
    tokenizer: Mapping[str, Any]
    """`tokenizer_config.json`; empty if unavailable."""
    has_chat_template: bool | None
    """None if the files that would tell are unavailable."""

    @property
    def takes_images(self) -> bool | None:
        """Whether the model accepts images; None if the config is unavailable."""
        if not self.config:
            return None
        return any(word in key.lower() for key in self.config for word in _SIGHT)

    @property
    def context(self) -> int | None:
        """How many tokens the model takes, prompt and completion together; None if unknown."""
        said = (self.text("max_position_embeddings"), self.tokenizer.get("model_max_length"))
        return min((int(limit) for limit in said if isinstance(limit, int | float)), default=None)

    def text(self, *names: str) -> Any:
        """Return the first of these settings that the language model has."""
        inner = self.config.get("text_config") or self.config.get("llm_config") or {}
        for source in (inner, self.config):
            for name in names:
                if source.get(name) is not None:
                    return source[name]
        return None


def split_revision(name: str) -> tuple[str, str | None]:
    """Split `ORG/NAME@REV`; a folder's name is left alone.

    >>> split_revision("Qwen/Qwen3-14B@0a1b")
    ('Qwen/Qwen3-14B', '0a1b')
    """
    if Path(name).is_dir():
        return name, None
    repo, _, revision = name.partition("@")
    return repo, revision or None


@contextmanager
def refused(what: str) -> Iterator[None]:
    """Turn what a library says of a model's files, or of a setting, into one `ConfigError`."""
    try:
        yield
    except (OSError, ValueError, TypeError, KeyError, ArgumentError) as error:
        raise ConfigError(f"{what}: {one_line(error)[:300]}") from error


def describe(location: str) -> Description:
    """Read what a folder's or a hub name's small files say. Raises `ConfigError`."""
    repo, revision = split_revision(location)

    def content(name: str) -> dict[str, Any] | None:
        path = _small_file(repo, revision, name)
        if path is None:
            return None
        try:
            read = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigError(f"{name} of {location} is not JSON") from error
        return read if isinstance(read, dict) else {}

    tokenizer, processor = content("tokenizer_config.json"), content("processor_config.json")
    known = any("chat_template" in (said or {}) for said in (tokenizer, processor))
    known = known or any(_small_file(repo, revision, name) for name in _TEMPLATES)
    return Description(
        config=content("config.json") or {},
        tokenizer=tokenizer or {},
        has_chat_template=True if known else None if tokenizer is None else False,
    )


def checkpoint_identity(location: str) -> dict[str, Any]:
    """Return the identity of a folder or of a hub name."""
    repo, revision = split_revision(location)
    return folder_identity(Path(repo)) if Path(repo).is_dir() else hub_identity(repo, revision)


def folder_identity(folder: Path) -> dict[str, Any]:
    """Tell this checkpoint from any other, also from the same folder trained again in place.

    Hashes the configuration, tokenizer and chat template, and of each weight file the header and
    one block of every tensor: reading all of 60 GB would take a minute, and training moves every
    tensor. Raises `ConfigError` if the folder has no model.
    """
    if not (folder / "config.json").is_file():
        raise ConfigError(f"{folder} is not a model: it has no config.json")
    hashes = {
        name: _sha256((folder / name).read_bytes())
        for name in _IDENTITY_FILES
        if (folder / name).is_file()
    }
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise ConfigError(f"{folder} has no weights: no *.safetensors file")
    hashes |= {path.name: _weights_sha256(path) for path in weights}
    return {"kind": "folder", "files": hashes}


def hub_identity(repo: str, revision: str | None) -> dict[str, Any]:
    """Return the commit that a hub name stands for, from the hub or, offline, from its cache.

    Raises `ServerError` where neither knows it.
    """
    from huggingface_hub import HfApi, constants, errors, try_to_load_from_cache  # noqa: PLC0415

    try:
        found = try_to_load_from_cache(repo, "config.json", revision=revision)
    except errors.HFValidationError as error:
        raise ConfigError(
            f"{repo!r} is neither a folder nor a hub name", hint="expected ORG/NAME"
        ) from error
    if not constants.HF_HUB_OFFLINE:
        try:
            info = HfApi().model_info(repo, revision=revision, timeout=10)
        except errors.HfHubHTTPError as error:
            code = getattr(error.response, "status_code", None)
            if code in {401, 403, 404}:
                raise ServerError(
                    f"model {repo!r}: access denied or not found on the hub ({code})",
                    hint="check the name, and log in with `hf auth login` if it is gated",
                ) from error
        except (OSError, errors.OfflineModeIsEnabled):
            pass
        except Exception as error:  # the hub's HTTP library differs by version
            if not type(error).__module__.startswith(("http", "requests", "urllib3")):
                raise
        else:
            return {"kind": "hub", "repo": repo, "commit": str(info.sha)}
    if not isinstance(found, str):
        raise ServerError(
            f"model {repo!r} is not on this machine, and the hub cannot be reached",
            hint="give a local folder, or download it first with `hf download`",
        )
    return {"kind": "hub", "repo": repo, "commit": Path(found).parent.name}


def cached_identity(hub: Mapping[str, Any]) -> dict[str, Any]:
    """Return the identity, as of a folder, of a hub's model; empty if its weights are not here."""
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415

    name, commit = str(hub.get("repo")), hub.get("commit")
    try:
        found = try_to_load_from_cache(name, "config.json", revision=commit)
        return folder_identity(Path(found).parent) if isinstance(found, str) else {}
    except (OSError, ValueError, ConfigError):  # a name that is none, a shard that is not there
        return {}


def _small_file(repo: str, revision: str | None, name: str) -> Path | None:
    """Return one file of a checkpoint, from the hub if need be; None if there is none."""
    if Path(repo).is_dir():
        path = Path(repo) / name
        return path if path.is_file() else None
    from huggingface_hub import hf_hub_download  # noqa: PLC0415
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError  # noqa: PLC0415

    try:
        return Path(hf_hub_download(repo, name, revision=revision))
    except (OSError, HfHubHTTPError, HFValidationError):  # not there, or not to be had now
        return None


def _weights_sha256(path: Path) -> str:
    """Hash a safetensors file's header and the first block of each tensor."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        raw = file.read(length)
        sha.update(raw)
        try:
            header = json.loads(raw)
        except ValueError as error:
            raise ConfigError(f"{path} is not a safetensors file") from error
        starts = sorted(one["data_offsets"] for key, one in header.items() if key != "__metadata__")
        for start, end in starts:
            file.seek(8 + length + start)
            sha.update(file.read(min(_BLOCK, end - start)))
    return sha.hexdigest()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def visible_gpus() -> tuple[str, ...]:
    """Return the GPUs that this process may use, in the order of `CUDA_VISIBLE_DEVICES`."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return split_gpus(chosen)
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    query = [tool, "--query-gpu=index", "--format=csv,noheader"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, check=False, timeout=30)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return tuple(found.stdout.split()) if found.returncode == 0 else ()


def split_gpus(numbers: str) -> tuple[str, ...]:
    """Split a list such as `0,1`; identifiers such as `GPU-5a3f` are taken as they are.

    >>> split_gpus("0, 1")
    ('0', '1')
    """
    return tuple(number.strip() for number in numbers.split(",") if number.strip())
