"""Digests: one way to turn settings into the hexadecimal name of exactly these settings."""

from __future__ import annotations

import hashlib
import json
from typing import Any


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
