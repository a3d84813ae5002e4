"""What things are known by: settings by a digest of exactly these, a path by its last part.

Nothing that people share may tell the folders of somebody's machine.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection
from pathlib import PurePosixPath, PureWindowsPath
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit, urlunsplit

from pydantic import AfterValidator

_REDACTED = "[redacted]"
_SHORTEST_SECRET = 8
"""Characters; what is shorter, such as `EMPTY`, is no key, and may be part of an answer."""
_TOLD_IN_QUERIES = frozenset({"api-version"})
_KEY = re.compile(r"(sk|pk|key|token|eyJ)[-_\w.]{8,}|(?=.*\d)(?=.*[A-Za-z])\w{24,}")
"""A part of a path that looks like a credential."""
_PATH = re.compile(r"(?<![^\s=,\"'(\[{])/[^\s,\"')\]}]+")
"""An absolute path within a text, such as the value of a flag."""


def canonical(value: Any) -> str:
    """Return JSON with sorted keys and no spaces: equal settings give equal text."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def digest(value: Any) -> str:
    """Return the SHA-256 of some settings, as 64 hexadecimal digits."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def mark_of(completion: str | None) -> str:
    """Return what tells a completion from another; a letter first, so it stays text in a sheet."""
    text = (completion or "").encode(errors="replace")
    return f"m{hashlib.sha256(text).hexdigest()[:15]}"


def differences(old: Any, new: Any, *, at: str = "") -> list[str]:
    """Name every key in which two settings differ, as `generation.max_tokens: 2048, now 8192`."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in sorted(old.keys() | new.keys()):
            found += differences(old.get(key), new.get(key), at=f"{at}.{key}" if at else key)
        return found
    return [] if old == new else [f"{at}: {_short(old)}, now {_short(new)}"]


def _short(value: Any) -> str:
    text = canonical(value)
    return text if len(text) <= 60 else f"{text[:57]}..."  # noqa: PLR2004


def shown_name(name: str) -> str:
    """Return how a model is shown: of a path on somebody's machine the last part.

    >>> shown_name("/data/step-500"), shown_name("MBZUAI/MediX-R1-8B")
    ('step-500', 'MBZUAI/MediX-R1-8B')
    """
    paths = (kind(name) for kind in (PurePosixPath, PureWindowsPath))
    return next((path.name for path in paths if path.is_absolute() and path.name), name)


ShownName = Annotated[str, AfterValidator(shown_name)]


def marked_name(name: str) -> str:
    """Return a name; of a path the last part and what tells it from others that end so.

    >>> marked_name("/data/step-500"), marked_name("qwen3")
    ('step-500 (c9148643)', 'qwen3')
    """
    shown = shown_name(name)
    return name if shown == name else f"{shown} ({digest(name)[:8]})"


def without_folders(text: str, name: Callable[[str], str] = shown_name) -> str:
    """Return a text with the name of each absolute path in it in place of the path.

    >>> without_folders("prompt.template=/data/plain.jinja")
    'prompt.template=plain.jinja'
    """
    return _PATH.sub(lambda found: name(found[0]), text)


def shown_url(url: str) -> str:
    """Return an address without what may be a credential in it.

    >>> shown_url("https://host/v1?api_key=a&api-version=2024-10-21")
    'https://host/v1?api_key=[redacted]&api-version=2024-10-21'
    """
    return _taken_apart(url)[0]


def hidden_in(url: str) -> list[str]:
    """Return what `shown_url` leaves out, also as it was before it was quoted."""
    hidden = _taken_apart(url)[1]
    return [*filter(None, {*hidden, *map(unquote, hidden)})]


def _taken_apart(url: str) -> tuple[str, list[str]]:
    parts, asked = urlsplit(url), []
    hidden = [parts.password or "", parts.fragment]
    for name, mark, value in (one.rpartition("=") for one in parts.query.split("&") if one):
        is_told = name.lower() in _TOLD_IN_QUERIES
        hidden += [] if is_told else [value]
        asked.append(name + mark + (value if is_told else _REDACTED))
    path = parts.path.split("/")
    hidden += filter(_KEY.fullmatch, path)
    shown = "/".join(_REDACTED if _KEY.fullmatch(one) else one for one in path)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, shown, "&".join(asked), "")), hidden


def without_secrets(said: Any, secrets: Collection[str]) -> Any:
    """Return a text, or all texts of parsed JSON, without these secrets.

    >>> without_secrets({"error": "no such key: sk-12345678"}, ["sk-12345678"])
    {'error': 'no such key: [redacted]'}
    """
    if isinstance(said, str):
        for secret in secrets:
            if len(secret) >= _SHORTEST_SECRET:
                said = said.replace(secret, _REDACTED)
        return said
    if isinstance(said, dict):
        clean = ((without_secrets(one, secrets) for one in pair) for pair in said.items())
        return dict(map(tuple, clean))
    return [without_secrets(one, secrets) for one in said] if isinstance(said, list) else said
