"""Files that come with the package, in a wheel or in a checkout, and settings in YAML.

Protocols, recipes, rewards and policies are read here. Whether a key exists is the schema's to say;
here a mistake becomes one line that names it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from medix_eval.errors import ConfigError

Kind = Literal["tasks", "judges", "leaderboard", "recipes"]
_CHECKOUT = {"recipes": "training/recipes"}
_PACKAGE = Path(__file__).resolve().parent.parent


def bundled(kind: Kind) -> Path:
    """Return the folder that holds the bundled files of this kind.

    A wheel carries them under `medix_eval/_bundled`; an editable install reads the repository's
    own top-level folder, so an edit is live. The wheel is always unpacked on disk (`zip-safe` is
    not an option: lm-eval reads task folders by path).
    """
    for folder in (_PACKAGE / "_bundled" / kind, _PACKAGE.parent / _CHECKOUT.get(kind, kind)):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"no bundled {kind!r} folder beside {_PACKAGE}")


def read_mapping(path: Path, *, what: str) -> dict[str, Any]:
    """Read a YAML file of keys and values; `what` is the word for it in a message."""
    import yaml  # noqa: PLC0415 (10 ms, which most commands need not take)

    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    except OSError as error:
        raise ConfigError(f"{what} file {path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # of a day 2026-13-01, too
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} is not a {what}: expected keys and values")
    return raw


def set_key(raw: dict[str, Any], override: str, *, hint: str) -> None:
    """Set one dotted key of `raw`, as in `generation.max_tokens=8192`."""
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"{override!r} is not key=value", hint=hint)
    import yaml  # noqa: PLC0415

    *parents, last = key.split(".")
    at: Any = raw
    for parent in parents:
        if isinstance(at, dict) and at.get(parent) is None:
            at[parent] = {}  # a section that was left out
        at = at.get(parent) if isinstance(at, dict) else None
        if not isinstance(at, dict):
            raise ConfigError(f"{override!r}: {parent!r} has no keys below it", hint=hint)
    try:
        at[last] = yaml.load(value, Loader=yaml.CSafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{override!r}: the value is not YAML") from error
