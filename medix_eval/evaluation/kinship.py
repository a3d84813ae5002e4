"""How close a judge is to its candidate: one checkpoint, the judge of its training, or a family.

Only what is known is said. A name that tells no family gives no warning, and no all-clear.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from medix_eval.errors import ConfigError
from medix_eval.judging.protocol import RulesOnly, load_protocol
from medix_eval.models.checkpoint import cached_identity, describe
from medix_eval.storage.bundled import read_mapping
from medix_eval.storage.digests import digest

_FILE = Path(__file__).with_name("families.yaml")


@dataclass(frozen=True, slots=True)
class Known:
    """A model by the name it was given, with its identity as far as a run has recorded it."""

    name: str
    identity: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> object:
        """What the identity is about, such as `folder`; None if nothing was recorded."""
        return self.identity.get("kind")


def kinship_warnings(candidate: Known, judges: Iterable[Known]) -> list[str]:
    """Say why a judge may favour this candidate: it is the same model, its teacher, or its kin.

    >>> kinship_warnings(Known("MBZUAI/MediX-R1-8B"), [Known("Qwen/Qwen3-14B")])
    ['Qwen/Qwen3-14B judges MBZUAI/MediX-R1-8B, and both are of the Qwen family']
    >>> kinship_warnings(Known("Qwen/Qwen3-14B"), [Known("openai:qwen3-14b")])
    ['openai:qwen3-14b judges its own checkpoint, as far as the name Qwen/Qwen3-14B tells']
    """
    said = []
    family, teacher = _family(candidate.name), _trained_with(candidate.name)
    for judge in judges:
        judging = f"{judge.name} judges {candidate.name}"
        if same := _said_of_one_checkpoint(candidate, judge):
            said.append(f"{judge.name} judges {same}")
        elif teacher is not None and _parts(Known(teacher))[-1] == _parts(judge)[-1]:
            said.append(f"{judging}, which was trained to please this judge")
        elif family is not None and family == _family(judge.name):
            said.append(f"{judging}, and both are of the {family} family")
    return said


def _said_of_one_checkpoint(candidate: Known, judge: Known) -> str | None:
    """Say whose weights a judge grades if they are its own; None if they are another model's.

    Weights that differ decide against what names say. Names alone are said to be that.
    """
    ours, theirs = _marks(candidate, beside=judge), _marks(judge, beside=candidate)
    if (ours & theirs) - {None}:
        other = candidate.name != judge.name
        return "its own checkpoint" + (f": {candidate.name} has the same weights" if other else "")
    first, second = _parts(candidate), _parts(judge)
    # One name may be the end of the other: `qwen3-14b` of `Qwen/Qwen3-14B`.
    is_one_name = first[-len(second) :] == second[-len(first) :]
    if candidate.kind == judge.kind == "folder" or not is_one_name:
        return None
    if candidate.kind == judge.kind == "hub":
        if candidate.identity.get("repo") != judge.identity.get("repo"):
            return None
        return f"{candidate.name}, another revision of the same model"
    return f"its own checkpoint, as far as the name {candidate.name} tells"


def _marks(model: Known, *, beside: Known) -> set[object]:
    """Return what only one checkpoint can have; two that have one mark in common are the same.

    What the cache has of a hub's model is read only if the other one is a folder.
    """
    identity = model.identity
    if model.kind == "openai":
        host = identity.get("host")
        return {(identity.get("id"), one) for one in (host if isinstance(host, list) else [host])}
    if model.kind == "hub":
        cached = cached_identity(identity) if beside.kind == "folder" else {}
        return {identity.get("commit"), *_weights(cached)}
    return _weights(identity)


def _weights(identity: Mapping[str, Any]) -> set[object]:
    """Return one digest of the weight files, under whatever names; none if none are recorded."""
    files = identity.get("files") if identity.get("kind") == "folder" else None
    hashes = [sha for name, sha in (files or {}).items() if name.endswith(".safetensors")]
    return {digest(sorted(hashes))} if hashes else set()


def _parts(model: Known) -> list[str]:
    """Return a model's name in parts, without provider, revision and number in a jury."""
    name = model.name
    if model.kind != "hub" and Path(name).is_dir():
        path = str(Path(name).resolve())
    else:
        path = re.sub(r"#\d+$", "", name[name.find(":") + 1 :]).partition("@")[0]
    return [part for part in path.lower().split("/") if part] or [""]


def _family(name: str) -> str | None:
    """Return a model's family by its name; of a folder by what its config says."""
    text = name
    if Path(name).is_dir():
        try:
            config = describe(name).config
        except ConfigError:
            config = {}
        text = f"{Path(name).name} {config.get('model_type', '')}"
    return _listed("families", text)


def _trained_with(name: str) -> str | None:
    """Return the judge of a model's training: as its recipe says, or as it was published."""
    folder = Path(name)
    for file in (folder / "recipe.json", folder.parent / "recipe.json"):
        if folder.is_dir() and file.is_file():
            return _judge_of_recipe(file)
    return _listed("trained_with", name)


def _judge_of_recipe(file: Path) -> str | None:
    try:
        reward = json.loads(file.read_text(encoding="utf-8"))["recipe"]["reward"]
        named = reward["judge"]["model"]
        spec = load_protocol(reward["protocol"]).judge
    except (OSError, ValueError, KeyError, TypeError, ConfigError):
        return None
    default = None if isinstance(spec, RulesOnly) else spec.model
    return named if isinstance(named, str) else default


def _listed(what: str, name: str) -> str | None:
    """Return the first entry of `families.yaml` whose pattern is found in a name."""
    entries: dict[str, str] = _lists()[what]
    found = (one for one, pattern in entries.items() if re.search(pattern, name.lower()))
    return next(found, None)


@cache
def _lists() -> dict[str, Any]:
    return read_mapping(_FILE, what="list of families")
