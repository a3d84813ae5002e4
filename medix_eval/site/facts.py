"""What is known of a model beside its scores: size, base, data, openness, licence.

A fact that nobody wrote down stays unknown: the site shows a dash and never guesses from a name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveFloat, ValidationError

from medix_eval.errors import ConfigError


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelFacts(_Facts):
    """One model of `models.yaml`; None is unknown."""

    parameters_b: PositiveFloat | None = None
    """Billions of parameters."""
    base: str | None = None
    """The model it was trained from."""
    training_samples: NonNegativeInt | None = None
    inputs: Literal["text", "image+text"] | None = None
    open_weights: bool | None = None
    open_data: bool | None = None
    licence: str | None = None
    source: str | None = None
    """Where a reader can check these facts."""


class _File(_Facts):
    models: dict[str, ModelFacts]


UNKNOWN = ModelFacts()


def load_facts(files: Iterable[Path]) -> dict[str, ModelFacts]:
    """Read files of model facts; a later file replaces single facts of an earlier one."""
    facts: dict[str, ModelFacts] = {}
    for path in files:
        for name, found in _read(path).models.items():
            known = facts.get(name, UNKNOWN)
            facts[name] = known.model_copy(update=found.model_dump(exclude_unset=True))
    return facts


def facts_of(model: str, facts: Mapping[str, ModelFacts]) -> ModelFacts:
    """Find a model's facts by its name, then by its name without provider and revision.

    >>> facts_of("openai:a/b@1f", {"a/b": ModelFacts(licence="mit")}).licence
    'mit'
    """
    bare = model.partition(":")[2] or model
    names = (model, bare, bare.partition("@")[0])
    return next((facts[name] for name in names if name in facts), UNKNOWN)


def _read(path: Path) -> _File:
    try:
        return _File.model_validate(yaml.load(path.read_bytes(), Loader=yaml.CSafeLoader))
    except OSError as error:
        raise ConfigError(f"--models {path} cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"{path}: {where}: {first['msg']}",
            hint="the form is shown at the top of leaderboard/models.yaml",
        ) from error
